"""What we would put on disk and into a cluster, against what the real kubeadm 1.20.2 would, item by item."""

from __future__ import annotations

import base64
import socket
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from certificates import describe
from kubeadm_dry_run import CA_DIR, DryRun, key, kubeadm_init, without_noise
from tools.parity.__main__ import stored_tree
from tools.parity.tree import kubeadm_tree

from kubewright.model import addons, kubeconfig, manifests, pki, rbac, stored, tokens, x509
from kubewright.model import kubelet as kubelet_files
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.components import kube_proxy_configuration, kubelet_configuration
from kubewright.model.config.kubeadm import cluster_status, default_cluster_configuration, to_stored
from kubewright.model.node import ControlPlaneNode, endpoint_url
from kubewright.model.versions import facts_for, image_references
from kubewright.secret import Secret

pytestmark = pytest.mark.integration

NODE = ControlPlaneNode("cp1", "10.11.12.13")
SOCKET = "/run/containerd/containerd.sock"
TOKEN = "abcdef.0123456789abcdef"

PLAIN: dict[str, Any] = {}
FULL: dict[str, Any] = {
    "controlPlaneEndpoint": "lb.example.test:8443",
    "clusterName": "blue",
    "networking": {"podSubnet": "10.32.0.0/16", "serviceSubnet": "10.33.0.0/20", "dnsDomain": "blue.test"},
    "apiServer": {
        "certSANs": ["api.example.test", "192.0.2.7", "*.wild.example.test"],
        "extraArgs": {"profiling": "false", "authorization-mode": "RBAC,Node"},
        "extraVolumes": [
            {"name": "audit", "hostPath": "/var/log/audit", "mountPath": "/audit", "pathType": "Directory"},
            {"name": "plain", "hostPath": "/srv", "mountPath": "/srv", "readOnly": True},
        ],
        "timeoutForControlPlane": "95s",
    },
    "controllerManager": {"extraArgs": {"bind-address": "0.0.0.0", "flex-volume-plugin-dir": "/opt/flex"}},
    "scheduler": {"extraArgs": {"bind-address": "0.0.0.0"}},
    "etcd": {
        "local": {
            "dataDir": "/srv/etcd",
            "extraArgs": {"listen-metrics-urls": "http://0.0.0.0:2381", "snapshot-count": "5000"},
            "serverCertSANs": ["etcd.example.test", "192.0.2.8"],
            "peerCertSANs": ["192.0.2.9"],
        }
    },
    "imageRepository": "registry.example.test/k8s",
    "dns": {"imageRepository": "registry.example.test/dns", "imageTag": "1.8.0"},
}


@dataclass(frozen=True)
class Case:
    """kubeadm's answer to a configuration, and our own model of the same."""

    theirs: DryRun
    spec: ClusterSpec

    @property
    def cluster(self) -> Any:
        return default_cluster_configuration(self.spec)


