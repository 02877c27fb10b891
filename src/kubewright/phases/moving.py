"""The cluster itself learns that its API is at another address: whoever joins asks it, and so does kube-proxy."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from kubewright.clients.kube import KubeClient
from kubewright.events import Activity
from kubewright.model import moving, stored
from kubewright.model.objects import PUBLIC, SYSTEM
from kubewright.phases.phase import Action, Change, Phase


class EndpointTold(Phase):
    """`kubeadm-config` and `cluster-info` name the endpoint. Until the controller manager has signed that again,
    which takes it a moment, nobody can join by a token."""

    name: ClassVar[str] = "upload-config"
    title: ClassVar[str] = "tell joining nodes the endpoint"

    def __init__(self, kube: KubeClient, endpoint: str, names: Sequence[str] = ()) -> None:
        """`endpoint` is `host:port`; API servers' certificates have it and `names`."""
        self._kube = kube
        self._endpoint = endpoint
        self._names = names
        self._wanted: dict[tuple[str, str], dict[str, Any]] = {}

    async def look(self) -> list[Change]:
        """Which of the two name another."""
        async with asyncio.TaskGroup() as group:
            config = group.create_task(self._kube.get("v1", "ConfigMap", stored.KUBEADM_CONFIG, SYSTEM))
            info = group.create_task(self._kube.get("v1", "ConfigMap", stored.CLUSTER_INFO, PUBLIC))
        found: dict[tuple[str, str], Mapping[str, Any]] = {
            (SYSTEM, stored.KUBEADM_CONFIG): moving.kubeadm_config_change(
                config.result(), self._endpoint, self._names
            ),
            (PUBLIC, stored.CLUSTER_INFO): moving.cluster_info_change(
                info.result(), f"https://{self._endpoint}"
            ),
        }
        self._wanted = {where: dict(data) for where, data in found.items() if data}
        return [
            Change(Action.UPDATE, f"ConfigMap {namespace}/{name}", "", (f"# {self._endpoint}",))
            for namespace, name in self._wanted
        ]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write them."""
        for (namespace, name), data in self._wanted.items():
            await self._kube.merge("v1", "ConfigMap", name, {"data": data}, namespace)


class ProxyMoved(Phase):
    """kube-proxy uses the endpoint (P30): its Pods, which read their configuration when they start, are replaced
    one node after another, and the rules that they have made stay meanwhile."""

    name: ClassVar[str] = "kube-proxy"
    title: ClassVar[str] = "let kube-proxy use the endpoint"

    def __init__(self, kube: KubeClient, server: str) -> None:
        """`server` is the API's URL."""
        self._kube = kube
        self._server = server
        self._data: dict[str, str] = {}
        self._digest = ""

    async def look(self) -> list[Change]:
        """Whether its configuration names another, or its Pods are older than that."""
        async with asyncio.TaskGroup() as group:
            found = group.create_task(self._kube.get("v1", "ConfigMap", moving.PROXY, SYSTEM))
            live = group.create_task(self._kube.get("apps/v1", "DaemonSet", moving.PROXY, SYSTEM))
        config, daemon_set = found.result(), live.result()
        if daemon_set is None:  # another program does its work
            return []
        self._data = moving.proxy_change(config, self._server)
        self._digest = moving.digest(((config or {}).get("data") or {}) | self._data)
        changes = []
        if self._data:
            changes.append(
                Change(Action.UPDATE, f"ConfigMap {SYSTEM}/{moving.PROXY}", "", (f"# {self._server}",))
            )
        # kubeadm's has no digest: whether its Pods have read what is there is not known.
        if moving.template_digest(daemon_set) != self._digest:
            changes.append(Change(Action.UPDATE, f"DaemonSet {SYSTEM}/{moving.PROXY}"))
        return changes

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write the configuration, then the template, by which its Pods are replaced."""
        if self._data:
            await self._kube.merge("v1", "ConfigMap", moving.PROXY, {"data": self._data}, SYSTEM)
        template = {"metadata": {"annotations": {moving.CONFIG_ANNOTATION: self._digest}}}
        await self._kube.merge("apps/v1", "DaemonSet", moving.PROXY, {"spec": {"template": template}}, SYSTEM)
