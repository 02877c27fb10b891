"""What a cluster remembers of its own configuration: ConfigMaps, who may read them, and marks on nodes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from kubewright.model import kubeconfig
from kubewright.model.objects import PUBLIC, SYSTEM, Object, config_map, to_yaml
from kubewright.model.pki import NODES
from kubewright.model.rbac import config_map_readers, group, user
from kubewright.model.tokens import BOOTSTRAPPERS
from kubewright.model.versions import VersionFacts

KUBEADM_CONFIG = "kubeadm-config"
CLUSTER_STATUS = "ClusterStatus"
"""The key of that ConfigMap under which kubeadm until 1.21 lists the control planes."""
CLUSTER_INFO = "cluster-info"
CLUSTER_INFO_KEY = "kubeconfig"
SIGNATURE_PREFIX = "jws-kubeconfig-"
CRI_SOCKET_ANNOTATION = "kubeadm.alpha.kubernetes.io/cri-socket"
_HASH_ANNOTATION = "kubeadm.kubernetes.io/component-config.hash"


def kubeadm_config(
    cluster_configuration: Mapping[str, Any], cluster_status: Mapping[str, Any] | None
) -> list[Object]:
    """The ConfigMap `kubeadm-config`, which joining nodes and upgrades read, and their permission to.

    `cluster_status` names every control plane's API endpoint; None for a version that keeps none.
    """
    data = {"ClusterConfiguration": to_yaml(cluster_configuration).decode()}
    if cluster_status is not None:
        data[CLUSTER_STATUS] = to_yaml(cluster_status).decode()
    return [
        config_map(KUBEADM_CONFIG, SYSTEM, data),
        *config_map_readers(
            "kubeadm:nodes-kubeadm-config", SYSTEM, KUBEADM_CONFIG, group(BOOTSTRAPPERS), group(NODES)
        ),
    ]


def cluster_status_in(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """The ClusterStatus in the ConfigMap `kubeadm-config`; empty where there is none."""
    status = yaml.safe_load(((config or {}).get("data") or {}).get(CLUSTER_STATUS) or "{}")
    return status if isinstance(status, dict) else {}


def kubelet_config(
    configuration: Mapping[str, Any], facts: VersionFacts, *, by_user: bool = False
) -> list[Object]:
    """The ConfigMap with the configuration of all kubelets, and who may read it.

    Where the user wrote none of it, it is signed, so that kubeadm may replace it with newer defaults.
    """
    data = {"kubelet": to_yaml(configuration).decode()}
    return [
        config_map(facts.kubelet_config_map, SYSTEM, data, annotations=None if by_user else signature(data)),
        *config_map_readers(
            facts.kubelet_config_role, SYSTEM, facts.kubelet_config_map, group(NODES), group(BOOTSTRAPPERS)
        ),
    ]


def signature(data: Mapping[str, str]) -> dict[str, str]:
    """The annotation by which kubeadm knows a component's configuration as generated: a digest of the data."""
    digest = hashlib.sha256("".join(data[key] for key in sorted(data)).encode())
    return {_HASH_ANNOTATION: "sha256:" + digest.hexdigest()}


def cluster_info(server: str, ca: bytes) -> list[Object]:
    """The ConfigMap by which a joining node gets to know the cluster, readable by everybody.

    The controller manager's bootstrap signer adds a signature for each token that signs.
    """
    document = to_yaml(kubeconfig.cluster_info(server, ca)).decode()
    return [
        config_map(CLUSTER_INFO, PUBLIC, {CLUSTER_INFO_KEY: document}),
        *config_map_readers(
            "kubeadm:bootstrap-signer-clusterinfo", PUBLIC, CLUSTER_INFO, user("system:anonymous")
        ),
    ]


def node_patch(
    node: Mapping[str, Any],
    *,
    labels: Mapping[str, str] | None = None,
    taints: Iterable[Mapping[str, str]] = (),
    cri_socket: str = "",
    annotations: Mapping[str, str] | None = None,
) -> Object:
    """The merge patch that marks a node; empty where nothing is missing.

    A taint that the node has stays. One of ours with the same key and effect takes its value.
    """
    meta = node.get("metadata", {})
    patch: Object = {}
    missing = _missing(labels or {}, meta.get("labels") or {})
    if missing:
        patch["labels"] = missing
    noted = ({CRI_SOCKET_ANNOTATION: cri_socket} if cri_socket else {}) | dict(annotations or {})
    missing = _missing(noted, meta.get("annotations") or {})
    if missing:
        patch["annotations"] = missing
    body: Object = {"metadata": patch} if patch else {}
    present: Sequence[Object] = node.get("spec", {}).get("taints") or []
    wanted = [_taint(taint) for taint in taints]
    if any(not any(_covers(have, want) for have in present) for want in wanted):
        replaced = {(want["key"], want["effect"]) for want in wanted}
        others = [have for have in present if (have["key"], have["effect"]) not in replaced]
        # A merge patch replaces a list as a whole: the version makes it fail where the node has changed since.
        body["spec"] = {"taints": [*wanted, *others]}
        if "resourceVersion" in meta:
            body.setdefault("metadata", {})["resourceVersion"] = meta["resourceVersion"]
    return body


def _missing(wanted: Mapping[str, str], present: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in wanted.items() if present.get(key) != value}


def _taint(taint: Mapping[str, str]) -> Object:
    return {key: value for key, value in taint.items() if value}


def _covers(have: Mapping[str, Any], want: Mapping[str, Any]) -> bool:
    return all(have.get(key, "") == want.get(key, "") for key in ("key", "value", "effect"))
