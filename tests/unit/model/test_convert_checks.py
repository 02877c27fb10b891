"""What stands in the way of a conversion: each thing alone, and all of it in one list."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kubewright.errors import ExitCode, HostError
from kubewright.hosts.local import LocalHost
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.kubeadm import default_cluster_configuration
from kubewright.model.conversion import Mode
from kubewright.model.convert_checks import ClusterSeen, Seen, existing_planes, findings, warnings
from kubewright.model.convert_etcd import listening
from kubewright.model.convert_look import LOOK, Certificate, HostSeen, Room, arguments, parse_look
from kubewright.model.objects import to_yaml
from kubewright.model.status import NodeStatus
from kubewright.model.status_etcd import ListedMember, MemberAnswer, MemberWords

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PKI = "/etc/kubernetes/pki"
HELD = frozenset(
    f"{PKI}/{name}" for name in ("ca.key", "front-proxy-ca.key", "etcd/ca.key", "etcd/ca.crt", "sa.key")
)
NAMES = ("cp1", "cp2", "cp3", "w1")


def a_spec(**fields: Any) -> ClusterSpec:
    planes = fields.pop("planes", 3)
    hosts = [
        {"name": f"cp{n}", "address": f"10.0.0.1{n}", "roles": ["control-plane"]}
        for n in range(1, planes + 1)
    ]
    document = {
        "hosts": [*hosts, {"name": "w1", "address": "10.0.0.21"}],
        "endpoint": {"type": "local"},
    }
    return ClusterSpec.model_validate(document | fields)


SERVERS = ("https://127.0.0.1:2379",)
ROOM = Room(1 << 30, "/var/lib")
PLANE = HostSeen(
    joined=True, pods=frozenset({"etcd", "kube-apiserver"}), present=HELD, etcd_servers=SERVERS, room=ROOM
)
MEMBER = ListedMember(1, "cp1", ("https://10.0.0.11:2380",), ("https://10.0.0.11:2379",))
ETCD = MemberAnswer("cp1", MemberWords(1, database=20 << 20), listed=(MEMBER,))


def a_node(name: str, **fields: Any) -> NodeStatus:
    roles = ("control-plane", "master") if name.startswith("cp") else ()
    return replace(NodeStatus(name, True, roles, "v1.20.2", "", "", ()), **fields)


def seen(spec: ClusterSpec | None = None, **fields: Any) -> Seen:
    """cp1 is a control plane, w1 its worker; cp2 and cp3 are bare."""
    spec = spec or a_spec()
    wanted = default_cluster_configuration(spec)
    hosts = {"cp1": PLANE, "cp2": HostSeen(), "cp3": HostSeen(), "w1": HostSeen(joined=True, room=ROOM)}
    api = ClusterSeen(wanted, (a_node("cp1"), a_node("w1")))
    whole = Seen(spec, wanted, Mode.TO_HA, NOW, "127.0.0.1:6444", hosts, {}, ("cp1",), (ETCD,), api)
    return replace(whole, **fields)


def host(base: Seen, name: str, **fields: Any) -> Seen:
    """The same with a host that is another."""
    return replace(base, hosts={**base.hosts, name: replace(base.hosts[name], **fields)})


def nodes(*found: NodeStatus) -> ClusterSeen:
    return ClusterSeen(default_cluster_configuration(a_spec()), found)


def said(found: Seen) -> list[str]:
    return [str(one) for one in findings(found)]


def only(found: Seen) -> tuple[str, str, ExitCode]:
    """The one finding: what it says, its mend and its code."""
    [one] = findings(found)
    return str(one), one.hint, one.exit_code


def test_a_cluster_that_is_whole_may_be_converted() -> None:
    assert said(seen()) == []
    assert warnings(seen()) == []


def test_everything_is_listed_at_once() -> None:
    broken = seen(
        a_spec(endpoint=None, planes=1), endpoint="", etcd=(MemberAnswer("cp1", error="nothing listens there"),),
        api=nodes(a_node("cp1", ready=False), a_node("w1"), a_node("w9")),
    )  # fmt: skip
    ended = (Certificate("/x", "y", NOW),)
    broken = host(broken, "cp1", room=Room(0, "/"), present=frozenset(), certificates=ended)
    assert len(findings(broken)) == 10


# -- hosts and cluster.yaml ---------------------------------------------------------------------------------------


def test_a_host_that_cannot_be_reached() -> None:
    error = HostError("w1: no route to host", hint="start it")
    base = seen(lost={"w1": error})
    hosts = {name: look for name, look in base.hosts.items() if name != "w1"}
    text = only(replace(base, hosts=hosts))
    assert text == ("w1: no route to host", "start it", ExitCode.HOST_UNREACHABLE)


@pytest.mark.parametrize(("mode", "planes"), [(Mode.TO_HA, 3), (Mode.ENDPOINT, 1)])
def test_an_endpoint_is_needed(mode: Mode, planes: int) -> None:
    text, hint, code = only(seen(a_spec(planes=planes, endpoint=None), endpoint="", mode=mode))
    assert text == f"cluster.yaml: --{mode} needs an endpoint"
    assert "endpoint" in hint
    assert code is ExitCode.CONFIG_INVALID


def test_one_control_plane_is_no_ha() -> None:
    assert "needs more than one control plane" in only(seen(a_spec(planes=1)))[0]


def test_an_even_number_is_warned_about_and_nothing_more() -> None:
    found = seen(a_spec(planes=2))
    assert said(found) == []
    [text] = warnings(found)
    assert "even number" in text


def test_an_endpoint_alone_adds_no_control_planes() -> None:
    assert said(seen(a_spec(planes=1), mode=Mode.ENDPOINT)) == []
    assert "cp2, cp3 would be one" in only(seen(mode=Mode.ENDPOINT))[0]


@pytest.mark.parametrize("mode", [Mode.TO_HA, Mode.ENDPOINT])
def test_a_control_plane_that_cluster_yaml_has_not(mode: Mode) -> None:
    spec = a_spec(planes=3 if mode is Mode.TO_HA else 1)
    found = seen(spec, mode=mode, api=nodes(a_node("cp1"), a_node("w1"), a_node("old", roles=("master",))))
    assert "old is a control plane of the cluster, and none here" in only(found)[0]


def test_no_cluster_is_no_conversion() -> None:
    found = seen(existing=(), api=None, etcd=())
    assert "none of its control planes has a cluster" in only(found)[0]


def test_an_external_etcd_is_needed_to_move_there() -> None:
    assert "needs an etcd elsewhere" in only(seen(a_spec(planes=1), mode=Mode.EXTERNAL_ETCD))[0]


# -- etcd ---------------------------------------------------------------------------------------------------------

LEARNER = ListedMember(2, "cp2", ("https://10.0.0.12:2380",), (), learner=True)
UNSTARTED = ListedMember(3, "", ("https://10.0.0.13:2380",))


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (MemberAnswer("cp1", error="no answer"), "cp1: etcd does not answer: no answer"),
        (replace(ETCD, ill="it has no leader"), "cp1: etcd does not serve: it has no leader"),
        (replace(ETCD, alarms={1: ("NOSPACE",)}), "cp1: etcd has raised the alarm NOSPACE"),
        (replace(ETCD, alarms={9: ("CORRUPT",)}), "cp1: etcd has raised the alarm CORRUPT"),
        (replace(ETCD, listed=(MEMBER, LEARNER)), "cp1: etcd has a learner, cp2"),
        (replace(ETCD, listed=(MEMBER, UNSTARTED)), "cp1: etcd has a member https://10.0.0.13:2380"),
    ],
)
def test_an_etcd_that_is_not_well(answer: MemberAnswer, text: str) -> None:
    assert only(seen(etcd=(answer,)))[0].startswith(text)


def test_a_member_that_was_asked_in_vain_is_said_once() -> None:
    lost = ListedMember(2, "cp2", (), ("https://10.0.0.12:2379",))
    etcd = (replace(ETCD, listed=(MEMBER, lost)), MemberAnswer("cp2", error="no answer"))
    found = host(seen(etcd=etcd, existing=("cp1", "cp2")), "cp2", present=HELD, pods=PLANE.pods)
    assert said(found) == ["cp2: etcd does not answer: no answer"]


def test_members_on_their_way_are_tolerated_by_the_run_that_goes_on() -> None:
    etcd = (replace(ETCD, listed=(MEMBER, LEARNER, UNSTARTED)),)
    assert said(seen(etcd=etcd, resumed=True)) == []
    assert len(said(seen(etcd=etcd))) == 2


def test_another_etcd_than_the_clusters() -> None:
    spec = a_spec(
        etcd={"endpoints": ["https://10.9.9.9:2379"], "caFile": "a", "certFile": "b", "keyFile": "c"}
    )
    assert "uses etcd at https://127.0.0.1:2379, and cluster.yaml has another" in only(seen(spec))[0]
    elsewhere = host(
        seen(), "cp1", pods=frozenset({"kube-apiserver"}), etcd_servers=("https://10.9.9.9:2379",)
    )
    assert "uses etcd at https://10.9.9.9:2379" in only(elsewhere)[0]


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ([], (True, True)),
        (["--listen-client-urls=http://127.0.0.1:2379", "--listen-peer-urls=http://127.0.0.1:2380"], (True, True)),
        (["--listen-client-urls=http://0.0.0.0:2379", "--listen-peer-urls=http://0.0.0.0:2380"], (True, False)),
        (["--listen-client-urls=https://[::1]:2379", "--listen-peer-urls=https://10.0.0.1:2380"], (False, True)),
        (
            ["--listen-client-urls=https://127.0.0.1:2379,https://10.0.0.1:2379",
             "--listen-peer-urls=https://10.0.0.1:2380"],
            (False, False),
        ),
    ],
)  # fmt: skip
def test_on_what_etcd_listens(flags: list[str], what: tuple[bool, bool]) -> None:
    assert listening(to_yaml({"spec": {"containers": [{"command": ["etcd", *flags]}]}})) == what


# -- certificates and keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (timedelta(days=-2), "ended on 2026-02-27 12:00 UTC"),
        (timedelta(hours=23), "ends on 2026-03-02 11:00 UTC"),
        (timedelta(days=1), ""),
    ],
)
def test_a_certificate_that_ends_is_named_with_its_mend(left: timedelta, text: str) -> None:
    found = host(seen(), "cp1", certificates=(Certificate(f"{PKI}/apiserver.crt", "apiserver", NOW + left),))
    if not text:
        assert said(found) == []
        return
    message, hint, _ = only(found)
    assert message.startswith(f"cp1: {PKI}/apiserver.crt {text}")
    assert hint == "kubewright certs renew apiserver --host 10.0.0.11"


def test_a_ca_that_has_ended_is_not_renewed() -> None:
    found = host(seen(), "cp1", certificates=(Certificate(f"{PKI}/ca.crt", "", NOW),))
    assert "a CA is not renewed" in only(found)[1]


def test_a_certificate_that_cannot_be_read() -> None:
    assert (
        only(host(seen(), "cp1", unreadable=("x.crt is no certificate",)))[0]
        == "cp1: x.crt is no certificate"
    )


@pytest.mark.parametrize("key", ["ca.key", "front-proxy-ca.key", "etcd/ca.key", "sa.key"])
def test_a_missing_key_is_refused(key: str) -> None:
    found = host(seen(), "cp1", present=HELD - {f"{PKI}/{key}"})
    text, hint, _ = only(found)
    assert text == f"cp1: there is no {PKI}/{key}"
    assert "cannot be converted" in hint


def test_a_key_is_at_hand_where_any_control_plane_has_it_and_etcd_may_have_no_ca() -> None:
    etcd = (
        replace(ETCD, listed=(MEMBER, replace(MEMBER, id=2, name="cp2"))),
        MemberAnswer("cp2", MemberWords(2)),
    )
    both = host(seen(etcd=etcd, existing=("cp1", "cp2")), "cp1", present=HELD - {f"{PKI}/ca.key"})
    both = host(both, "cp2", pods=PLANE.pods, present=frozenset({f"{PKI}/ca.key"}))
    assert said(both) == []
    assert said(host(seen(), "cp1", present=HELD - {f"{PKI}/etcd/ca.key", f"{PKI}/etcd/ca.crt"})) == []


# -- what the API says --------------------------------------------------------------------------------------------


def stored(**fields: Any) -> ClusterSeen:
    cluster = default_cluster_configuration(a_spec()).model_copy(update=fields)
    return ClusterSeen(cluster, (a_node("cp1"), a_node("w1")))


def test_the_version_must_be_the_clusters() -> None:
    text, hint, code = only(seen(api=stored(kubernetes_version="v1.20.15")))
    assert "kubernetesVersion is v1.20.2, and the cluster's is v1.20.15" in text
    assert "v1.20.15" in hint
    assert code is ExitCode.CONFIG_INVALID


def test_a_version_that_nobody_knows() -> None:
    assert only(seen(api=stored(kubernetes_version="v1.9.0")))[2] is ExitCode.VERSION_UNAVAILABLE


@pytest.mark.parametrize(
    ("version", "count"), [("v1.20.1", 0), ("v1.20.2", 0), ("v1.21.0", 1), ("strange", 0)]
)
def test_a_kubelet_is_not_newer(version: str, count: int) -> None:
    found = said(seen(api=nodes(a_node("cp1"), a_node("w1", version=version))))
    assert found == ["w1: its kubelet is v1.21.0, newer than the cluster's v1.20.2"] * count


@pytest.mark.parametrize(
    ("field", "value"),
    [("pod_subnet", "10.99.0.0/16"), ("service_subnet", "10.98.0.0/16"), ("dns_domain", "x.y")],
)
def test_networks_cannot_be_changed(field: str, value: str) -> None:
    networking = default_cluster_configuration(a_spec()).networking.model_copy(update={field: value})
    text, hint, _ = only(seen(api=stored(networking=networking)))
    assert f"the cluster's is {value}: a conversion does not change it" in text
    assert repr(value) in hint


def test_the_directory_of_certificates_stays() -> None:
    assert "certificatesDir is /etc/kubernetes/pki" in only(seen(api=stored(certificates_dir="/pki")))[0]


def test_a_node_that_is_down() -> None:
    down = a_node("w1", ready=False, problems=("not Ready for 5m: Kubelet stopped posting node status.",))
    assert only(seen(api=nodes(a_node("cp1"), down)))[0].startswith(
        "w1: its Node is not Ready for 5m: Kubelet"
    )


def test_a_node_that_cluster_yaml_has_not_and_a_host_that_the_cluster_has_not() -> None:
    found = said(seen(api=nodes(a_node("cp1"), a_node("w2"))))
    assert [text.partition(",")[0] for text in found] == [
        "w2: the cluster has this Node",
        "w1: it has a kubelet.conf",
    ]


def test_new_control_planes_that_are_half_there_do_not_hinder_the_run_that_goes_on() -> None:
    api = nodes(a_node("cp1"), a_node("cp2", ready=False), a_node("w1"))
    found = host(seen(api=api), "cp3", joined=True, pods=frozenset({"etcd"}), listening=LISTENS.format(2379))
    assert len(said(found)) == 3
    assert said(replace(found, resumed=True)) == []
    worker = nodes(a_node("cp1"), a_node("w1", ready=False))
    assert len(said(replace(found, resumed=True, api=worker))) == 1, "others must be up"


# -- ports, ways, names and room ----------------------------------------------------------------------------------

LISTENS = 'LISTEN 0 4096 *:{} *:* users:(("python3",pid=77,fd=3))'


@pytest.mark.parametrize("port", [6443, 2379, 2380, 10257, 10259])
def test_ports_of_new_control_planes_are_free(port: int) -> None:
    text, hint, _ = only(host(seen(), "cp2", listening=LISTENS.format(port)))
    assert text == f"cp2: port {port}, which a control plane needs, is taken by python3 (P44)"
    assert str(port) in hint
    assert said(host(seen(), "cp1", listening=LISTENS.format(port))) == [], "it is a control plane already"
    assert said(host(seen(), "w1", listening=LISTENS.format(port))) == [], "it becomes none"


def test_no_ports_of_etcd_where_etcd_is_elsewhere() -> None:
    spec = a_spec(
        etcd={"endpoints": ["https://10.9.9.9:2379"], "caFile": "a", "certFile": "b", "keyFile": "c"}
    )
    found = host(seen(spec, etcd=()), "cp2", listening=LISTENS.format(2379))
    found = host(found, "cp1", pods=frozenset({"kube-apiserver"}), etcd_servers=("https://10.9.9.9:2379",))
    assert said(found) == []


def test_control_planes_must_be_reached() -> None:
    found = host(seen(), "cp3", out_of_reach=("https://10.0.0.11:2380: no answer in 5 s",))
    assert only(found)[0] == "cp3: it cannot reach a control plane: https://10.0.0.11:2380: no answer in 5 s"


@pytest.mark.parametrize(
    ("line", "own", "taken"),
    [
        ('LISTEN 0 9 127.0.0.1:6444 0.0.0.0:* users:(("python3",pid=77,fd=3))', False, True),
        ('LISTEN 0 9 *:6444 *:* users:(("haproxy",pid=77,fd=3))', False, True),
        ('LISTEN 0 9 *:6444 *:* users:(("haproxy",pid=77,fd=3))', True, False),
        ('LISTEN 0 9 *:6444 *:* users:(("python3",pid=77,fd=3))', True, True),
        ('LISTEN 0 9 10.0.0.21:6444 *:* users:(("python3",pid=77,fd=3))', False, False),
        ('LISTEN 0 9 *:64440 *:* users:(("python3",pid=77,fd=3))', False, False),
    ],
)
def test_the_proxys_port_is_free_or_its_own(line: str, own: bool, taken: bool) -> None:
    found = said(host(seen(), "w1", listening=line, own_proxy=own))
    assert [text.partition(",")[0] for text in found] == ["w1: port 6444"] * taken


def test_the_name_resolves_to_the_same_everywhere() -> None:
    base = seen(endpoint="api.example.com:6443")
    resolved = {"cp1": ("10.0.0.9",), "cp2": (), "cp3": ("127.0.1.1",), "w1": ("10.0.0.9",)}
    for name, addresses in resolved.items():
        base = host(base, name, resolved=addresses)
    assert said(base) == [
        "cp2: the endpoint's name api.example.com does not resolve there",
        "cp3: the endpoint's name api.example.com leads to 127.0.1.1 there, and to 10.0.0.9 elsewhere",
    ]
    assert said(replace(base, endpoint="10.0.0.9:6443")) == [], "an address needs no look"
    same = seen(endpoint="api.example.com:6443")
    for name, addresses in {
        "cp1": ("a", "b"),
        "cp2": ("b", "a"),
        "cp3": ("a", "b"),
        "w1": ("a", "b"),
    }.items():
        same = host(same, name, resolved=addresses)
    assert said(same) == [], "in any order"


@pytest.mark.parametrize(
    ("name", "copied", "database", "free", "fits"),
    [
        ("cp1", 4 << 20, 20 << 20, 64 << 20, True),
        ("cp1", 4 << 20, 20 << 20, (64 << 20) - 1, False),
        ("cp1", 4 << 20, 96 << 20, 200 << 20, True),
        ("cp1", 4 << 20, 96 << 20, (200 << 20) - 1, False),
        ("w1", 4 << 20, 96 << 20, 64 << 20, True),
        ("cp2", 4 << 20, 96 << 20, 0, True),
    ],
)
def test_room_for_the_backup(name: str, copied: int, database: int, free: int, fits: bool) -> None:
    found = seen(etcd=(replace(ETCD, words=MemberWords(1, database=database)),))
    found = host(found, name, copied=copied, room=Room(free, "/var/lib"))
    if fits:
        assert said(found) == []
    else:
        assert only(found)[2] is ExitCode.HOST_DISK_FULL
        assert said(replace(found, resumed=True)) == [], "there is a backup already"


# -- who is there -------------------------------------------------------------------------------------------------


def test_who_is_a_control_plane_already() -> None:
    spec = a_spec()
    hosts = {"cp1": PLANE, "cp2": PLANE, "cp3": replace(PLANE, pods=frozenset({"etcd"}))}
    voter = ListedMember(3, "cp3")
    etcd = (replace(ETCD, listed=(MEMBER, LEARNER, voter)),)
    assert existing_planes(spec, hosts, etcd, resumed=False) == ("cp1", "cp2")
    assert existing_planes(spec, hosts, etcd, resumed=True) == ("cp1",), "cp2 has no vote yet"
    etcd = (replace(ETCD, listed=(MEMBER, replace(LEARNER, learner=False))),)
    assert existing_planes(spec, hosts, etcd, resumed=True) == ("cp1", "cp2")
    assert existing_planes(spec, hosts, (), resumed=True) == ("cp1", "cp2"), "nobody says who votes"


# -- the look -----------------------------------------------------------------------------------------------------


async def test_what_a_real_host_says(tmp_path: Path) -> None:
    here = tmp_path / "a key"
    here.write_bytes(b"x" * 9000)
    data = f"{tmp_path}/not/yet"
    name, paths, _, places = arguments("localhost", [str(here), str(tmp_path / "none")], data)
    async with LocalHost("cp1") as host:
        text = (await host.shell(LOOK, name, paths, f"{here}\n{tmp_path}/none", places)).stdout.decode()
    found = parse_look(text)
    assert found.present == {str(here)}
    assert 9000 <= found.copied < 64000
    assert {*found.resolved} & {"127.0.0.1", "::1"}
    assert found.room is not None
    assert found.room.free > 0
    assert Path(found.room.place).is_mount()


def test_the_fuller_of_two_file_systems_counts() -> None:
    """What is free where nothing will be written is of no use."""
    table = "\n/dev/sda 1 9 9000 1% /\na disk 1 9 5 1% /var/lib/kube wright\ntmpfs 1 9 70 1% /var/lib/etcd\n"
    assert parse_look(f"@@ free{table}").room == Room(5 << 10, "/var/lib/kube wright")


def test_a_host_that_says_nothing() -> None:
    assert parse_look("") == HostSeen()
