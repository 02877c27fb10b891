"""Waiting until the controllers and the scheduler are at work, which their Pods' states do not tell."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from kubewright.clients.kube import KubeClient
from kubewright.events import Activity
from kubewright.phases.node import Node
from kubewright.phases.phase import Change, Phase
from kubewright.phases.waiting import container_evidence, wait_until

_RENEWED = 6.0
"""Seconds since a Lease's last renewal, which is due every two."""


class ControllersUp(Phase):
    """Somebody holds the Lease of each, and has renewed it just now.

    After a power cut the Leases, and all that the controllers keep up to date, look as before for a while: whoever
    comes next takes a Lease over 15 s after it has first seen it (client-go's leader election).
    """

    name: ClassVar[str] = "wait-controllers"
    title: ClassVar[str] = "wait for the controllers and the scheduler"
    always_verify: ClassVar[bool] = True

    def __init__(self, node: Node, kube: KubeClient, leases: Sequence[str]) -> None:
        self._node = node
        self._kube = kube
        self._leases = leases

    async def look(self) -> list[Change]:
        """Nothing: the kubelet starts them."""
        return []

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Nothing to do."""

    async def verify(self, activity: Activity) -> None:
        """Wait until each Lease was renewed a moment ago, by the control plane's own clock."""
        await wait_until(
            self._missing, f"{' and '.join(self._leases)} to be at work", deadline=120, interval=0.2,
            diagnose=self._diagnose, progress=activity.progress,
            hint="`kubectl -n kube-system get lease` shows who holds them",
        )  # fmt: skip

    async def _missing(self) -> str | None:
        now = float((await self._node.host.run(["date", "+%s"])).text)
        reasons = []
        for name in self._leases:
            lease = await self._kube.get("coordination.k8s.io/v1", "Lease", name, "kube-system")
            renewed = ((lease or {}).get("spec") or {}).get("renewTime")
            if not renewed:
                reasons.append(f"{name} holds no Lease yet")
            elif now - datetime.fromisoformat(renewed).timestamp() > _RENEWED:
                reasons.append(f"{name} has not renewed its Lease since {renewed}")
        return ", ".join(reasons) or None

    async def _diagnose(self) -> list[str]:
        return [line for name in self._leases for line in await container_evidence(self._node.host, name)]