@pytest.fixture(scope="module", params=[PLAIN, FULL], ids=["plain", "full"])
def case(
    request: pytest.FixtureRequest, real_kubeadm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    passed: dict[str, Any] = {"networking": {"podSubnet": "10.244.0.0/16"}, **request.param}
    documents = [
        {
            "apiVersion": "kubeadm.k8s.io/v1beta2",
            "kind": "InitConfiguration",
            "bootstrapTokens": [{"token": TOKEN, "ttl": "24h0m0s", "description": "for tests"}],
            "localAPIEndpoint": {"advertiseAddress": NODE.advertise_address, "bindPort": NODE.bind_port},
            "nodeRegistration": {"name": NODE.name, "criSocket": SOCKET},
        },
        {
            "apiVersion": "kubeadm.k8s.io/v1beta2",
            "kind": "ClusterConfiguration",
            "kubernetesVersion": "v1.20.2",
            **passed,
        },
    ]
    root = tmp_path_factory.mktemp("kubeadm")
    spec = ClusterSpec.model_validate(
        {"hosts": [{"name": "cp1", "address": "local"}], "clusterConfiguration": passed}
    )
    return Case(kubeadm_init(real_kubeadm, root, yaml.safe_dump_all(documents)), spec)


def test_the_commands_in_the_report_are_kubeadms(real_kubeadm: Path) -> None:
    """What docs/kubeadm-parity.md is made from."""
    assert stored_tree() == kubeadm_tree(real_kubeadm)


def test_certificates(case: Case) -> None:
    now = datetime.now(UTC)
    specs = [*pki.cluster_cas(case.cluster), *pki.control_plane_certs(case.cluster, NODE)]
    bases = {spec.name: spec.base for spec in specs}
    files = {str(path.relative_to(case.theirs.files)) for path in case.theirs.files.rglob("*.crt")}
    assert {spec.base + ".crt" for spec in specs} == files
    ours: dict[str, x509.KeyPair] = {}
    for spec in specs:
        new = x509.new_key(spec.key_kind)
        ours[spec.name] = (
            x509.self_signed_ca(spec, new, now) if spec.is_ca else x509.sign(spec, new, ours[spec.ca], now)
        )
        cert, private = case.theirs.files / f"{spec.base}.crt", case.theirs.files / f"{spec.base}.key"
        assert describe(x509.load_cert(ours[spec.name].cert)) == describe(x509.load_cert(cert.read_bytes()))
        authority = case.theirs.files / f"{bases[spec.ca or spec.name]}.crt"
        assert (
            x509.matches(
                cert.read_bytes(), spec, now=datetime.now(UTC), ca=authority.read_bytes(),
                key=Secret(private.read_bytes()),
            )
            == []
        )  # fmt: skip
        assert cert.stat().st_mode & 0o777 == pki.CERT_MODE
        assert private.stat().st_mode & 0o777 == pki.KEY_MODE
    signing = Secret((case.theirs.files / pki.SERVICE_ACCOUNT_KEY).read_bytes())
    public = case.theirs.files / pki.SERVICE_ACCOUNT_PUBLIC_KEY
    assert x509.public_key(signing) == public.read_bytes()
    assert public.stat().st_mode & 0o777 == pki.PUBLIC_KEY_MODE


def test_kubeconfigs(case: Case) -> None:
    now = datetime.now(UTC)
    authority = (case.theirs.files / "ca.crt").read_bytes()
    ca = x509.KeyPair(authority, Secret((case.theirs.files / "ca.key").read_bytes()))
    specs = kubeconfig.control_plane_kubeconfigs(case.cluster, NODE)
    assert {spec.file for spec in specs} == {path.name for path in case.theirs.files.glob("*.conf")}
    for spec in specs:
        content = (case.theirs.files / spec.file).read_bytes()
        assert kubeconfig.reasons(content, spec, authority, now=now) == []
        theirs = kubeconfig.load(content, spec.file)
        pair = x509.sign(spec.cert, x509.new_key(), ca, now)
        ours = kubeconfig.with_certificate(spec, authority, pair)
        described = []
        for document in (theirs, ours):
            user = document["users"][0]["user"]
            described.append(describe(x509.load_cert(base64.b64decode(user.pop("client-certificate-data")))))
            user.pop("client-key-data")
        assert described[0] == described[1]
        assert theirs == ours
        assert (case.theirs.files / spec.file).stat().st_mode & 0o777 == kubeconfig.KUBECONFIG_MODE


def test_static_pods(case: Case) -> None:
    facts = facts_for(case.cluster.kubernetes_version)
    ours = manifests.static_pods(case.cluster, NODE, facts, ca_dirs=[f"/{CA_DIR}"])
    theirs = {path.stem: path for path in case.theirs.files.glob("*.yaml") if path.name != "config.yaml"}
    assert ours.keys() == theirs.keys()
    for name, path in theirs.items():
        pod = without_noise(yaml.safe_load(path.read_text()))
        # The one list whose order kubeadm does not keep sorted, and which has no order in meaning.
        pod["spec"]["containers"][0]["volumeMounts"].sort(key=lambda mount: mount["name"])
        assert pod == ours[name]
        assert path.stat().st_mode & 0o777 == manifests.MANIFEST_MODE


def test_kubelet_files(case: Case) -> None:
    facts = facts_for(case.cluster.kubernetes_version)
    flags = kubelet_files.kubelet_flags(
        facts, node_name=NODE.name, hostname=socket.gethostname(), cri_socket=SOCKET
    )
    assert kubelet_files.flags_file(flags) == (case.theirs.files / "kubeadm-flags.env").read_bytes()
    theirs = yaml.safe_load((case.theirs.files / "config.yaml").read_text())
    assert kubelet_configuration(case.spec) == theirs | LOG_ROTATION


LOG_ROTATION = {"containerLogMaxFiles": 5, "containerLogMaxSize": "10Mi"}
"""Ours beyond kubeadm's (P03)."""


def test_cluster_objects(case: Case) -> None:
    cluster, facts = case.cluster, facts_for(case.cluster.kubernetes_version)
    images = image_references(cluster, facts)
    server = endpoint_url(cluster.control_plane_endpoint, NODE)
    authority = (case.theirs.files / "ca.crt").read_bytes()
    token_id, token_secret = tokens.parse_token(Secret(TOKEN))
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=24)
    token = tokens.BootstrapToken(token_id, token_secret, expires, "for tests")
    endpoints = {NODE.name: (NODE.advertise_address, NODE.bind_port)}
    network = cluster.networking
    objects = [
        *stored.kubeadm_config(to_stored(cluster), cluster_status(endpoints)),
        *stored.kubelet_config(kubelet_configuration(case.spec), facts),
        *stored.cluster_info(server, authority),
        tokens.token_secret(token),
        *rbac.node_bootstrap(facts),
        *addons.kube_proxy(kube_proxy_configuration(case.spec), server, images["kube-proxy"], facts),
        *addons.coredns(images["coredns"], network.dns_domain, network.service_subnet, facts),
    ]
    ours = {key(obj): comparable(obj) for obj in objects}
    theirs = {name: comparable(obj) for name, obj in case.theirs.objects.items()}
    assert len(ours) == len(objects)
    assert ours.keys() == theirs.keys()
    with_our_additions(theirs, another_coredns=bool(cluster.dns.image_tag))
    for name in theirs:
        assert ours[name] == theirs[name]


