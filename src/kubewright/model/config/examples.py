"""kubeadm's configuration files with all defaults written out, as `config print` shows them."""

from __future__ import annotations

from dataclasses import replace

from kubewright.model.config.api_versions import V1BETA4
from kubewright.model.config.documents import Documents, default_documents
from kubewright.model.config.host_defaults import HostDefaults, init_on, join_on
from kubewright.model.config.kubeadm_nodes import (
    BootstrapTokenDiscovery,
    Discovery,
    JoinConfiguration,
    ResetConfiguration,
    UpgradeConfiguration,
)
from kubewright.model.kubelet import CONTAINERD_SOCKET
from kubewright.model.versions import facts_for
from kubewright.secret import Secret

_ADDRESS = "1.2.3.4"
_ENDPOINT = "kube-apiserver:6443"
_TOKEN = "abcdef.0123456789abcdef"  # noqa: S105 (the one that kubeadm prints, too)


def init_example(kubernetes_version: str, hostname: str) -> Documents:
    """What `init` does by default, on a host of that name."""
    documents = default_documents(kubernetes_version)
    facts, init = documents.facts, documents.init
    assert init is not None
    host = HostDefaults(hostname, _ADDRESS, facts.cri_endpoint(CONTAINERD_SOCKET))
    return replace(documents, init=init_on(init, host, facts, Secret(_TOKEN)))


def join_example(kubernetes_version: str, hostname: str) -> Documents:
    """What `join` does by default, on a host of that name; its cluster is there for its version."""
    documents = default_documents(kubernetes_version)
    facts, token = documents.facts, Secret(_TOKEN)
    by_token = BootstrapTokenDiscovery(
        token=token, api_server_endpoint=_ENDPOINT, unsafe_skip_ca_verification=True
    )
    join = JoinConfiguration(discovery=Discovery(bootstrap_token=by_token, tls_bootstrap_token=token))
    host = HostDefaults(hostname, _ADDRESS, facts.cri_endpoint(CONTAINERD_SOCKET))
    return replace(documents, join=join_on(join, host, facts))


def reset_example(kubernetes_version: str) -> Documents:
    """What `reset` does by default."""
    socket = facts_for(kubernetes_version).cri_endpoint(CONTAINERD_SOCKET)
    return Documents(reset=ResetConfiguration(cri_socket=socket), api_version=V1BETA4)


def upgrade_example(kubernetes_version: str) -> Documents:
    """What the commands of `upgrade` do by default, in any version."""
    facts_for(kubernetes_version)
    return Documents(upgrade=UpgradeConfiguration(), api_version=V1BETA4)
