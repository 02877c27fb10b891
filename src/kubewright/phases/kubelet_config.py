"""A node's kubelet configuration as the cluster keeps it; whoever upgrades the kubelet starts it anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from kubewright.errors import ConfigError
from kubewright.events import Activity
from kubewright.model.kubelet import CONFIG_PATH, INSTANCE_CONFIG_PATH
from kubewright.model.objects import read_mapping, to_yaml
from kubewright.model.patches import Patch, patched
from kubewright.phases.files import diff_lines
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase

_BY_HOST = "resolvConf"


class KubeletConfig(Phase):
    """`/var/lib/kubelet/config.yaml` out of the cluster's ConfigMap, with what is this node's own."""

    name: ClassVar[str] = "kubelet-config"
    title: ClassVar[str] = "write the kubelet's configuration"

    def __init__(self, node: Node, document: Mapping[str, Any], patches: Sequence[Patch] = ()) -> None:
        """`document` is the cluster's KubeletConfiguration."""
        self._node = node
        self.host_name = node.name
        self._document = document
        self._patches = patches
        self._content = b""

    async def look(self) -> list[Change]:
        """Whether it means something else than the file that is there. Raises `ConfigError` without a document."""
        if not self._document:
            raise ConfigError(
                "the cluster keeps no configuration of its kubelets",
                hint="on a control plane, `kubewright init phase upload-config kubelet` writes it",
            )
        found = await self._node.host.read_files([CONFIG_PATH, INSTANCE_CONFIG_PATH])
        before, own = (
            read_mapping(found.get(path, b"")) or {} for path in (CONFIG_PATH, INSTANCE_CONFIG_PATH)
        )
        # Which file a host's resolver reads is the host's affair: see `HostFacts.resolv_conf` (P18).
        wanted = {**self._document, **{name: before[name] for name in (_BY_HOST,) if name in before}, **own}
        wanted = patched("kubeletconfiguration", wanted, self._patches)
        if wanted == before:
            return []
        self._content = to_yaml(wanted)
        old = to_yaml(before) if before else b""
        action = Action.UPDATE if before else Action.CREATE
        return [Change(action, CONFIG_PATH, self.host_name, diff_lines("", old, self._content))]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write it."""
        await self._node.host.write_file(CONFIG_PATH, self._content)
