"""A healthy cluster as `doctor` sees it, of three control planes and a worker; each test breaks something."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import yaml

from kubewright.model import x509
from kubewright.model.doctor.diagnose import diagnose
from kubewright.model.doctor.facts import Container, DoctorFacts, NodeFacts, RuntimeFacts
from kubewright.model.doctor.finding import Finding
from kubewright.model.doctor.look import CNI_DIR, FORWARD, KUBELET_CONF, SWAPS, Disk, Look, Unit
from kubewright.model.kubeconfig import KUBELET_CLIENT_CURRENT, node_client_cert
from kubewright.model.kubelet import CONFIG_PATH, KUBELET_DIR
from kubewright.model.manifests import manifest_path
from kubewright.model.pki import CA, CertSpec, KeyKind, Usage
from kubewright.model.status import Seen
from kubewright.model.status_api import ApiAnswer
from kubewright.model.status_certs import SeenCert
from kubewright.model.status_etcd import ListedMember, MemberAnswer, MemberWords
from kubewright.model.status_hosts import ContainerStatus, HostStatus
from kubewright.model.status_report import Facts as StatusFacts
from kubewright.model.status_report import report

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
ENDPOINT = "10.0.0.9:6443"
PLANES = ("cp1", "cp2", "cp3")
NAMES = (*PLANES, "w1")
ADDRESSES = {name: f"10.0.0.{number}" for number, name in enumerate(NAMES, 1)}
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
READY = "[+]ping ok\nreadyz check passed"
HOUR = timedelta(hours=1)
LISTED = tuple(
    ListedMember(number, name, (f"https://{ADDRESSES[name]}:2380",), (f"https://{ADDRESSES[name]}:2379",))
    for number, name in enumerate(PLANES, 1)
)


@cache
def authority() -> x509.KeyPair:
    """The cluster's CA."""
    return x509.self_signed_ca(CA, x509.new_key(KeyKind.ECDSA_P256), NOW - timedelta(days=100))


@cache
def kubelet_pem(name: str, *, issued: datetime = NOW - timedelta(days=1), days: int = 365) -> bytes:
    """A kubelet's client certificate."""
    spec = replace(node_client_cert(name), validity=timedelta(days=days))
    ca = x509.self_signed_ca(CA, x509.new_key(KeyKind.ECDSA_P256), issued)
    return x509.sign(spec, x509.new_key(KeyKind.ECDSA_P256), ca, issued).cert


@cache
def api_pem(*names: str) -> bytes:
    """An API server's certificate for these addresses."""
    spec = CertSpec(
        "apiserver",
        "apiserver",
        "kube-apiserver",
        ca="ca",
        usages=(Usage.SERVER,),
        addresses=names,
        validity=timedelta(days=365),
    )
    return x509.sign(spec, x509.new_key(KeyKind.ECDSA_P256), authority(), NOW - timedelta(days=1)).cert


def kubelet_conf(server: str = f"https://{ENDPOINT}", user: Mapping[str, str] | None = None) -> str:
    """A kubelet's kubeconfig."""
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": dict(user or {"client-certificate": KUBELET_CLIENT_CURRENT})}],
        }
    )


def embedded(pem: bytes) -> dict[str, str]:
    """A kubeconfig's user with a certificate in it."""
    return {"client-certificate-data": base64.b64encode(pem).decode()}


def manifest(name: str, address: str, *flags: str) -> str:
    """A static Pod's manifest."""
    own = [f"--advertise-address={address}"] if name == "kube-apiserver" else []
    return yaml.safe_dump({"spec": {"containers": [{"name": name, "command": [name, *own, *flags]}]}})


def unit(**changes: Any) -> Unit:
    """A unit that has run for an hour."""
    return replace(Unit("loaded", "enabled", "active", "running", "success", 700, up=HOUR), **changes)


CNI = {
    "name": "kubewright",
    "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.1.0/24"}]]}}],
}


