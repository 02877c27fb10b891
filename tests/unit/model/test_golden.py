"""What is rendered for single versions, beside what was read in their sources (docs/versions.md).

`WRITE_GOLDEN=1 pytest tests/unit/model/test_golden.py` writes the files anew; every difference is to be reviewed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from kubewright.model import addons, kubeconfig, kubelet, pki, rbac, stored
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.components import kube_proxy_configuration, kubelet_configuration
from kubewright.model.config.kubeadm import cluster_status, default_cluster_configuration, to_stored
from kubewright.model.manifests import OPTIONAL_CA_DIRS, manifest_path, static_pods
from kubewright.model.node import ControlPlaneNode, endpoint_url
from kubewright.model.objects import Object, to_yaml
from kubewright.model.versions import facts_for, image_references

GOLDEN = Path(__file__).parents[1] / "golden"
VERSIONS = ("v1.20.2", "v1.22.6", "v1.24.14", "v1.26.7", "v1.29.6", "v1.31.12", "v1.37.0")
NODE = ControlPlaneNode("cp1", "192.0.2.11")
ENDPOINT = "api.example.org:6443"
HOST = {"name": "cp1", "address": "192.0.2.11"}


def rendered(version: str) -> dict[str, bytes]:
    """File name to content: all that a plain cluster with one control plane gets."""
    spec = ClusterSpec.model_validate({"kubernetesVersion": version, "endpoint": ENDPOINT, "hosts": [HOST]})
    cluster = default_cluster_configuration(spec)
    facts = facts_for(version)
    images = image_references(cluster, facts)
    network = cluster.networking
    server = endpoint_url(cluster.control_plane_endpoint, NODE)

    pods = static_pods(cluster, NODE, facts, ca_dirs=OPTIONAL_CA_DIRS)
    files = {manifest_path(name, "manifests"): to_yaml(pod) for name, pod in pods.items()}

    config = kubelet_configuration(spec)
    flags = kubelet.kubelet_flags(facts, node_name="cp1", hostname="cp1", pause_image=images["pause"])
    instance = kubelet.instance_config(facts) if facts.instance_config() else {}
    files |= {
        "kubelet/config.yaml": to_yaml(config | instance),
        "kubelet/kubeadm-flags.env": kubelet.flags_file(flags),
        "kubelet/10-kubeadm.conf": kubelet.kubelet_drop_in("/usr/bin/kubelet"),
    }
    if instance:
        files["kubelet/instance-config.yaml"] = to_yaml(instance)

    status = (
        cluster_status({NODE.name: (NODE.advertise_address, 6443)}) if facts.cluster_status_kept else None
    )
    socket = "" if instance else facts.cri_endpoint(kubelet.CONTAINERD_SOCKET)
    taints = [{"key": key, "effect": "NoSchedule"} for key in facts.control_plane_taints]
    labels = dict.fromkeys(facts.control_plane_labels, "")
    files |= {
        "objects/kubeadm-config.yaml": documents(stored.kubeadm_config(to_stored(cluster), status)),
        "objects/kubelet-config.yaml": documents(stored.kubelet_config(config, facts)),
        "objects/cluster-info.yaml": documents(stored.cluster_info(server, b"CA")),
        "objects/rbac.yaml": documents(
            [*rbac.node_bootstrap(facts), *(rbac.cluster_admins() if facts.super_admin else [])]
        ),
        "objects/kube-proxy.yaml": documents(
            addons.kube_proxy(kube_proxy_configuration(spec), server, images["kube-proxy"], facts)
        ),
        "objects/coredns.yaml": documents(
            addons.coredns(images["coredns"], network.dns_domain, network.service_subnet, facts)
        ),
        "objects/node-patch.yaml": to_yaml(
            stored.node_patch({}, labels=labels, taints=taints, cri_socket=socket)
        ),
    }
    identities = [
        *(
            {"file": config.path, "server": config.server} | identity(config.cert)
            for config in kubeconfig.control_plane_kubeconfigs(cluster, NODE)
        ),
        *({"file": cert.cert_path()} | identity(cert) for cert in pki.control_plane_certs(cluster, NODE)),
    ]
    return files | {
        "identities.yaml": documents(identities),
        "images.yaml": to_yaml({"images": list(images.values())}),
    }


def identity(cert: pki.CertSpec) -> Object:
    return {"CN": cert.common_name, "O": list(cert.organizations)}


def documents(objects: Iterable[Object]) -> bytes:
    return b"---\n".join(to_yaml(obj) for obj in objects)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_version_is_rendered_as_it_was_reviewed(version: str) -> None:
    directory = GOLDEN / version
    files = rendered(version)
    if os.environ.get("WRITE_GOLDEN"):
        for old in directory.rglob("*.*"):
            old.unlink()
        for name, content in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    golden = {
        str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()
    }
    assert {name: content.decode() for name, content in files.items()} == golden
