"""A cluster's own ConfigMaps when its API moves to another address."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from kubewright.errors import ConfigError
from kubewright.model import kubeconfig, stored
from kubewright.model.objects import Object, read_mapping, to_yaml

PROXY = "kube-proxy"
PROXY_KUBECONFIG = "kubeconfig.conf"
"""The key of kube-proxy's ConfigMap with its way to the API (kubeadm, app/phases/addons/proxy)."""
CONFIG_ANNOTATION = "kubewright.dev/config-digest"
"""On kube-proxy's Pods: another configuration is another template, and replaces them (P52)."""
_CLUSTER_CONFIGURATION = "ClusterConfiguration"


def kubeadm_config_change(config: Object | None, endpoint: str, names: Sequence[str]) -> dict[str, str]:
    """What of the ConfigMap `kubeadm-config` changes: `endpoint` is `host:port`, and `names` are those that API
    servers' certificates must have besides. Empty where nothing does. Raises `ConfigError` for one that is not
    usable."""
    document = _document(config, stored.KUBEADM_CONFIG, _CLUSTER_CONFIGURATION)
    api_server = document.get("apiServer") or {}
    sans = [str(name) for name in api_server.get("certSANs") or ()]
    more = [name for name in dict.fromkeys(names) if name not in sans]
    if not more and document.get("controlPlaneEndpoint") == endpoint:
        return {}
    changed = document | {"controlPlaneEndpoint": endpoint}
    if more:
        changed["apiServer"] = api_server | {"certSANs": [*sans, *more]}
    return {_CLUSTER_CONFIGURATION: to_yaml(changed).decode()}


def kubeadm_config_etcd(config: Object | None, etcd: Mapping[str, Any]) -> dict[str, str]:
    """What of `kubeadm-config` changes where the cluster has this `etcd`, as the version's kubeadm writes it.
    Empty where nothing does. Raises `ConfigError` for one that is not usable."""
    document = _document(config, stored.KUBEADM_CONFIG, _CLUSTER_CONFIGURATION)
    if document.get("etcd") == etcd:
        return {}
    return {_CLUSTER_CONFIGURATION: to_yaml(document | {"etcd": dict(etcd)}).decode()}


def cluster_info_change(config: Object | None, server: str) -> dict[str, str | None]:
    """What of `cluster-info` changes where the API is at the URL `server`; its old signatures go, and the
    controller manager makes new ones. Empty where nothing does."""
    text = _moved(config, stored.CLUSTER_INFO, stored.CLUSTER_INFO_KEY, server)
    if not text:
        return {}
    data = (config or {}).get("data") or {}
    signatures = [key for key in data if key.startswith(stored.SIGNATURE_PREFIX)]
    return {stored.CLUSTER_INFO_KEY: text} | dict.fromkeys(signatures)


def proxy_change(config: Object | None, server: str) -> dict[str, str]:
    """What of kube-proxy's ConfigMap changes where the API is at the URL `server`; empty where nothing does."""
    text = _moved(config, PROXY, PROXY_KUBECONFIG, server)
    return {PROXY_KUBECONFIG: text} if text else {}


def digest(data: Mapping[str, Any]) -> str:
    """What stands in `CONFIG_ANNOTATION` for a ConfigMap's data."""
    return hashlib.sha256(to_yaml(data)).hexdigest()[:16]


def template_digest(daemon_set: Mapping[str, Any]) -> str:
    """The digest in a DaemonSet's template; empty where it has none."""
    meta = daemon_set["spec"]["template"].get("metadata") or {}
    return str((meta.get("annotations") or {}).get(CONFIG_ANNOTATION, ""))


def _moved(config: Object | None, name: str, key: str, server: str) -> str:
    """A kubeconfig in a ConfigMap with another server; empty where it has that one."""
    document = _document(config, name, key)
    if kubeconfig.first_server(document) == server:
        return ""
    return to_yaml(kubeconfig.with_server(document, server)).decode()


def _document(config: Object | None, name: str, key: str) -> Object:
    text = ((config or {}).get("data") or {}).get(key)
    document = read_mapping(text.encode()) if text else None
    if document is None:
        raise ConfigError(
            f"ConfigMap {name} has no {key} that can be read",
            hint="`kubewright init phase upload-config` and `init phase addon kube-proxy` write such ones anew",
        )
    return document
