"""What control planes share is brought from one to another, whole, and is made nowhere else."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from tests.unit.phases.memory_host import MemoryHost
from tests.unit.phases.test_pki_phases import CLUSTER, FACTS

from kubewright.errors import HostError
from kubewright.events import Events
from kubewright.model import pki
from kubewright.model.config.cluster import HostSpec, Role
from kubewright.phases.node import Node
from kubewright.phases.pki import Authorities
from kubewright.phases.shared_certs import SharedCerts, read_shared


def plane(name: str) -> Node:
    return Node(
        HostSpec(name=name, address="192.0.2.1", roles=[Role.CONTROL_PLANE]), MemoryHost(), FACTS, "192.0.2.1"
    )


def authorities(node: Node) -> Authorities:
    return Authorities(
        node, CLUSTER.certificates_dir, pki.cluster_cas(CLUSTER), service_account=pki.key_kind(CLUSTER)
    )


async def test_another_control_plane_gets_all_and_makes_none() -> None:
    one, two = plane("cp1"), plane("cp2")
    assert await authorities(one).run(Events())
    files = await read_shared(one, CLUSTER)
    names = ("ca", "front-proxy-ca", "etcd/ca")
    assert {path.removeprefix(f"{CLUSTER.certificates_dir}/") for path in files} == {
        *(f"{name}.{kind}" for name in names for kind in ("crt", "key")), "sa.key", "sa.pub",
    }  # fmt: skip

    changes = await SharedCerts(two, CLUSTER, files).run(Events())
    assert len(changes) == len(files)
    written = list(two.host.files.items())  # type: ignore[attr-defined]
    assert all(file.mode == (0o644 if path.endswith(".crt") else 0o600) for path, file in written)
    keys = [path.endswith(".key") for path, _ in written]
    assert keys == sorted(keys, reverse=True), "keys come before what belongs to them"
    assert not any(change.diff for change in changes if change.target.endswith(".key"))
    assert await authorities(two).run(Events()) == []
    assert await SharedCerts(two, CLUSTER, files).run(Events()) == []


async def test_a_running_control_plane_keeps_its_own() -> None:
    """A first control plane that has lost its files, and would make new ones, must not spread them."""
    one, two = plane("cp1"), plane("cp2")
    await authorities(one).run(Events())
    await authorities(two).run(Events())
    before = dict(two.host.files)  # type: ignore[attr-defined]
    await two.host.write_file("/etc/kubernetes/manifests/kube-apiserver.yaml", b"kind: Pod")
    shared = SharedCerts(two, CLUSTER, await read_shared(one, CLUSTER))
    with pytest.raises(HostError, match=r"cp2: /etc/kubernetes/pki/.* is another one than that of the other"):
        await shared.run(Events())
    assert before.items() <= two.host.files.items()  # type: ignore[attr-defined]
    # What an interrupted foundation has left, with no API server by it, gives way.
    del two.host.files["/etc/kubernetes/manifests/kube-apiserver.yaml"]  # type: ignore[attr-defined]
    assert await shared.run(Events())


async def test_what_kubeadm_has_written_otherwise_is_the_same() -> None:
    """Another mode, other line ends, another encoding of a key: a running control plane keeps its own bytes."""
    one, two = plane("cp1"), plane("cp2")
    await authorities(one).run(Events())
    files = await read_shared(one, CLUSTER)
    await SharedCerts(two, CLUSTER, files).run(Events())
    ca, key = (f"{CLUSTER.certificates_dir}/ca.{end}" for end in ("crt", "key"))
    private = serialization.load_pem_private_key(files[key].reveal(), None)
    encoded = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert encoded != files[key].reveal()
    theirs = files[ca].reveal() + b"\n"
    await two.host.write_file(ca, theirs, mode=0o600)
    await two.host.write_file(key, encoded, mode=0o600)
    await two.host.write_file("/etc/kubernetes/manifests/kube-apiserver.yaml", b"kind: Pod")
    [change] = await SharedCerts(two, CLUSTER, files).run(Events())
    assert change.target == ca, "its mode"
    assert await two.host.read_file(ca) == theirs
    assert await two.host.read_file(key) == encoded
    assert await SharedCerts(two, CLUSTER, files).run(Events()) == []