def look(name: str) -> Look:
    """What a host shows."""
    files = {
        KUBELET_CONF: kubelet_conf(),
        CONFIG_PATH: yaml.safe_dump(
            {"rotateCertificates": True, "staticPodPath": "/etc/kubernetes/manifests"}
        ),
        FORWARD: "1",
        SWAPS: "Filename Type Size Used Priority",
        f"{CNI_DIR}/10-kubewright.conflist": json.dumps(CNI),
    }
    certs = {KUBELET_CLIENT_CURRENT: kubelet_pem(name)}
    if name in PLANES:
        files |= {manifest_path(one): manifest(one, ADDRESSES[name]) for one in COMPONENTS}
        certs["/etc/kubernetes/pki/apiserver.crt"] = api_pem(ADDRESSES[name], "10.0.0.9", "10.96.0.1")
    return Look(
        now=NOW,
        hostname=name,
        units={
            "kubelet": unit(),
            "containerd": unit(),
            "crio": Unit("not-found", "", "inactive", "dead", "success"),
        },
        files=files,
        certs=certs,
        disks={KUBELET_DIR: Disk("/", 100_000_000, 60_000_000)},
        inodes={KUBELET_DIR: Disk("/", 1_000_000, 900_000)},
        addresses={"lo": ("127.0.0.1/8",), "eth0": (f"{ADDRESSES[name]}/24",)},
        resolv_path="/etc/resolv.conf",
        nameservers=("10.0.0.53",),
        complete=True,
    )


def runtime(name: str) -> RuntimeFacts:
    """What its runtime says."""
    names = [*(COMPONENTS if name in PLANES else ()), "kube-proxy", "kubewright-network"]
    containers = tuple(Container(f"{one}-{name}", one, 0, True) for one in names)
    return RuntimeFacts(True, name="containerd", sandboxes=frozenset(names), containers=containers)


def node(name: str) -> NodeFacts:
    """One host."""
    return NodeFacts(name, name in PLANES, "", look(name), runtime(name))


def member(
    name: str, *, leader: int = 1, error: str = "", alarms: Mapping[int, tuple[str, ...]] | None = None
) -> MemberAnswer:
    """What a member of etcd says."""
    if error:
        return MemberAnswer(name, error=error)
    number = PLANES.index(name) + 1
    return MemberAnswer(
        name, MemberWords(number, "3.4.23", leader, index=100, term=2), listed=LISTED, alarms=alarms or {}
    )


def server(name: str, *, error: str = "") -> ApiAnswer:
    """What an API server says."""
    url = f"https://{ADDRESSES[name]}:6443"
    return ApiAnswer(name, url, error=error) if error else ApiAnswer(name, url, 5.0, "v1.20.2", READY)


def meta(name: str, **more: Any) -> dict[str, Any]:
    """Metadata of an object that is a day old."""
    return {"name": name, "namespace": "kube-system", "creationTimestamp": "2026-05-31T12:00:00Z", **more}


def node_object(name: str, *, ready: bool = True, taints: Sequence[Mapping[str, str]] = ()) -> dict[str, Any]:
    """A Node."""
    labels = {"kubernetes.io/os": "linux"}
    if name in PLANES:
        labels["node-role.kubernetes.io/control-plane"] = ""
        taints = [*taints, {"key": "node-role.kubernetes.io/master", "effect": "NoSchedule"}]
    condition = {
        "type": "Ready",
        "status": "True" if ready else "Unknown",
        "message": "Kubelet stopped posting",
    }
    return {
        "metadata": {**meta(name, labels=labels)},
        "spec": {"podCIDR": "10.244.1.0/24", "taints": list(taints)},
        "status": {
            "conditions": [condition],
            "addresses": [{"type": "InternalIP", "address": ADDRESSES[name]}],
        },
    }


def pod(
    name: str, node_name: str, *, owner: str = "", state: Mapping[str, Any] | None = None, **labels: str
) -> dict[str, Any]:
    """A Pod of kube-system; ready without a `state`."""
    condition = {"type": "Ready", "status": "False" if state else "True"}
    return {
        "metadata": meta(
            name, labels=labels, ownerReferences=[{"kind": "DaemonSet", "name": owner}] if owner else []
        ),
        "spec": {"nodeName": node_name},
        "status": {
            "phase": "Running",
            "conditions": [condition],
            "containerStatuses": [{"name": name, "state": dict(state or {"running": {}}), "restartCount": 0}],
        },
    }


def daemon_set(name: str, **spec: Any) -> dict[str, Any]:
    """A DaemonSet whose Pods tolerate everything."""
    template = {
        "tolerations": [{"operator": "Exists"}],
        "nodeSelector": {"kubernetes.io/os": "linux"},
        **spec,
    }
    return {"metadata": meta(name), "spec": {"template": {"spec": template}}, "status": {}}


