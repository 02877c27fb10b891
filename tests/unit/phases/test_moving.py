"""What a cluster says of itself when its API moves to another address."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kubewright.errors import ConfigError
from kubewright.events import Events
from kubewright.model import moving
from kubewright.model.kubeconfig import first_server
from kubewright.phases.moving import EndpointTold, ProxyMoved

OLD, NEW = "https://192.0.2.1:6443", "https://api.example.com:6443"


def kubeconfig(server: str) -> str:
    return yaml.safe_dump({"kind": "Config", "clusters": [{"name": "", "cluster": {"server": server}}]})


class Api:
    """Keeps objects by kind and name, and merges as RFC 7386 says."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {
            ("ConfigMap", "kubeadm-config"): {
                "data": {
                    "ClusterConfiguration": yaml.safe_dump(
                        {"kind": "ClusterConfiguration", "apiServer": {"certSANs": ["mine.example.com"]}}
                    ),
                    "ClusterStatus": "apiEndpoints: {}\n",
                }
            },
            ("ConfigMap", "cluster-info"): {
                "data": {"kubeconfig": kubeconfig(OLD), "jws-kubeconfig-abcdef": "x"}
            },
            ("ConfigMap", "kube-proxy"): {"data": {"kubeconfig.conf": kubeconfig(OLD), "config.conf": "{}"}},
            ("DaemonSet", "kube-proxy"): {
                "spec": {"template": {"metadata": {"labels": {"k8s-app": "kube-proxy"}}}}
            },
        }
        self.dies_after = -1

    async def get(self, _version: str, kind: str, name: str, _namespace: str) -> dict[str, Any] | None:
        return self.objects.get((kind, name))

    async def merge(self, _version: str, kind: str, name: str, change: Any, _namespace: str) -> None:
        if self.dies_after == 0:
            raise InterruptedError
        self.dies_after -= 1
        self.objects[kind, name] = merged(self.objects[kind, name], change)

    def data(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.objects["ConfigMap", name]["data"]
        return found


def merged(target: Any, change: Any) -> Any:
    if not isinstance(change, dict):
        return change
    found = dict(target) if isinstance(target, dict) else {}
    for name, value in change.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name), value)
    return found


def told(api: Api) -> EndpointTold:
    return EndpointTold(api, "api.example.com:6443", ["lb1", "mine.example.com"])  # type: ignore[arg-type]


def moved(api: Api) -> ProxyMoved:
    return ProxyMoved(api, NEW)  # type: ignore[arg-type]


async def test_who_joins_is_told_the_endpoint() -> None:
    api = Api()
    assert len(await told(api).run(Events())) == 2
    cluster = yaml.safe_load(api.data("kubeadm-config")["ClusterConfiguration"])
    assert cluster == {
        "kind": "ClusterConfiguration",
        "controlPlaneEndpoint": "api.example.com:6443",
        "apiServer": {"certSANs": ["mine.example.com", "lb1"]},
    }
    assert api.data("kubeadm-config")["ClusterStatus"] == "apiEndpoints: {}\n"
    assert list(api.data("cluster-info")) == ["kubeconfig"], "a signature of what it said before is none"
    assert first_server(yaml.safe_load(api.data("cluster-info")["kubeconfig"])) == NEW
    assert await told(api).run(Events()) == []


@pytest.mark.parametrize("writes", [0, 1, 2])
async def test_kube_proxys_pods_are_replaced_also_after_a_killed_run(writes: int) -> None:
    api = Api()
    api.dies_after = writes
    try:
        await moved(api).run(Events())
    except InterruptedError:
        api.dies_after = -1
        await moved(api).run(Events())
    assert first_server(yaml.safe_load(api.data("kube-proxy")["kubeconfig.conf"])) == NEW
    assert api.data("kube-proxy")["config.conf"] == "{}"
    template = api.objects["DaemonSet", "kube-proxy"]["spec"]["template"]["metadata"]
    assert template["labels"] == {"k8s-app": "kube-proxy"}
    assert template["annotations"] == {moving.CONFIG_ANNOTATION: moving.digest(api.data("kube-proxy"))}
    assert await moved(api).run(Events()) == []


async def test_a_cluster_without_kube_proxy_is_left_alone() -> None:
    api = Api()
    del api.objects["DaemonSet", "kube-proxy"]
    assert await moved(api).run(Events()) == []


@pytest.mark.parametrize("data", [{}, {"kubeconfig": "- 1"}, {"kubeconfig": "a: ["}])
async def test_what_cannot_be_read_is_named(data: dict[str, str]) -> None:
    api = Api()
    api.objects["ConfigMap", "cluster-info"] = {"data": data}
    with pytest.raises(ConfigError, match="cluster-info"):
        await told(api).run(Events())
