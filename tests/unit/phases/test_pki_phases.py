"""Certificates and kubeconfigs on a host: made once, kept while they serve, finished after a kill anywhere."""

from __future__ import annotations

import pytest
from tests.unit.phases.memory_host import KilledError, MemoryHost

from kubewright.errors import HostError
from kubewright.events import Events
from kubewright.hosts import FileWrite, HostFacts
from kubewright.model import kubeconfig, pki, x509
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.kubeadm import default_cluster_configuration
from kubewright.model.node import ControlPlaneNode
from kubewright.phases.kubeconfigs import Kubeconfigs
from kubewright.phases.node import Node
from kubewright.phases.phase import Change
from kubewright.phases.pki import Authorities, Certificates
from kubewright.secret import Secret

SPEC = ClusterSpec.model_validate(
    {
        "name": "c",
        # ECDSA keys are made a hundred times faster than RSA's, and nothing here depends on the kind.
        "clusterConfiguration": {"featureGates": {"PublicKeysECDSA": True}},
        "hosts": [{"name": "cp1", "address": "192.0.2.1", "roles": ["control-plane"]}],
    }
)
CLUSTER = default_cluster_configuration(SPEC)
FACTS = HostFacts(
    "cp1", "debian", "12", "", "amd64", "", 2, 4 << 30, 0, True, "systemd", 2, 0, "192.0.2.1", (), ()
)


async def run(host: MemoryHost, address: str = "192.0.2.1") -> tuple[list[Change], Authorities, Kubeconfigs]:
    node = Node(SPEC.hosts[0], host, FACTS, address)
    api = ControlPlaneNode("cp1", address)
    certs = Authorities(node, CLUSTER.certificates_dir, pki.cluster_cas(CLUSTER), etcd_data="/var/lib/etcd")
    leaves = Certificates(
        node, CLUSTER.certificates_dir, pki.control_plane_certs(CLUSTER, api),
        authorities=certs, service_account=pki.key_kind(CLUSTER), etcd_data="/var/lib/etcd",
    )  # fmt: skip
    configs = Kubeconfigs(node, kubeconfig.control_plane_kubeconfigs(CLUSTER, api), certs)
    changes = [change for phase in (certs, leaves, configs) for change in await phase.run(Events())]
    return changes, certs, configs


async def test_the_second_run_finds_nothing_to_do() -> None:
    host = MemoryHost()
    changes, certs, configs = await run(host)
    assert len(changes) == 15
    before = dict(host.files)
    again, certs_again, configs_again = await run(host)
    assert again == []
    assert host.files == before
    assert certs_again.ca == certs.ca
    assert configs_again.admin == configs.admin


async def test_keys_are_private_and_written_before_their_certificates() -> None:
    host = MemoryHost()
    await run(host)
    order = list(host.files)
    for path, file in host.files.items():
        if path.endswith(".crt"):
            assert order.index(path.removesuffix(".crt") + ".key") < order.index(path)
        if path.endswith((".key", ".conf", ".pem")):
            assert file.mode == 0o600, path
            assert isinstance(file.content, Secret), path


async def test_the_kubelet_gets_its_rotating_certificate_from_the_start() -> None:
    host = MemoryHost()
    _, certs, _ = await run(host)
    document = kubeconfig.load(host.files["/etc/kubernetes/kubelet.conf"].data, "kubelet.conf")
    _, user = kubeconfig.current(document)
    assert user == {
        "client-certificate": kubeconfig.KUBELET_CLIENT_CURRENT,
        "client-key": kubeconfig.KUBELET_CLIENT_CURRENT,
    }
    pem = await host.read_file(kubeconfig.KUBELET_CLIENT_CURRENT)
    assert pem is not None
    assert x509.signed_by(pem, certs.ca.cert)
    assert x509.key_belongs(pem, Secret(pem))


@pytest.mark.parametrize("moment", range(0, 30, 3))
async def test_a_run_that_was_killed_anywhere_is_finished_by_the_next(moment: int) -> None:
    host = MemoryHost()
    host.dies_after = moment
    with pytest.raises(KilledError):
        await run(host)
    host.dies_after = None
    _, certs, _ = await run(host)
    assert (await run(host))[0] == []
    ca = host.files["/etc/kubernetes/pki/ca.crt"].data
    assert x509.signed_by(host.files["/etc/kubernetes/pki/apiserver.crt"].data, ca)
    assert certs.ca.cert == ca


async def test_a_certificate_without_a_name_in_use_is_made_anew_and_its_ca_kept() -> None:
    host = MemoryHost()
    _, certs, _ = await run(host)
    path = "/etc/kubernetes/pki/apiserver.crt"
    changes, again, _ = await run(host, "192.0.2.9")
    assert path in [change.target for change in changes]
    assert any("lacks the name 192.0.2.9" in line for change in changes for line in change.diff)
    assert again.ca == certs.ca
    assert "/etc/kubernetes/pki/front-proxy-client.crt" not in [change.target for change in changes]


@pytest.mark.parametrize(("lost", "named"), [("ca", "ca.crt"), ("sa", "sa.key")])
async def test_what_a_living_cluster_needs_is_not_made_anew(lost: str, named: str) -> None:
    host = MemoryHost()
    await run(host)
    for path in [path for path in host.files if path.startswith(f"/etc/kubernetes/pki/{lost}.")]:
        del host.files[path]
    host.files["/var/lib/etcd/member"] = FileWrite("/var/lib/etcd/member", b"")
    before = dict(host.files)
    with pytest.raises(HostError, match=f"{named} is missing"):
        await run(host)
    assert host.files == before


async def test_a_plan_does_not_ask_the_api_with_an_admin_conf_that_no_longer_serves() -> None:
    host = MemoryHost()
    _, certs, configs = await run(host)
    specs = kubeconfig.control_plane_kubeconfigs(CLUSTER, ControlPlaneNode("cp1", "192.0.2.1"))
    again = Kubeconfigs(Node(SPEC.hosts[0], host, FACTS, "192.0.2.1"), specs, certs)
    assert await again.look() == []
    assert again.admin == configs.admin
    host.files["/etc/kubernetes/admin.conf"] = FileWrite("/etc/kubernetes/admin.conf", b"damaged", 0o600)
    assert [change.target for change in await again.look()] == ["/etc/kubernetes/admin.conf"]
    assert again.admin == b""


@pytest.mark.parametrize(("version", "file"), [("v1.28.0", "admin.conf"), ("v1.29.0", "super-admin.conf")])
async def test_the_first_requests_need_no_rights_that_an_object_gives(version: str, file: str) -> None:
    host = MemoryHost()
    _, certs, _ = await run(host)
    cluster = CLUSTER.model_copy(update={"kubernetes_version": version})
    specs = kubeconfig.control_plane_kubeconfigs(cluster, ControlPlaneNode("cp1", "192.0.2.1"))
    configs = Kubeconfigs(Node(SPEC.hosts[0], host, FACTS, "192.0.2.1"), specs, certs)
    await configs.run(Events())
    written = host.files[f"/etc/kubernetes/{file}"].content
    assert isinstance(written, Secret)
    assert configs.first == written.reveal()


async def test_a_ca_without_its_key_serves_until_something_must_be_signed() -> None:
    host = MemoryHost()
    await run(host)
    del host.files["/etc/kubernetes/pki/ca.key"]
    assert (await run(host))[0] == []
    del host.files["/etc/kubernetes/pki/apiserver.crt"]
    with pytest.raises(HostError, match="key of its CA"):
        await run(host)
