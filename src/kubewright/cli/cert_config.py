"""What commands about certificates know of a cluster: by --config, by its API, or by kubeadm's defaults."""

from __future__ import annotations

import dataclasses
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from kubewright.cli.node import ADMIN_CONF, NodeOptions
from kubewright.errors import ConfigError, ExitCode, KubewrightError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kubewright.events import Events
    from kubewright.hosts import Host
    from kubewright.model.cert_settings import CertSettings
    from kubewright.model.config.kubeadm_types import ClusterConfiguration
    from kubewright.model.node import ControlPlaneNode

_API_TIMEOUT = 5.0  # seconds: the API may be down for want of the very certificates that are asked about


async def settings_on(host: Host, node: NodeOptions, cert_dir: str | None, events: Events) -> CertSettings:
    """What the configuration says of certificates: that of --config, else the cluster's, else the defaults.

    That the cluster does not answer is only warned of, because it may do so for want of these certificates.
    """
    from kubewright.model import cert_settings

    if node.config is not None:
        from kubewright.cli.config_file import read_config
        from kubewright.model.config.kubeadm_types import ClusterConfiguration

        cluster = read_config(node.config).cluster or ClusterConfiguration()
        found = cert_settings.of_configuration(cluster)
    else:
        try:
            found = cert_settings.of_stored(await _stored(host, node))
        except KubewrightError as error:
            if node.kubeconfig and not isinstance(error, ConfigError) and error.exit_code == ExitCode.FAILURE:
                raise  # a kubeconfig that was asked for is not there
            events.warn(
                f"the cluster's configuration cannot be read ({error.message}): kubeadm's defaults hold"
            )
            found = cert_settings.CertSettings()
    return dataclasses.replace(found, directory=absolute_on(cert_dir, node)) if cert_dir else found


async def _stored(host: Host, node: NodeOptions) -> dict[str, Any]:
    """The cluster's ClusterConfiguration, as plain data."""
    from kubewright.cli.node import opened_light_api
    from kubewright.model.objects import SYSTEM, read_mapping

    options = dataclasses.replace(node, kubeconfig=node.kubeconfig or ADMIN_CONF)
    async with opened_light_api(host, options, timeout=_API_TIMEOUT) as kube:
        stored = await kube.get("v1", "ConfigMap", "kubeadm-config", SYSTEM)
    if stored is None:
        raise ConfigError(f"there is no ConfigMap {SYSTEM}/kubeadm-config")
    document = read_mapping((stored.get("data") or {}).get("ClusterConfiguration", ""))
    if document is None:
        raise ConfigError(f"the ConfigMap {SYSTEM}/kubeadm-config holds no ClusterConfiguration")
    return document


@asynccontextmanager
async def control_plane_on(
    node: NodeOptions,
) -> AsyncIterator[tuple[Host, ClusterConfiguration, ControlPlaneNode]]:
    """The host and what it is to be a control plane of: as --config says, completed by what the host is."""
    from kubewright.cli.config_file import read_config
    from kubewright.cli.node import opened_node
    from kubewright.model.config.documents import Documents
    from kubewright.model.config.host_defaults import HostDefaults, cluster_on, init_on
    from kubewright.model.config.kubeadm_nodes import InitConfiguration
    from kubewright.model.config.kubeadm_types import ClusterConfiguration
    from kubewright.model.node import ControlPlaneNode
    from kubewright.model.versions import facts_for

    documents = read_config(node.config) if node.config is not None else Documents()
    init = documents.init or InitConfiguration()
    cluster = documents.cluster or ClusterConfiguration()
    async with opened_node(node, name=init.node_registration.name, control_plane=True) as opened:
        init = init_on(init, HostDefaults(opened.name, opened.ip), facts_for(cluster.kubernetes_version))
        where = init.local_api_endpoint
        own = ControlPlaneNode(init.node_registration.name, where.advertise_address, where.bind_port)
        yield opened.host, cluster_on(cluster, init), own


def absolute_on(path: str, node: NodeOptions) -> str:
    """A directory on the host; on this computer it may be relative."""
    from pathlib import Path

    if not node.host:
        return str(Path(path).expanduser().absolute())
    if not path.startswith("/"):
        raise ConfigError(f"{path!r} must be an absolute path on {node.host}", exit_code=ExitCode.USAGE)
    return path.rstrip("/") or "/"
