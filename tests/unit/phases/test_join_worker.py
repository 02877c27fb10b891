"""Whether a worker has joined: by its kubelet's kubeconfig, and a certificate that has not ended."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.unit.phases.memory_host import KilledError, MemoryHost
from tests.unit.phases.test_join_phases import node

from kubewright.clients.kube import KubeClient
from kubewright.events import Events
from kubewright.hosts import Completed
from kubewright.model import kubeconfig, pki, x509
from kubewright.model.versions import facts_for
from kubewright.phases import join
from kubewright.phases.join import Join
from kubewright.phases.phase import Action
from kubewright.secret import Secret


class Kubelet(MemoryHost):
    """A host of which the look sees this."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    async def shell(self, *_: Any, **__: Any) -> Completed:
        return Completed(("sh",), 0, self.text.encode())


def certificate(ends: timedelta) -> str:
    """A kubelet's, which ends so long after now."""
    begun = datetime.now(UTC) - timedelta(days=400)
    spec = pki.CertSpec("ca", "ca", "kubernetes", validity=pki.CA_VALIDITY, key_kind=pki.KeyKind.ECDSA_P256)
    ca = x509.self_signed_ca(spec, x509.new_key(spec.key_kind), begun)
    leaf = kubeconfig.node_client_cert("w1")
    now = datetime.now(UTC) + ends - leaf.validity
    return x509.sign(leaf, x509.new_key(leaf.key_kind), ca, now).cert.decode()


@pytest.mark.parametrize(
    ("text", "action", "why"),
    [
        ("", Action.RUN, ""),
        ("leftover\n", Action.RUN, ""),
        ("joined\n", None, ""),
        ("joined\nleftover\n", Action.DELETE, ""),
        ("joined\n" + certificate(timedelta(days=1)), None, ""),
        ("joined\nleftover\n" + certificate(timedelta(days=1)), Action.DELETE, ""),
        ("joined\n" + certificate(timedelta(days=-1)), Action.RUN, "the kubelet's certificate ended on"),
        ("joined\n-----BEGIN CERTIFICATE-----\ndamaged\n", None, ""),
    ],
)
async def test_whether_it_has_joined(text: str, action: Action | None, why: str) -> None:
    async def token() -> Any:
        raise AssertionError("nothing is asked for by looking")

    join = Join(
        node(Kubelet(text)), endpoint="", token=token, ca_hashes=(), facts=facts_for("v1.20.2"),
        kubelet_files=lambda _: (), admin=cast(KubeClient, None), issuer=None,
    )  # fmt: skip
    changes = await join.look()
    assert [change.action for change in changes] == ([action] if action else [])
    assert not why or why in changes[0].diff[0]


async def test_the_ca_is_put_where_the_kubelet_will_look_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def found(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(ca=b"ours")

    async def nothing(*_: Any, **__: Any) -> None:
        return

    async def killed(*_: Any) -> None:
        raise KilledError

    async def token() -> Secret[str]:
        return Secret("abcdef.0123456789abcdef")

    async def config(*_: Any) -> dict[str, Any]:
        return {"data": {"kubelet": "kind: KubeletConfiguration"}}

    @asynccontextmanager
    async def api(*_: Any) -> Any:
        yield SimpleNamespace(get=config)

    monkeypatch.setattr("kubewright.phases.discovery.by_token", found)
    monkeypatch.setattr(join, "api_over", api)
    monkeypatch.setattr(join, "refuse_taken_name", nothing)
    monkeypatch.setattr(join, "client_certificate", nothing)
    host = Kubelet("")
    phase = Join(
        node(host), endpoint="https://192.0.2.1:6443", token=token, ca_hashes=(), facts=facts_for("v1.20.2"),
        kubelet_files=lambda _: (), admin=cast(KubeClient, None), issuer=None,
        ca_path="/etc/kubernetes/certs/ca.crt",
    )  # fmt: skip
    monkeypatch.setattr(join, "write_client_certificate", killed)
    with pytest.raises(KilledError):
        await phase.run(Events())
    assert {path: file.data for path, file in host.files.items()} == {"/etc/kubernetes/certs/ca.crt": b"ours"}
