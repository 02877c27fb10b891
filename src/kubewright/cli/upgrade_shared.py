"""What the commands of `upgrade` share: their options, their configuration, and the node with its API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kubewright.cli.node import ADMIN_CONF, ListOption, NodeOptions
from kubewright.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from kubewright.clients.kube import KubeClient
    from kubewright.hosts import Host
    from kubewright.model.config.documents import Documents
    from kubewright.model.config.kubeadm_nodes import UpgradeConfiguration
    from kubewright.phases.node import Node

F = TypeVar("F", bound=Callable[..., Any])

_KUBELET_CONF = "/etc/kubernetes/kubelet.conf"


def switch(name: str, help_text: str, *, hidden: bool = False) -> Callable[[F], F]:
    """An option that is on unless it is said to be off, as Go's programs have it: --NAME=false."""
    return click.option(
        name, is_flag=False, flag_value=True, type=bool, default=True, show_default=True, metavar="true|false",
        hidden=hidden, help=help_text,
    )  # fmt: skip


UNSTABLE = (
    click.option(
        "--allow-experimental-upgrades", is_flag=True, help="Take alphas, betas and release candidates, too."
    ),
    click.option("--allow-release-candidate-upgrades", is_flag=True, help="Take release candidates, too."),
    click.option(
        "--feature-gates",
        cls=ListOption,
        metavar="GATES",
        help="kubeadm's gates for the new version: NAME=true,…",
    ),
    click.option("--print-config", is_flag=True, help="Show the ClusterConfiguration that is used."),
)
PATCHES = (
    click.option(
        "--patches", default="", metavar="DIRECTORY", help="Patches of what is written: see docs/init.md."
    ),
    click.option("--experimental-patches", default="", hidden=True, help="The older name of --patches."),
)


def with_options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Add several options, in their order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def configuration_of(node: NodeOptions) -> tuple[UpgradeConfiguration, Documents | None]:
    """The UpgradeConfiguration of --config, else the defaults; and all that is in the file."""
    from kubewright.model.config.kubeadm_nodes import UpgradeConfiguration

    if node.config is None:
        return UpgradeConfiguration(), None
    from kubewright.cli.config_file import read_config

    documents = read_config(Path(node.config))
    return documents.upgrade or UpgradeConfiguration(), documents


def check_gates(gates: Sequence[str], version: str) -> None:
    """Raise `ConfigError` (USAGE) for a gate that the version's kubeadm does not have."""
    if not gates:
        return
    from kubewright.model.versions import facts_for

    known = facts_for(version).kubeadm_feature_gates
    for gate in gates:
        name, _, value = gate.partition("=")
        if name not in known or value.lower() not in ("true", "false"):
            raise ConfigError(
                f"--feature-gates: {gate!r} is no gate of kubeadm {version}, with true or false",
                hint=f"its gates: {', '.join(known) or 'none'}", exit_code=ExitCode.USAGE,
            )  # fmt: skip
    raise ConfigError(
        "--feature-gates: gates cannot be changed by an upgrade yet", exit_code=ExitCode.USAGE,
        hint="set them in the cluster's configuration: kubewright init phase upload-config kubeadm --config FILE",
    )  # fmt: skip


def show_config(cluster: Any) -> None:
    """Show a ClusterConfiguration, on standard error: it is no result."""
    from kubewright.model.config.kubeadm import to_stored
    from kubewright.model.objects import to_yaml

    click.echo(to_yaml(to_stored(cluster)).decode(), nl=False, err=True)


@asynccontextmanager
async def opened_installed(options: NodeOptions) -> AsyncIterator[Node]:
    """The host as the node that it is: by the name that its kubelet has."""
    from dataclasses import replace

    from kubewright.cli.node import opened_node
    from kubewright.phases.installed import read_installed

    async with opened_node(options, control_plane=True, is_node=True) as found:
        name = (await read_installed(found.host)).node_name
        if name and name != found.name:
            found.host.name = name
            found = replace(found, spec=found.spec.model_copy(update={"name": name}))
        yield found


@asynccontextmanager
async def opened_with_api(
    options: NodeOptions, *, of_node: bool = False, timeout: float = 30.0
) -> AsyncIterator[tuple[Node, KubeClient]]:
    """The node and its cluster's API, by --kubeconfig, else the administrator's; with `of_node`, a node without
    one uses its kubelet's."""
    from kubewright.clients.server import Server
    from kubewright.phases.api import api_over
    from kubewright.phases.host_kubeconfig import read_kubeconfig

    async with opened_installed(options) as target:
        path = options.kubeconfig or await _default_kubeconfig(target.host, of_node)
        server = Server.from_kubeconfig(await read_kubeconfig(target.host, path))
        async with api_over(target.host, server, timeout=timeout) as kube:
            yield target, kube


async def _default_kubeconfig(host: Host, of_node: bool) -> str:
    found = await host.stat_files([ADMIN_CONF], digest=False) if of_node else {ADMIN_CONF}
    return ADMIN_CONF if found else _KUBELET_CONF


async def stored_cluster(kube: KubeClient) -> Any:
    """The cluster's own ClusterConfiguration."""
    from kubewright.model import stored
    from kubewright.model.objects import SYSTEM
    from kubewright.workflows.join_desired import cluster_configuration

    return cluster_configuration(await kube.get("v1", "ConfigMap", stored.KUBEADM_CONFIG, SYSTEM))
