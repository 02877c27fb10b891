"""An etcd as clusters had it in the days of kubeadm 1.4: on plain http, at the loopback address alone."""

from __future__ import annotations

from typing import Any

import yaml
from cluster_fixtures import on, until_on, write
from kubeadm_machines import ETCDCTL, KUBECTL

from kubewright.lab.lab import Lab

ETCD, API_SERVER = (f"/etc/kubernetes/manifests/{name}.yaml" for name in ("etcd", "kube-apiserver"))
_UPDATE = f"""{ETCDCTL}
member=$(etcdctl member list | cut -d, -f1)
etcdctl member update "$member" --peer-urls=http://127.0.0.1:2380
"""
PLAIN = {
    "listen-client-urls": "http://127.0.0.1:2379", "advertise-client-urls": "http://127.0.0.1:2379",
    "listen-peer-urls": "http://127.0.0.1:2380", "initial-advertise-peer-urls": "http://127.0.0.1:2380",
}  # fmt: skip
TLS = (
    "cert-file", "key-file", "trusted-ca-file", "client-cert-auth",
    "peer-cert-file", "peer-key-file", "peer-trusted-ca-file", "peer-client-cert-auth",
)  # fmt: skip


def without_tls(lab: Lab) -> None:
    """Let etcd and its API server meet on plain http, at the loopback address."""
    on(lab, "cp1", _UPDATE)
    etcd = yaml.safe_load(on(lab, "cp1", f"cat {ETCD}"))
    server = yaml.safe_load(on(lab, "cp1", f"cat {API_SERVER}"))
    _set(etcd, PLAIN | {"initial-cluster": "cp1=http://127.0.0.1:2380"}, TLS)
    _set(server, {"etcd-servers": "http://127.0.0.1:2379"}, ("etcd-cafile", "etcd-certfile", "etcd-keyfile"))
    for path, pod in ((ETCD, etcd), (API_SERVER, server)):
        write(lab, "cp1", path, yaml.safe_dump(pod).encode())
    until_on(lab, "cp1", "curl -sf http://127.0.0.1:2379/health", seconds=120, every=0.5)
    until_on(lab, "cp1", f"{KUBECTL} get --raw /readyz", seconds=120, every=0.5)


def _set(pod: dict[str, Any], flags: dict[str, str], gone: tuple[str, ...]) -> None:
    """Give a static Pod's program other flags."""
    [container] = pod["spec"]["containers"]
    known = dict(word.removeprefix("--").partition("=")[::2] for word in container["command"][1:])
    kept = {name: value for name, value in known.items() if name not in gone} | flags
    container["command"] = [container["command"][0], *(f"--{name}={value}" for name, value in kept.items())]


def plain_urls(lab: Lab) -> list[str]:
    """Those that the manifests of etcd and its API server still have."""
    manifests = on(lab, "cp1", f"cat {ETCD} {API_SERVER}")
    return [url for url in PLAIN.values() if url in manifests]
