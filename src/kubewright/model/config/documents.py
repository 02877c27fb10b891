"""kubeadm's configuration file: its kinds, read out of one YAML stream and written as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubewright.model.config.kubeadm_nodes import (
    InitConfiguration,
    JoinConfiguration,
    ResetConfiguration,
    UpgradeConfiguration,
)
from kubewright.model.config.kubeadm_types import ClusterConfiguration


@dataclass(frozen=True, slots=True)
class Documents:
    """What a configuration file holds; None for a kind that it does not.

    kubeadm's kinds are complete: what is not said has kubeadm's default, as far as it depends on no host.
    """

    init: InitConfiguration | None = None
    join: JoinConfiguration | None = None
    cluster: ClusterConfiguration | None = None
    reset: ResetConfiguration | None = None
    upgrade: UpgradeConfiguration | None = None
    kubelet: Mapping[str, Any] | None = None
    """The user's KubeletConfiguration, as it stands in the file; `components` lays it over the defaults."""
    kube_proxy: Mapping[str, Any] | None = None
    """The user's KubeProxyConfiguration."""
    api_version: str = ""
    """kubeadm's API version in which the file is written; empty where it has none of kubeadm's kinds."""