def dns(ready: int = 2) -> dict[str, Any]:
    """The Deployment of cluster DNS."""
    return {
        "metadata": meta("coredns", labels={"k8s-app": "kube-dns"}),
        "spec": {"replicas": 2},
        "status": {"readyReplicas": ready} if ready else {},
    }


def objects() -> Seen:
    """What the API shows."""
    pods = [
        pod(f"{name}-{where}", where, owner=name)
        for name in ("kube-proxy", "kubewright-network")
        for where in NAMES
    ]
    return Seen(
        f"https://{ENDPOINT}",
        "v1.20.2",
        NOW,
        READY,
        [node_object(name) for name in NAMES],
        pods,
        [daemon_set("kube-proxy"), daemon_set("kubewright-network")],
        [dns()],
    )


def config_maps(
    endpoint: str = ENDPOINT, proxy: str = f"https://{ENDPOINT}", cidr: str = "10.244.0.0/16"
) -> list[dict[str, Any]]:
    """The ConfigMaps that are read."""
    return [
        {
            "metadata": {"name": "kubeadm-config"},
            "data": {"ClusterConfiguration": yaml.safe_dump({"controlPlaneEndpoint": endpoint})},
        },
        {
            "metadata": {"name": "kube-proxy"},
            "data": {
                "kubeconfig.conf": kubelet_conf(proxy),
                "config.conf": yaml.safe_dump({"clusterCIDR": cidr}),
            },
        },
    ]


def lease(name: str, holder: str = "cp1") -> dict[str, Any]:
    """A controller's Lease, renewed a moment ago."""
    return {
        "metadata": {"name": name},
        "spec": {
            "holderIdentity": f"{holder}_1",
            "renewTime": "2026-06-01T11:59:58Z",
            "leaseDurationSeconds": 15,
        },
    }


def asked() -> StatusFacts:
    """What `status` has asked."""
    return StatusFacts(
        NOW,
        objects(),
        leases=[lease("kube-controller-manager"), lease("kube-scheduler")],
        config_maps=config_maps(),
        servers=[server(name) for name in PLANES],
        endpoint=[ApiAnswer(name, f"https://{ENDPOINT}", 6.0, "v1.20.2", READY) for name in NAMES],
        etcd=[member(name) for name in PLANES],
        certs=[SeenCert(name, "apiserver", NOW + timedelta(days=300)) for name in PLANES],
        hosts=[
            HostStatus(
                name, True, name in PLANES, True, tuple(ContainerStatus(one, True) for one in COMPONENTS)
            )
            for name in NAMES
        ],
    )


def facts(nodes: Sequence[NodeFacts] | None = None, **changes: Any) -> DoctorFacts:
    """Everything; `nodes` replace those of the same name, `changes` what `status` has asked."""
    mine = {one.name: one for one in (node(name) for name in NAMES)} | {one.name: one for one in nodes or ()}
    told = replace(asked(), **changes)
    return DoctorFacts(NOW, tuple(mine.values()), report(told), told, ENDPOINT)


def seen(name: str, runs: RuntimeFacts | None = None, reserved: Any = (), **changes: Any) -> NodeFacts:
    """A host whose look differs."""
    one = node(name)
    assert one.look is not None
    return replace(
        one, look=replace(one.look, **changes), runtime=runs or one.runtime, reserved=tuple(reserved)
    )


def with_files(name: str, files: Mapping[str, str | None], **more: Any) -> NodeFacts:
    """A host with other files; None takes one away."""
    base = look(name).files
    return seen(
        name, files={path: text for path, text in {**base, **files}.items() if text is not None}, **more
    )


def without(name: str, *containers: str, ended: Mapping[str, Any] | None = None) -> RuntimeFacts:
    """A runtime in which these containers have ended."""
    found = runtime(name)
    kept = tuple(
        replace(one, running=False, ended=(ended or {}).get(one.name)) if one.name in containers else one
        for one in found.containers
    )
    return replace(found, containers=kept)


def kinds(found: DoctorFacts) -> list[tuple[str, tuple[str, ...]]]:
    """What is diagnosed, as kinds and hosts."""
    return [(one.kind, one.hosts) for one in diagnose(found)]


def only(found: DoctorFacts) -> Finding:
    """The one finding."""
    [one] = diagnose(found)
    return one
