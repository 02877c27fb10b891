"""What `adopt` asks of a cluster and of the host that it goes through, and what it says of what it found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.model.test_adopt import PODS, assert_same, seen
from tests.unit.model.test_golden import VERSIONS
from tests.unit.phases.memory_host import MemoryHost
from tests.unit.phases.test_endpoint_services import FACTS

from kubewright.errors import ApiError, ConfigError, ExitCode
from kubewright.events import Event, Events, Kind
from kubewright.hosts import FileWrite
from kubewright.model import stored
from kubewright.model.adopt import Seen
from kubewright.model.config.cluster import HostSpec
from kubewright.model.config.kubeadm import to_stored
from kubewright.model.kubelet import FLAGS_PATH
from kubewright.model.objects import Object, to_yaml
from kubewright.model.versions import facts_for
from kubewright.phases.node import Node
from kubewright.workflows.adopt import adopt


class Kube:
    """The API of a cluster; nothing can be changed through it."""

    def __init__(self, found: Seen) -> None:
        facts = facts_for(found.cluster.kubernetes_version)
        self.version = found.version
        self.lists = {"Node": list(found.nodes), "Pod": list(found.api_servers)}
        self.objects: dict[tuple[str, str], Object | None] = {
            ("Deployment", "coredns"): found.dns,
            ("ConfigMap", "coredns"): {"data": {"Corefile": found.corefile}},
            ("DaemonSet", "kube-proxy"): {"kind": "DaemonSet"},
            ("ConfigMap", "kubeadm-config"): stored.kubeadm_config(to_stored(found.cluster), None)[0],
            ("ConfigMap", facts.kubelet_config_map): {"data": {"kubelet": to_yaml(found.kubelet).decode()}},
            ("ConfigMap", "kube-proxy"): {"data": {"config.conf": to_yaml(found.kube_proxy).decode()}},
        }
        self.error: ApiError | None = None

    async def get(self, _version: str, kind: str, name: str, namespace: str = "") -> Object | None:
        if self.error is not None:
            raise self.error
        assert namespace == "kube-system"
        return self.objects.get((kind, name))

    async def list(self, _version: str, kind: str, _namespace: str = "", **_: str) -> list[Object]:
        return self.lists[kind]

    async def json(self, method: str, path: str) -> Any:
        assert (method, path) == ("GET", "/version")
        return {"gitVersion": self.version}


def plane(flags: str = "", addresses: tuple[str, ...] = ("10.0.0.11",), **spec: Any) -> Node:
    """cp1, whose default route has the first of its addresses."""
    host = MemoryHost()
    host.files[FLAGS_PATH] = FileWrite(FLAGS_PATH, f'KUBELET_KUBEADM_ARGS="{flags}"\n'.encode())
    facts = replace(FACTS, addresses=addresses, default_address=addresses[0])
    item = HostSpec.model_validate({"name": "cp1", "address": "cp1.example.com", **spec})
    return Node(item, host, facts, addresses[0])


async def run(kube: Kube, through: Node | None = None) -> tuple[Any, list[Event]]:
    heard: list[Event] = []
    _, spec = await adopt(through or plane(), kube, Events(heard.append))  # type: ignore[arg-type]
    return spec, heard


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_cluster_is_read_and_described(version: str) -> None:
    found = seen(version)
    spec, heard = await run(Kube(found))
    assert_same(found, spec)
    assert [host.name for host in spec.hosts] == ["cp1", "w1"]
    assert spec.network.plugin == "none"
    assert heard[-1].message == "cluster kubernetes has 2 Nodes"
    assert [event.kind for event in heard if event.kind is Kind.WARNING] == []


async def test_warnings_and_notes_are_told() -> None:
    kube = Kube(seen(version="v1.20.2"))
    kube.version = "v1.21.0"
    kube.objects["DaemonSet", "kube-proxy"] = None
    _, heard = await run(kube)
    kinds = [event.kind for event in heard]
    assert (kinds.count(Kind.WARNING), kinds.count(Kind.NOTE)) == (2, 2)


async def test_our_own_network_is_known_by_its_name() -> None:
    kube = Kube(seen())
    kube.objects["DaemonSet", "kubewright-network"] = {"kind": "DaemonSet"}
    assert (await run(kube))[0].network.plugin == "builtin"


@pytest.mark.parametrize(
    ("flags", "addresses", "node_ip"),
    [
        ("", ("10.0.0.11",), None),
        ("--node-ip=10.0.0.11", ("10.0.0.11",), "10.0.0.11"),
        ("", ("192.168.1.1", "10.0.0.11"), "10.0.0.11"),
        ("--node-ip=192.168.1.1", ("192.168.1.1", "10.0.0.11"), "192.168.1.1"),
        ("--node-ip=::", ("10.0.0.11",), None),
        ("--node-ip=0.0.0.0", ("10.0.0.11",), None),
        ("", ("172.16.0.1",), None),
    ],
)
async def test_the_address_of_the_host_that_was_asked(
    flags: str, addresses: tuple[str, ...], node_ip: str | None
) -> None:
    """Its Node uses 10.0.0.11; Kubewright would take the one of the default route, the first."""
    spec, _ = await run(Kube(seen()), plane(flags, addresses))
    assert spec.hosts[0].node_ip == node_ip


async def test_ssh_is_as_it_was_with_paths_that_work_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ssh = {"user": "me", "port": 2222, "keyFiles": ["keys/id"], "knownHosts": "known", "jump": "j@b:22"}
    spec, _ = await run(Kube(seen()), plane(ssh=ssh))
    assert spec.ssh.model_dump(by_alias=True) == ssh | {
        "keyFiles": [f"{tmp_path}/keys/id"], "knownHosts": f"{tmp_path}/known",
    }  # fmt: skip


# -- what cannot be adopted --------------------------------------------------------------------------------------


async def test_a_cluster_of_another_tool() -> None:
    kube = Kube(seen())
    kube.objects["ConfigMap", "kubeadm-config"] = None
    with pytest.raises(ConfigError, match="not made by kubeadm") as caught:
        await run(kube)
    assert caught.value.exit_code is ExitCode.CONFIG_INVALID
    assert "cannot be adopted" in caught.value.hint


@pytest.mark.parametrize(("version", "podnet"), [("v1.19.16", "10.244.0.0/16"), ("v1.20.2", "fd00::/48")])
async def test_a_version_or_network_that_is_not_supported(version: str, podnet: str) -> None:
    kube = Kube(seen(configuration=PODS))
    config = {
        "apiVersion": "kubeadm.k8s.io/v1beta2", "kind": "ClusterConfiguration", "kubernetesVersion": version,
        "networking": {"podSubnet": podnet},
    }  # fmt: skip
    kube.objects["ConfigMap", "kubeadm-config"] = stored.kubeadm_config(config, None)[0]
    with pytest.raises(ConfigError, match="not supported") as caught:
        await run(kube)
    right = ExitCode.VERSION_UNAVAILABLE if version == "v1.19.16" else ExitCode.CONFIG_INVALID
    assert caught.value.exit_code is right


async def test_an_api_that_does_not_answer_is_one_error() -> None:
    kube = Kube(seen())
    kube.error = ApiError("GET https://10.0.0.11:6443/api/v1: connection refused", hint="does it run?")
    with pytest.raises(ApiError) as caught:
        await run(kube)
    assert caught.value is kube.error
