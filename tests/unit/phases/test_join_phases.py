"""What a joining control plane takes from the cluster and gives to it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from tests.unit.phases.memory_host import MemoryHost

from kubewright.clients.server import Server
from kubewright.errors import ApiError, HostError
from kubewright.events import Events
from kubewright.hosts import FileWrite, HostFacts
from kubewright.model import copy_certs, pki, x509
from kubewright.model.config.cluster import HostSpec, Role
from kubewright.model.config.kubeadm import cluster_status
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.model.node import ControlPlaneNode
from kubewright.model.objects import Object, config_map, to_yaml
from kubewright.model.pki import CertSpec, KeyKind
from kubewright.phases.cluster_status import ClusterStatus
from kubewright.phases.copy_certs import DownloadCerts, require_shared
from kubewright.phases.kubelet_join import refuse_taken_name
from kubewright.phases.node import Node
from kubewright.secret import Secret

CLUSTER = ClusterConfiguration()
KEY = Secret(bytes(range(32)))
NOW = datetime.now(UTC)


class Api:
    """One object at a time, with versions as the API server has them."""

    def __init__(self, obj: Object | None) -> None:
        self.obj = obj
        self.lost_races = 0
        self.forbidden = False
        self.server = Server("https://192.0.2.1:6443")

    async def get(self, *_: object) -> Object | None:
        if self.forbidden:
            raise ApiError("no", status=403)
        return self.obj

    async def merge(self, _version: str, _kind: str, _name: str, change: Object, _namespace: str) -> None:
        assert self.obj is not None
        if self.lost_races:
            self.lost_races -= 1
            raise ApiError("changed", status=409)
        assert change["metadata"]["resourceVersion"] == self.obj["metadata"]["resourceVersion"]
        self.obj["data"] |= change["data"]


def node(host: MemoryHost) -> Node:
    spec = HostSpec(name="cp2", address="192.0.2.2", roles=[Role.CONTROL_PLANE])
    facts = HostFacts(
        "cp2", "debian", "12", "", "amd64", "", 2, 4 << 30, 0, True, "systemd", 2, 0, "192.0.2.2", (), ()
    )
    return Node(spec, host, facts, "192.0.2.2")


def authority(spec: CertSpec) -> x509.KeyPair:
    return x509.self_signed_ca(spec, x509.new_key(KeyKind.ECDSA_P256), NOW)


@pytest.fixture(scope="module")
def shared() -> dict[str, bytes]:
    """The files of a control plane that others can be made after."""
    files: dict[str, bytes] = {}
    for spec in pki.cluster_cas(CLUSTER):
        pair = authority(spec)
        files |= {spec.cert_path(): pair.cert, spec.key_path(): pair.key.reveal()}
    key = x509.new_key(KeyKind.ECDSA_P256)
    return files | {f"{pki.PKI_DIR}/sa.key": key.reveal(), f"{pki.PKI_DIR}/sa.pub": x509.public_key(key)}


def uploaded(files: dict[str, bytes]) -> Object:
    owner = {"metadata": {"name": "bootstrap-token-abcdef", "uid": "1"}}
    return copy_certs.certs_secret(copy_certs.shared_files(CLUSTER), files, KEY, owner)


def download(host: MemoryHost, api: Api) -> DownloadCerts:
    return DownloadCerts(node(host), api, CLUSTER, KEY)  # type: ignore[arg-type]


async def test_what_is_downloaded_is_private_and_whole(shared: dict[str, bytes]) -> None:
    host, api = MemoryHost(), Api(uploaded(shared))
    assert len(await download(host, api).run(Events())) == 8
    assert {path: file.data for path, file in host.files.items()} == shared
    assert {path for path, file in host.files.items() if file.mode != 0o600} == {
        path for path in shared if path.endswith(".crt")
    }
    assert [path for path in host.files if path.endswith(".key")] == list(host.files)[:4]
    assert await download(host, api).run(Events()) == []
    await require_shared(host, CLUSTER)


async def test_a_secret_that_may_not_be_read_was_never_uploaded() -> None:
    api = Api(None)
    api.forbidden = True
    with pytest.raises(copy_certs.CertsExpiredError):
        await download(MemoryHost(), api).look()


@pytest.mark.parametrize(
    ("lost", "enough"),
    [
        ((), True),
        (("ca.key",), True),  # it is elsewhere, and was not uploaded either
        (("sa.key",), False),
        (("etcd/ca.crt",), False),
    ],
)
async def test_a_join_that_goes_on_after_the_secrets_end_has_the_files(
    shared: dict[str, bytes], lost: tuple[str, ...], enough: bool
) -> None:
    host, api = MemoryHost(), Api(None)
    api.server = Server("https://192.0.2.1:6443", ca=shared[f"{pki.PKI_DIR}/ca.crt"] + b"\n")
    gone = {f"{pki.PKI_DIR}/{name}" for name in lost}
    await host.write_files([FileWrite(path, data) for path, data in shared.items() if path not in gone])
    if enough:
        assert await download(host, api).run(Events()) == []
        return
    with pytest.raises(copy_certs.CertsExpiredError):
        await download(host, api).look()


async def test_files_that_do_not_belong_to_the_cluster_or_each_other_are_not_enough(
    shared: dict[str, bytes],
) -> None:
    host, api = MemoryHost(), Api(None)
    await host.write_files([FileWrite(path, data) for path, data in shared.items()])
    for ca in (None, authority(pki.CA).cert):
        api.server = Server("https://192.0.2.1:6443", ca=ca)
        with pytest.raises(copy_certs.CertsExpiredError):
            await download(host, api).look()
    api.server = Server("https://192.0.2.1:6443", ca=shared[f"{pki.PKI_DIR}/ca.crt"])
    assert await download(host, api).look() == []
    await host.write_file(f"{pki.PKI_DIR}/etcd/ca.key", authority(pki.ETCD_CA).key.reveal())
    with pytest.raises(copy_certs.CertsExpiredError):
        await download(host, api).look()


async def test_a_file_that_the_secret_still_gives_is_written_again(shared: dict[str, bytes]) -> None:
    """What is there is enough only where there is nothing newer."""
    host, api = MemoryHost(), Api(uploaded(shared))
    await download(host, api).run(Events())
    key = x509.new_key(KeyKind.ECDSA_P256)
    api.obj = uploaded(
        shared | {f"{pki.PKI_DIR}/sa.key": key.reveal(), f"{pki.PKI_DIR}/sa.pub": x509.public_key(key)}
    )
    assert len(await download(host, api).run(Events())) == 2


async def test_an_authority_whose_key_is_elsewhere_is_enough(shared: dict[str, bytes]) -> None:
    host = MemoryHost()
    await host.write_files(
        [FileWrite(path, data) for path, data in shared.items() if not path.endswith("/ca.key")]
    )
    await require_shared(host, CLUSTER)


async def test_files_that_are_missing_or_of_two_clusters_are_named(shared: dict[str, bytes]) -> None:
    host = MemoryHost()
    await host.write_files([FileWrite(path, data) for path, data in shared.items()])
    key = f"{pki.PKI_DIR}/front-proxy-ca.key"
    await host.write_file(key, authority(pki.FRONT_PROXY_CA).key.reveal())
    with pytest.raises(HostError, match=r"front-proxy-ca\.key is not the key of"):
        await require_shared(host, CLUSTER)
    del host.files[f"{pki.PKI_DIR}/sa.pub"]
    with pytest.raises(HostError, match=r"not there: /etc/kubernetes/pki/sa\.pub"):
        await require_shared(host, CLUSTER)


def kubeadm_config(**data: str) -> Object:
    found = config_map("kubeadm-config", "kube-system", data)
    found["metadata"]["resourceVersion"] = "7"
    return found


async def test_the_list_of_control_planes_grows_and_others_stay() -> None:
    first = {"cp1": ("192.0.2.1", 6443)}
    api = Api(kubeadm_config(ClusterConfiguration="x", ClusterStatus=to_yaml(cluster_status(first)).decode()))
    api.lost_races = 2
    phase = ClusterStatus(api, ControlPlaneNode("cp2", "192.0.2.2", 7443))  # type: ignore[arg-type]
    assert len(await phase.run(Events())) == 1
    assert api.obj is not None
    status: Any = yaml.safe_load(api.obj["data"]["ClusterStatus"])
    assert status == cluster_status(first | {"cp2": ("192.0.2.2", 7443)})
    assert api.obj["data"]["ClusterConfiguration"] == "x"
    assert await phase.run(Events()) == []


async def test_a_name_that_a_ready_node_has_is_refused() -> None:
    def live(status: str) -> Api:
        return Api({"status": {"conditions": [{"type": "Ready", "status": status}]}})

    here = node(MemoryHost())
    with pytest.raises(HostError, match="another host is in the cluster as Node cp2"):
        await refuse_taken_name(live("True"), here)  # type: ignore[arg-type]
    await refuse_taken_name(live("Unknown"), here)  # type: ignore[arg-type]
    await refuse_taken_name(Api(None), here)  # type: ignore[arg-type]
