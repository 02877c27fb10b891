"""Whether an etcd outside the control planes will do."""

from __future__ import annotations

from dataclasses import replace

from kubewright.model.etcd_endpoints import (
    EndpointAnswer,
    findings,
    kept_endpoints,
    leftovers,
    switched,
    used_endpoints,
    warnings,
)

URLS = tuple(f"https://192.0.2.2{number}:2379" for number in (1, 2, 3))


def answers(host: str = "cp1", **changed: object) -> list[EndpointAnswer]:
    """Three that serve; `changed` are fields of the last one."""
    good = [
        EndpointAnswer(host, url, version="3.4.23", members=frozenset({1, 2, 3}), voters=3) for url in URLS
    ]
    return [*good[:2], replace(good[2], **changed)]  # type: ignore[arg-type]


def test_three_that_serve_will_do() -> None:
    assert findings(answers(), 3) == []
    assert warnings(answers()) == []


def test_one_that_is_away_is_said_and_two_are_too_many() -> None:
    one = answers(trouble="connection refused", members=frozenset(), version="")
    assert findings(one, 3) == []
    assert warnings([*one, *answers("cp2", trouble="connection refused")]) == [
        f"etcd at {URLS[2]} does not serve cp1, cp2: connection refused"
    ]
    two = [one[0], replace(one[2], endpoint=URLS[1]), one[2]]
    [finding] = findings(two, 3)
    assert "2 of etcd's 3 endpoints" in finding.message
    assert finding.host == "cp1"


def test_each_control_plane_must_reach_it() -> None:
    deaf = [replace(one, host="cp2", trouble="no answer in time", members=frozenset()) for one in answers()]
    [finding] = findings([*answers(), *deaf], 3)
    assert finding.host == "cp2"


def test_whoever_is_not_trusted_will_not_do_however_many_others_are() -> None:
    [finding] = findings(answers(trouble="certificate verify failed", untrusted=True, members=frozenset()), 3)
    assert URLS[2] in finding.message
    assert "CA" in finding.hint


def test_members_of_different_clusters_are_refused() -> None:
    [finding] = findings(answers(members=frozenset({7})), 3)
    assert "different etcd clusters" in finding.message


def test_one_that_is_too_old_is_refused() -> None:
    [finding] = findings(answers(version="3.3.10"), 3)
    assert "3.4.0 is the oldest" in finding.message
    assert findings(answers(version="3.5.0-rc.1"), 3) == []


def test_the_etcd_of_a_cluster_is_not_switched() -> None:
    pod = {"spec": {"containers": [{"command": ["kube-apiserver", f"--etcd-servers={','.join(URLS)}"]}]}}
    used = used_endpoints(pod)
    assert used == list(URLS)
    assert used_endpoints(None) == []
    assert switched("cp1", used, [URLS[1], "https://192.0.2.24:2379"]) == []
    assert switched("cp1", [], URLS) == []
    [other] = switched("cp1", used, ["https://192.0.2.99:2379"])
    assert "another one" in other.message
    [lost] = switched("cp1", used, used, founded=False)
    assert lost.host == "cp1"


def test_a_local_etcd_beside_one_elsewhere_is_a_leftover() -> None:
    assert leftovers("cp1", False) == []
    assert "etcd.yaml" in leftovers("cp1", True)[0].message


ONE, TWO, THREE = URLS
GUESS = "https://198.51.100.9:2379"


def test_an_endpoint_that_nobody_can_tell_now_stays_as_it_is_and_where_it_is() -> None:
    assert kept_endpoints([(ONE, True), ("", False), (THREE, True)], URLS) == [ONE, TWO, THREE]
    assert kept_endpoints([("", False), (TWO, True), ("", False)], URLS) == [ONE, TWO, THREE]
    guessed_wrong = [(ONE, True), (TWO, True), (GUESS, False)]
    assert kept_endpoints(guessed_wrong, URLS) == [ONE, TWO, THREE]
    guessed_right = [(ONE, True), (THREE, False), (TWO, True)]
    assert kept_endpoints(guessed_right, URLS) == [ONE, THREE, TWO]


def test_endpoints_that_are_known_follow_the_file() -> None:
    assert kept_endpoints([(ONE, True), (TWO, True)], URLS) == [ONE, TWO], "one is taken out"
    assert kept_endpoints([(ONE, True), (GUESS, True)], [ONE, TWO]) == [ONE, GUESS], "one has another address"


def test_without_an_api_server_a_guess_has_to_do() -> None:
    assert kept_endpoints([(ONE, True), (GUESS, False), ("", False)], []) == [ONE, GUESS]
