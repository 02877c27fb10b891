"""The list of control planes that kubeadm until 1.21 keeps in `kubeadm-config`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from kubewright.clients.kube import KubeClient
from kubewright.clients.objects import ObjectClient
from kubewright.clients.paths import Object
from kubewright.errors import ApiError, ConfigError
from kubewright.events import Activity
from kubewright.model import stored
from kubewright.model.config.kubeadm import cluster_status
from kubewright.model.node import ControlPlaneNode
from kubewright.model.objects import SYSTEM, to_yaml
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.waiting import wait_until


class ClusterStatus(Phase):
    """This control plane's API endpoint among those of `kubeadm-config`; others stay."""

    name: ClassVar[str] = "update-status"
    title: ClassVar[str] = "register the API endpoint in kubeadm-config"

    def __init__(self, kube: KubeClient, api: ControlPlaneNode) -> None:
        self._kube = kube
        self._api = api

    async def look(self) -> list[Change]:
        """Whether it stands there."""
        _, status = await self._read()
        if (status.get("apiEndpoints") or {}).get(self._api.name) == self._endpoint:
            return []
        where = f"ConfigMap {SYSTEM}/{stored.KUBEADM_CONFIG} {stored.CLUSTER_STATUS}"
        return [Change(Action.UPDATE, f"{where} {self._api.name}")]

    @property
    def _endpoint(self) -> dict[str, Any]:
        return {"advertiseAddress": self._api.advertise_address, "bindPort": self._api.bind_port}

    async def _read(self) -> tuple[Object, Object]:
        config = await self._kube.get("v1", "ConfigMap", stored.KUBEADM_CONFIG, SYSTEM)
        if config is None:
            raise ConfigError(
                f"there is no ConfigMap {SYSTEM}/{stored.KUBEADM_CONFIG}",
                hint="on the first control plane, `kubewright init phase upload-config kubeadm` writes it",
            )
        return config, stored.cluster_status_in(config)

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write it. Another control plane may do the same for itself at this moment: the version that was read
        goes with the patch, and a lost race is run again."""
        await wait_until(
            self._written, f"{stored.KUBEADM_CONFIG} to take {self._api.name}", deadline=60,
            progress=activity.progress,
        )  # fmt: skip

    async def _written(self) -> str | None:
        config, status = await self._read()
        status = (status or cluster_status({})) | {
            "apiEndpoints": (status.get("apiEndpoints") or {}) | {self._api.name: self._endpoint}
        }
        return await write_cluster_status(self._kube, config, to_yaml(status).decode())


async def write_cluster_status(kube: ObjectClient, config: Object, status: str) -> str | None:
    """Write a ClusterStatus into `kubeadm-config` as it was read; None, or why it must be read again first."""
    patch = {
        "metadata": {"resourceVersion": config["metadata"]["resourceVersion"]},
        "data": {stored.CLUSTER_STATUS: status},
    }
    try:
        await kube.merge("v1", "ConfigMap", stored.KUBEADM_CONFIG, patch, SYSTEM)
    except ApiError as error:
        if error.status != 409:
            raise
        return "somebody else changed it"
    return None
