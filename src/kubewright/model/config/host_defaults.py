"""kubeadm's defaults that depend on the host: its name, its address, its container runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kubewright.errors import ConfigError
from kubewright.model.config.kubeadm_nodes import (
    InitConfiguration,
    JoinConfiguration,
    LocalAPIEndpoint,
    NodeRegistrationOptions,
    Taint,
)
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.model.config.syntax import node_name
from kubewright.model.node import host_port, is_address, split_endpoint
from kubewright.model.versions import VersionFacts
from kubewright.secret import Secret

UNSPECIFIED = ("", "0.0.0.0", "::")  # noqa: S104


@dataclass(frozen=True, slots=True)
class HostDefaults:
    """What a host is taken to be where the configuration does not say it."""

    hostname: str
    """Its own name; the node has it in lower case."""
    address: str = ""
    """The source address of its default route; empty where it has none."""
    cri_socket: str = ""
    """The one container runtime that was found on it."""


def init_on(
    init: InitConfiguration, host: HostDefaults, facts: VersionFacts, token: Secret[str] | None = None
) -> InitConfiguration:
    """An InitConfiguration complete for a host; `token` is a fresh one for the first that has none.

    Raises `ConfigError` where the host's name cannot be a node's, or has no address.
    """
    tokens = list(init.bootstrap_tokens)
    for index, one in enumerate(tokens):
        if one.token is None and token is not None:
            tokens[index] = one.model_copy(update={"token": token})
            break
    return init.model_copy(
        update={
            "bootstrap_tokens": tokens,
            "node_registration": node_on(init.node_registration, host, facts.control_plane_taints),
            "local_api_endpoint": endpoint_on(init.local_api_endpoint, host),
        }
    )


def join_on(join: JoinConfiguration, host: HostDefaults, facts: VersionFacts) -> JoinConfiguration:
    """A JoinConfiguration complete for a host. Raises `ConfigError` as `init_on` does."""
    control_plane = join.control_plane
    taints = facts.control_plane_taints if control_plane is not None else ()
    update: dict[str, Any] = {"node_registration": node_on(join.node_registration, host, taints)}
    if control_plane is not None:
        endpoint = endpoint_on(control_plane.local_api_endpoint, host)
        update["control_plane"] = control_plane.model_copy(update={"local_api_endpoint": endpoint})
    return join.model_copy(update=update)


def cluster_on(cluster: ClusterConfiguration, init: InitConfiguration) -> ClusterConfiguration:
    """A ClusterConfiguration for its first control plane, whose port an endpoint without one has."""
    if not cluster.control_plane_endpoint:
        return cluster
    endpoint = host_port(*split_endpoint(cluster.control_plane_endpoint, init.local_api_endpoint.bind_port))
    return cluster.model_copy(update={"control_plane_endpoint": endpoint})


def node_on(
    node: NodeRegistrationOptions, host: HostDefaults, taint_keys: Sequence[str]
) -> NodeRegistrationOptions:
    """How a node registers on a host: by its name, with its runtime, and with the taints of its role."""
    update: dict[str, Any] = {}
    name = (node.name or host.hostname).strip().lower()
    try:
        update["name"] = node_name(name)
    except ValueError as error:
        raise ConfigError(
            f"nodeRegistration.name: {error}", hint="give the node another name with --node-name"
        ) from error
    if not node.cri_socket:
        update["cri_socket"] = host.cri_socket
    if node.taints is None and taint_keys:
        update["taints"] = [Taint(key=key, effect="NoSchedule") for key in taint_keys]
    return node.model_copy(update=update)


def endpoint_on(endpoint: LocalAPIEndpoint, host: HostDefaults) -> LocalAPIEndpoint:
    """Where the API server of a host listens: at the address of its default route, unless one is said."""
    if endpoint.advertise_address not in UNSPECIFIED:
        return endpoint
    if not is_address(host.address):
        raise ConfigError(
            "localAPIEndpoint.advertiseAddress: the host has no default route to take the address from",
            hint="say it with --apiserver-advertise-address",
        )
    return endpoint.model_copy(update={"advertise_address": host.address})
