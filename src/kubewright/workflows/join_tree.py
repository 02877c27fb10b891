"""The phases of `join`: kubeadm's names, nesting and options. What they do is in `workflows.join`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from kubewright.workflows.tree import Step, find, leaf

if TYPE_CHECKING:
    from kubewright.workflows.join import Join

JoinStep: TypeAlias = "Step[Join]"

ENDPOINT = "api_server_endpoint"
_DISCOVERY = (
    "discovery-file", "discovery-token", "discovery-token-ca-cert-hash",
    "discovery-token-unsafe-skip-ca-verification", "tls-bootstrap-token", "token", ENDPOINT,
)  # fmt: skip
_ADDRESS, _PORT = "apiserver-advertise-address", "apiserver-bind-port"
_PATCHES = ("patches", "experimental-patches")


JOIN: tuple[JoinStep, ...] = (
    leaf(
        "preflight", "Check that the host is fit, and that the cluster can take it",
        lambda join: join.preflight(),
        "ignore-preflight-errors", "control-plane", _ADDRESS, _PORT, "cri-socket", "node-name", "certificate-key",
        *_DISCOVERY,
    ),
    Step(
        "control-plane-prepare",
        "Prepare the host for a control plane",
        steps=(
            leaf("download-certs", "Download what control planes share from the Secret kubeadm-certs",
                 lambda join: join.download_certs(), "control-plane", "certificate-key", *_DISCOVERY),
            leaf("certs", "Make the certificates of this control plane", lambda join: join.certs(),
                 "control-plane", "node-name", _ADDRESS, *_DISCOVERY),
            leaf("kubeconfig", "Write the control plane's and the administrator's kubeconfigs",
                 lambda join: join.kubeconfigs(), "control-plane", "certificate-key", *_DISCOVERY),
            leaf("control-plane", "Write the control plane's static Pods", lambda join: join.static_pods(),
                 "control-plane", _ADDRESS, _PORT, *_PATCHES),
        ),
        flags=("control-plane", "node-name", "certificate-key", _ADDRESS, _PORT, *_PATCHES, *_DISCOVERY),
    ),
    leaf("check-etcd", "Check that etcd is healthy", lambda join: join.check_etcd(), "control-plane",
         hidden=True),
    leaf(
        "kubelet-start", "Get the kubelet its certificate, write its files and start it",
        lambda join: join.kubelet_start(),
        "control-plane", "cri-socket", "node-name", *_PATCHES, *_DISCOVERY,
    ),
    Step(
        "control-plane-join",
        "Make the host a control plane",
        steps=(
            leaf("etcd", "Add a member to etcd", lambda join: join.etcd(), "control-plane", "node-name",
                 _ADDRESS, *_PATCHES),
            leaf("update-status", "Register the API endpoint in the ConfigMap kubeadm-config",
                 lambda join: join.update_status(), "control-plane", "node-name", _ADDRESS),
            leaf("mark-control-plane", "Label and taint the Node as a control plane",
                 lambda join: join.mark_control_plane(), "control-plane", "node-name"),
        ),
        flags=("control-plane", "node-name", _ADDRESS, *_PATCHES),
    ),
    leaf("wait-control-plane", "Wait until the API server of this node answers",
         lambda join: join.wait_control_plane(), "control-plane", hidden=True),
)  # fmt: skip
"""In the order in which they run."""


def discovers(path: str) -> bool:
    """Whether the one phase at this path, or the whole command, is told how to find the cluster."""
    return not path or ENDPOINT in find(JOIN, path).flags
