"""Work on many hosts at once: every failure is told, and none hides another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest

from kubewright.errors import ExitCode, HostError, KubewrightError
from kubewright.events import Events
from kubewright.hosts import HostFacts
from kubewright.model import kubeconfig, x509
from kubewright.model.config.cluster import ClusterSpec, HostSpec
from kubewright.model.pki import CertSpec, KeyKind
from kubewright.workflows import fleet
from kubewright.workflows.fleet import AbandonedError, on_all


async def test_one_failure_lets_the_others_end_and_is_raised_itself() -> None:
    ended: list[str] = []

    async def works() -> None:
        await asyncio.sleep(0.01)
        ended.append("b")

    async def fails() -> None:
        raise HostError("broken")

    with pytest.raises(HostError) as caught:
        await on_all({"a": fails(), "b": works()})
    assert ended == ["b"]
    assert caught.value.host == "a"


async def test_several_failures_are_one_group() -> None:
    async def fails(name: str) -> None:
        raise HostError(f"{name} is broken", host=name)

    with pytest.raises(ExceptionGroup) as caught:
        await on_all({"a": fails("a"), "b": fails("b")})
    assert sorted(str(error) for error in caught.value.exceptions) == ["a is broken", "b is broken"]


async def test_an_error_that_several_hosts_share_is_told_once() -> None:
    shared: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    shared.set_exception(HostError("no token"))

    async def waits() -> None:
        await shared

    with pytest.raises(HostError, match="no token"):
        await on_all({"a": waits(), "b": waits()})


async def test_what_waits_for_a_failed_host_is_silent() -> None:
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def first() -> None:
        gate.set_exception(AbandonedError())
        raise HostError("the cause")

    async def second() -> None:
        await gate

    with pytest.raises(HostError, match="the cause"):
        await on_all({"first": first(), "second": second()})


async def test_a_programming_error_is_not_swallowed() -> None:
    async def wrong() -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        await on_all({"a": wrong()})
    assert caught.group_contains(ZeroDivisionError)


async def test_cancelling_stops_all() -> None:
    stopped: list[str] = []

    async def waits(name: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.append(name)

    task = asyncio.ensure_future(on_all({"a": waits("a"), "b": waits("b")}))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(stopped) == ["a", "b"]


# -- hosts that cannot be reached ---------------------------------------------------------------------------------


class Stub:
    """A host that answers, or does not."""

    def __init__(self, name: str, files: dict[str, bytes], error: HostError | None) -> None:
        self.name, self._files, self._error = name, files, error

    async def __aenter__(self) -> Stub:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def facts(self) -> HostFacts:
        if self._error is not None:
            raise self._error
        number = self.name[-1]
        return HostFacts(
            self.name, "debian", "12", "", "amd64", f"id-{number}", 2, 4 << 30, 0, True, "systemd", 2, 0,
            f"192.0.2.{number}", (f"192.0.2.{number}",), (),
        )  # fmt: skip

    async def read_files(self, paths: Iterable[str]) -> dict[str, bytes]:
        return {path: self._files[path] for path in paths if path in self._files}


SPEC = ClusterSpec.model_validate(
    {
        "endpoint": {"type": "local"},
        "hosts": [
            {"name": f"cp{number}", "address": f"192.0.2.{number}", "roles": ["control-plane"]}
            for number in (1, 2, 3)
        ],
    }
)
AWAY = HostError("cp1: no route to host", host="cp1")


async def opened(
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, bytes],
    error: HostError = AWAY,
    more: HostError | None = None,
    spec: ClusterSpec = SPEC,
) -> tuple[list[str], dict[str, HostError]]:
    """The names of those that were opened, and those that were not, where cp1 fails, and cp3 with `more`."""
    lost: dict[str, HostError] = {}
    errors = {"cp1": error, "cp3": more}

    def stub(item: HostSpec, _: object) -> Stub:
        return Stub(item.name, files if item.name == "cp2" else {}, errors.get(item.name))

    monkeypatch.setattr(fleet, "open_host", stub)
    async with fleet.open_fleet(spec, None, Events(), lost=lost) as nodes:
        return [node.name for node in nodes], lost


MANIFEST = {"/etc/kubernetes/manifests/etcd.yaml": b"x"}


async def test_a_living_cluster_is_worked_on_without_those_out_of_reach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await opened(monkeypatch, MANIFEST) == (["cp2", "cp3"], {"cp1": AWAY})


@pytest.mark.parametrize(
    ("cluster", "address", "refused"),
    [
        ("kubernetes", "10.0.0.5", ""),
        ("another", "10.0.0.5", "is in another cluster already"),
        ("kubernetes", "192.0.2.2", "`apply` does not move a cluster to another endpoint"),
    ],
)
async def test_the_endpoint_of_a_lost_load_balancer_is_where_the_cluster_has_it(
    monkeypatch: pytest.MonkeyPatch, cluster: str, address: str, refused: str
) -> None:
    """Its address for SSH is not the one that its clients use."""
    kind = KeyKind.ECDSA_P256
    user = CertSpec("kubelet", "kubelet", "system:node:cp2", key_kind=kind)
    pair = x509.self_signed_ca(user, x509.new_key(kind), datetime.now(UTC))
    admin = kubeconfig.KubeconfigSpec("admin.conf", f"https://{address}:6443", cluster, user)
    files = MANIFEST | {
        "/etc/kubernetes/admin.conf": kubeconfig.dump(
            kubeconfig.with_rotating_certificate(admin, b"")
        ).reveal(),
        kubeconfig.KUBELET_CLIENT_CURRENT: pair.cert,
    }
    hosts = [
        {"name": "cp1", "address": "192.0.2.1", "roles": ["load-balancer"]},
        {"name": "cp2", "address": "192.0.2.2", "roles": ["control-plane"]},
    ]
    spec = ClusterSpec.model_validate({"endpoint": {"type": "haproxy"}, "hosts": hosts})
    if refused:
        with pytest.raises(KubewrightError, match=refused):
            await opened(monkeypatch, files, spec=spec)
    else:
        assert await opened(monkeypatch, files, spec=spec) == (["cp2"], {"cp1": AWAY})


async def test_a_cluster_is_begun_with_all_of_its_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HostError, match="no route"):
        await opened(monkeypatch, {})


async def test_a_host_that_refuses_us_is_not_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = HostError("cp1: permission denied", host="cp1", exit_code=ExitCode.HOST_AUTH_REFUSED)
    with pytest.raises(HostError, match="permission denied"):
        await opened(monkeypatch, MANIFEST, refused)


async def test_all_that_is_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = HostError("cp3: permission denied", host="cp3", exit_code=ExitCode.HOST_AUTH_REFUSED)
    with pytest.raises(ExceptionGroup) as caught:
        await opened(monkeypatch, MANIFEST, AWAY, refused)
    assert sorted(str(error)[:3] for error in caught.value.exceptions) == ["cp1", "cp3"]


# -- certificates elsewhere ---------------------------------------------------------------------------------------


CERTS = ClusterSpec.model_validate(
    {
        "clusterConfiguration": {"certificatesDir": "/etc/kubernetes/certs"},
        "hosts": [
            {"name": "cp1", "address": "192.0.2.1", "roles": ["control-plane"]},
            {"name": "w2", "address": "192.0.2.2", "roles": ["worker"]},
        ],
    }
)
OWN, USUAL = "/etc/kubernetes/certs/ca.crt", "/etc/kubernetes/pki/ca.crt"


@pytest.mark.parametrize(
    ("control_plane", "worker", "foreign"),
    [
        ({OWN: b"ours"}, {OWN: b"ours"}, ""),
        ({OWN: b"ours"}, {USUAL: b"ours"}, ""),  # kubeadm's join puts it there
        ({OWN: b"ours", USUAL: b"an old one"}, {}, ""),
        ({OWN: b"ours"}, {OWN: b"ours", USUAL: b"an old one"}, ""),
        ({OWN: b"ours"}, {OWN: b"theirs"}, OWN),
        ({OWN: b"ours"}, {USUAL: b"theirs"}, USUAL),
    ],
)
async def test_the_ca_is_read_where_the_cluster_has_it(
    monkeypatch: pytest.MonkeyPatch, control_plane: dict[str, bytes], worker: dict[str, bytes], foreign: str
) -> None:
    files = {"cp1": control_plane, "w2": worker}
    monkeypatch.setattr(fleet, "open_host", lambda item, _: Stub(item.name, files[item.name], None))
    if not foreign:
        async with fleet.open_fleet(CERTS, None, Events()) as nodes:
            assert len(nodes) == 2
        return
    with pytest.raises(HostError) as caught:
        async with fleet.open_fleet(CERTS, None, Events()):
            pass
    assert f"{foreign} is another cluster's" in str([caught.value.message, *caught.value.evidence])