def test_node_marks(case: Case) -> None:
    facts = facts_for(case.cluster.kubernetes_version)
    bare: dict[str, Any] = {"metadata": {"name": NODE.name}, "spec": {}}
    socket_patch, role_patch = case.theirs.node_patches
    assert stored.node_patch(bare, cri_socket=SOCKET) == socket_patch
    labels = dict.fromkeys(facts.control_plane_labels, "")
    taints = [{"key": key, "effect": "NoSchedule"} for key in facts.control_plane_taints]
    assert stored.node_patch(bare, labels=labels, taints=taints) == role_patch


def test_kubeadm_takes_our_files_for_its_own(real_kubeadm: Path, tmp_path: Path) -> None:
    """It finds each certificate and kubeconfig that it would make, knows when they end, and renews them."""
    spec = ClusterSpec.model_validate({"hosts": [{"name": "cp1", "address": "local"}]})
    cluster, now = default_cluster_configuration(spec), datetime.now(UTC)
    etc = tmp_path / "etc/kubernetes"
    made: dict[str, x509.KeyPair] = {}
    for want in [*pki.cluster_cas(cluster), *pki.control_plane_certs(cluster, NODE)]:
        fresh = x509.new_key(want.key_kind)
        made[want.name] = (
            x509.self_signed_ca(want, fresh, now)
            if want.is_ca
            else x509.sign(want, fresh, made[want.ca], now)
        )
        put(etc / "pki" / f"{want.base}.crt", made[want.name].cert)
        put(etc / "pki" / f"{want.base}.key", made[want.name].key.reveal())
    signing = x509.new_key()
    put(etc / "pki" / pki.SERVICE_ACCOUNT_KEY, signing.reveal())
    put(etc / "pki" / pki.SERVICE_ACCOUNT_PUBLIC_KEY, x509.public_key(signing))
    for config in kubeconfig.control_plane_kubeconfigs(cluster, NODE):
        pair = x509.sign(config.cert, x509.new_key(), made["ca"], now)
        document = kubeconfig.with_certificate(config, made["ca"].cert, pair)
        put(etc / config.file, kubeconfig.dump(document).reveal())
    before = {path: path.read_bytes() for path in etc.rglob("*") if path.is_file()}

    init = [
        {
            "apiVersion": "kubeadm.k8s.io/v1beta2", "kind": "InitConfiguration",
            "localAPIEndpoint": {"advertiseAddress": NODE.advertise_address},
            "nodeRegistration": {"name": NODE.name, "criSocket": SOCKET},
        },
        to_stored(cluster),
    ]  # fmt: skip
    put(tmp_path / "kubeadm.yaml", yaml.safe_dump_all(init).encode())
    for phase in ("certs", "kubeconfig"):
        said = run(real_kubeadm, tmp_path, "init", "phase", phase, "all", "--config", "/kubeadm.yaml")
        assert "Generating" not in said
        assert "Writing" not in said
    assert {path: path.read_bytes() for path in etc.rglob("*") if path.is_file()} == before

    expiry = run(real_kubeadm, tmp_path, "certs", "check-expiration", "--config", "/kubeadm.yaml")
    assert expiry.count("364d") == 10
    assert "MISSING" not in expiry
    run(real_kubeadm, tmp_path, "certs", "renew", "all", "--config", "/kubeadm.yaml")
    for want in pki.control_plane_certs(cluster, NODE):
        file = etc / "pki" / f"{want.base}.crt"
        assert file.read_bytes() != before[file]
        assert x509.matches(file.read_bytes(), want, now=datetime.now(UTC), ca=made[want.ca].cert) == []


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    path.write_bytes(content)


