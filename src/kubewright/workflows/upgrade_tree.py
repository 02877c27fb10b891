"""The phases of `upgrade node`: kubeadm's names and options. What they do is in `workflows.upgrade`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubewright.workflows.tree import Step

if TYPE_CHECKING:
    from kubewright.workflows.upgrade import UpgradeRun

NODE: tuple[Step[UpgradeRun], ...] = (
    Step(
        "preflight",
        "Check that the host is fit, and pull images",
        lambda run: run.preflight(),
        flags=("ignore-preflight-errors", "kubeconfig"),
    ),
    Step(
        "control-plane",
        "Bring this control plane, if the host is one, to the cluster's version",
        lambda run: run.control_plane(),
        flags=("certificate-renewal", "etcd-upgrade", "patches", "experimental-patches", "kubeconfig"),
    ),
    Step(
        "kubelet-config",
        "Write the kubelet's configuration as the cluster keeps it",
        lambda run: run.kubelet_config(),
        flags=("patches", "experimental-patches", "kubeconfig"),
    ),
)  # fmt: skip
"""In the order in which they run."""
