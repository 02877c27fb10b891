"""The phases of `reset`: kubeadm's names and options, and one of ours. What they do is in `workflows.reset`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubewright.workflows.tree import Step

if TYPE_CHECKING:
    from kubewright.workflows.reset import Reset

STEPS: tuple[Step[Reset], ...] = (
    Step(
        "preflight",
        "Check that the host can be reset",
        lambda reset: reset.preflight(),
        flags=("force", "ignore-preflight-errors"),
        aliases=("pre-flight",),
    ),
    Step(
        "update-cluster-status",
        "Take the API endpoint of this control plane out of kubeadm-config, where that lists it",
        lambda reset: reset.update_cluster_status(),
        flags=("kubeconfig",),
    ),
    Step(
        "remove-node",
        "Take this host's Node out of the cluster, where its own kubeconfig reaches it",
        lambda reset: reset.remove_node(),
        flags=("kubeconfig", "keep-node"),
    ),
    Step(
        "remove-etcd-member",
        "Take this node's member out of etcd",
        lambda reset: reset.remove_etcd_member(),
        flags=("kubeconfig",),
    ),
    Step(
        "cleanup-node",
        "Stop the kubelet, and remove its pods, mounts and files",
        lambda reset: reset.cleanup_node(),
        flags=("cert-dir", "cri-socket", "cleanup-tmp-dir"),
        aliases=("cleanupnode",),
    ),
)  # fmt: skip
"""In the order in which they run."""