def run(kubeadm: Path, root: Path, *args: str) -> str:
    """What kubeadm says, run with `root` as its root directory."""
    done = subprocess.run(
        [str(kubeadm), "--rootfs", str(root), *args], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def with_our_additions(theirs: dict[str, Any], *, another_coredns: bool) -> None:
    """Everything in which we differ from kubeadm on purpose."""
    kubelet = next(name for name in theirs if name.startswith("ConfigMap kube-system/kubelet-config-"))
    theirs[kubelet]["data"]["kubelet"] |= LOG_ROTATION
    # P05: replicas keep apart.
    deployment = theirs["Deployment kube-system/coredns"]["spec"]["template"]["spec"]
    deployment["affinity"] = {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 100,
                    "podAffinityTerm": {
                        "labelSelector": {
                            "matchExpressions": [{"key": "k8s-app", "operator": "In", "values": ["kube-dns"]}]
                        },
                        "topologyKey": "kubernetes.io/hostname",
                    },
                }
            ]
        }
    }
    if another_coredns:
        # One that is newer than the version's own follows endpoint slices.
        theirs["ClusterRole /system:coredns"]["rules"].append(
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
        )


def comparable(obj: dict[str, Any]) -> Any:
    """An object without noise, its texts parsed, and without what differs from run to run."""
    obj = without_noise(obj)
    if obj["kind"] == "ConfigMap":
        texts = obj["data"]
        obj["data"] = {
            name: text if name == "Corefile" else yaml.safe_load(text) for name, text in texts.items()
        }
        # A digest of the texts, whose form is ours: that it is there is what counts.
        for name in obj["metadata"].get("annotations", {}):
            obj["metadata"]["annotations"][name] = "a digest"
    if obj["kind"] == "Secret":
        expiration = datetime.fromisoformat(base64.b64decode(obj["data"].pop("expiration")).decode())
        assert abs(expiration - datetime.now(UTC) - timedelta(hours=24)) < timedelta(minutes=5)
    for subject in obj.get("subjects", []):
        # The API server fills in the group of an RBAC subject.
        subject.pop("apiGroup", None)
    if obj["kind"].startswith("ClusterRole"):
        # kubeadm gives one of them a namespace, which the API server ignores.
        obj["metadata"].pop("namespace", None)
    return obj
