"""What all node commands share: the host that they act on, their common options, and its API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kubewright.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from kubewright.clients.kube import KubeClient
    from kubewright.clients.objects import ObjectClient
    from kubewright.clients.server import Server
    from kubewright.hosts import Host
    from kubewright.model.config.cluster import HostSpec
    from kubewright.phases.node import Node

F = TypeVar("F", bound=Callable[..., Any])

ADMIN_CONF = "/etc/kubernetes/admin.conf"

SHARED_FLAGS = frozenset(
    {
        "--host",
        "--ssh-key",
        "--ssh-known-hosts",
        "--ssh-jump",
        "--dry-run",
        "--config",
        "--content",
        "--output",
    }
)
"""The options that every phase of a command takes, as far as the command has them."""


class ListOption(click.Option):
    """An option whose value is a list: with commas between, given more than once, or both; a tuple of texts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"multiple": True})

    def type_cast_value(self, ctx: click.Context, value: Any) -> tuple[str, ...]:
        """Split at the commas; what is empty is left out."""
        texts: Sequence[str] = super().type_cast_value(ctx, value) or ()
        return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What the user said about the host and about the run; what a command has no option for stays empty."""

    host: str = ""
    """`[user@]address[:port]`; empty for this computer."""
    ssh_keys: tuple[Path, ...] = ()
    ssh_known_hosts: Path | None = None
    ssh_jump: str = ""
    dry_run: bool = False
    ignore_preflight_errors: tuple[str, ...] = ()
    config: Path | None = None
    """kubeadm's configuration, on this computer; `-` is standard input."""
    kubeconfig: str = ""
    """A path on the host."""
    said: frozenset[str] = field(default=frozenset())
    """Which of the fields the user said, rather than us."""


_HOST_OPTIONS = (
    click.option(
        "--host", default="", metavar="[USER@]ADDRESS[:PORT]",
        help="Act on this host, over SSH; default: on this computer.",
    ),
    click.option(
        "--ssh-key", "ssh_keys", type=click.Path(path_type=Path), multiple=True, metavar="FILE",
        help="With --host: a private key; default: the agent's, and the usual files in ~/.ssh.",
    ),
    click.option(
        "--ssh-known-hosts", type=click.Path(path_type=Path), metavar="FILE",
        help="With --host: the file with the host's key; default: ~/.ssh/known_hosts.",
    ),
    click.option(
        "--ssh-jump", default="", metavar="[USER@]ADDRESS[:PORT]",
        help="With --host: reach it through this one.",
    ),
)  # fmt: skip

_MORE = {
    "dry-run": click.option(
        "--dry-run", is_flag=True, help="Change nothing; show every file and object that would be written."
    ),
    "ignore-preflight-errors": click.option(
        "--ignore-preflight-errors", cls=ListOption, metavar="CHECKS",
        help="Checks whose errors are warnings, separated by commas: IsPrivilegedUser,Swap; 'all' for all.",
    ),
    "config": click.option(
        "--config", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE",
        help="kubeadm's configuration; '-' reads standard input.",
    ),
    "kubeconfig": click.option(
        "--kubeconfig", default="", metavar="FILE",
        help=f"The kubeconfig to use, on the host; default: {ADMIN_CONF}.",
    ),
}  # fmt: skip


def node_options(*more: str) -> Callable[[F], F]:
    """Add --host and its SSH options, and of `more` any of `dry-run`, `ignore-preflight-errors`, `config`,
    `kubeconfig`: all together are the one parameter `node`, a `NodeOptions`."""
    import functools

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def with_node(*args: Any, **kwargs: Any) -> Any:
            names = [
                "host",
                "ssh_keys",
                "ssh_known_hosts",
                "ssh_jump",
                *(name.replace("-", "_") for name in more),
            ]
            values = {name: kwargs.pop(name) for name in names}
            if not values["host"] and (values["ssh_keys"] or values["ssh_known_hosts"] or values["ssh_jump"]):
                raise click.UsageError("the --ssh options are for --host")
            ctx = click.get_current_context()
            default = (click.core.ParameterSource.DEFAULT, click.core.ParameterSource.DEFAULT_MAP, None)
            said = frozenset(name for name in names if ctx.get_parameter_source(name) not in default)
            return function(*args, node=NodeOptions(**values, said=said), **kwargs)

        decorated: Any = with_node
        for option in reversed([*_HOST_OPTIONS, *(_MORE[name] for name in more)]):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


@asynccontextmanager
async def opened_host(options: NodeOptions) -> AsyncIterator[Host]:
    """The host that the user means: this computer, or the one of --host, connected at its first use."""
    import socket

    from kubewright.hosts.open import open_at

    user, address, port = _where(options)
    async with open_at(
        address if options.host else socket.gethostname(), address, user=user, port=port,
        key_files=[str(path) for path in options.ssh_keys], jump=options.ssh_jump,
        known_hosts=str(options.ssh_known_hosts or ""),
    ) as host:  # fmt: skip
        yield host


@asynccontextmanager
async def opened_node(
    options: NodeOptions,
    *,
    name: str = "",
    control_plane: bool = False,
    node_ip: str = "",
    is_node: bool = False,
) -> AsyncIterator[Node]:
    """The host as a node, connected and looked at.

    Its name is `name`, else the host's hostname, in lower case, as kubeadm has it; `node_ip` is the address that
    the user chose for it, else that of its default route. Raises `HostError` where it cannot be reached, and
    `ConfigError` where the name cannot be a node's (P14), unless the host `is_node` by whatever name.
    """
    from kubewright.hosts.host import is_node_name
    from kubewright.model.preflight import node_ip as chosen_ip
    from kubewright.phases.node import Node

    async with opened_host(options) as host:
        facts = await host.facts()
        chosen = (name or facts.hostname).strip().lower()
        if not is_node and not is_node_name(chosen):
            raise ConfigError(
                f"{chosen!r} cannot be the name of a node (P14)", exit_code=ExitCode.HOST_NOT_FIT,
                hint="letters, digits, dashes and dots only: choose one with --node-name",
            )  # fmt: skip
        from kubewright.model.config.cluster import Role

        host.name = chosen  # until now it went by its address
        spec = _host_spec(options, chosen).model_copy(
            update={
                "roles": [Role.CONTROL_PLANE if control_plane else Role.WORKER],
                "node_ip": node_ip or None,
            }
        )
        yield Node(spec, host, facts, chosen_ip(spec, facts))


def _where(options: NodeOptions) -> tuple[str, str, int]:
    """The user, address and port of --host; what is not said is empty or 0. Raises `ConfigError` (USAGE)."""
    from kubewright.hosts.open import LOCAL
    from kubewright.model.node import split_endpoint

    user, _, where = options.host.rpartition("@")
    try:
        address, port = split_endpoint(where, 22) if options.host else (LOCAL, 0)
    except ConfigError:
        address = LOCAL
    if options.host and address == LOCAL:
        raise ConfigError(
            f"--host: {options.host!r} is not [user@]address[:port]", exit_code=ExitCode.USAGE,
            hint="such as root@192.168.7.11, or root@[fd00::1]:2222; leave it out for this computer",
        )  # fmt: skip
    return user, address, port


def _host_spec(options: NodeOptions, name: str) -> HostSpec:
    """The host in the words of cluster.yaml. Until its node name is known it goes by its address."""
    from kubewright.model.config.cluster import HostSpec, SshSpec

    user, address, port = _where(options)
    ssh = SshSpec(
        user=user or None,
        port=port or None,
        key_files=[str(path) for path in options.ssh_keys] or None,
        known_hosts=str(options.ssh_known_hosts) if options.ssh_known_hosts else None,
        jump=options.ssh_jump or None,
    )
    return HostSpec.model_construct(name=name or address, address=address, ssh=ssh)


@asynccontextmanager
async def opened_api(
    host: Host, options: NodeOptions, *, default: str = ADMIN_CONF, timeout: float = 30.0
) -> AsyncIterator[KubeClient]:
    """The cluster's API, over the host's own connection, by the kubeconfig of --kubeconfig or else `default`.

    See `api_server` for which that is, and what is raised.
    """
    from kubewright.phases.api import api_over

    server = await api_server(host, options, default=default)
    async with api_over(host, server, timeout=timeout) as kube:
        yield kube


@asynccontextmanager
async def opened_light_api(
    host: Host, options: NodeOptions, *, default: str = ADMIN_CONF, timeout: float = 30.0
) -> AsyncIterator[ObjectClient]:
    """`opened_api` for a command that asks one or two things and ends: its client loads in no time."""
    from urllib.parse import urlsplit

    from kubewright.clients.light import LightClient

    server = await api_server(host, options, default=default)
    url = urlsplit(server.url)
    async with (
        host.forward_tcp(url.hostname or "", url.port or 443) as (address, port),
        LightClient(server.through(address, port), timeout=timeout) as kube,
    ):
        yield kube


async def api_server(host: Host, options: NodeOptions, *, default: str = ADMIN_CONF) -> Server:
    """The API server of the kubeconfig on the host that --kubeconfig names, or else of `default`.

    On this computer, without --kubeconfig, it is as with kubeadm: the first that exists of KUBECONFIG,
    ~/.kube/config and `default`. Raises `HostError` where there is no such file on the host.
    """
    from kubewright.clients.server import Server
    from kubewright.phases.host_kubeconfig import read_kubeconfig

    return Server.from_kubeconfig(await read_kubeconfig(host, kubeconfig_path(options, default)))


def kubeconfig_path(options: NodeOptions, default: str = ADMIN_CONF) -> str:
    """Where the kubeconfig of `api_server` stands on the host."""
    if options.host:
        return options.kubeconfig or default
    if options.kubeconfig:
        return str(Path(options.kubeconfig).expanduser().absolute())
    from kubewright.clients.kubeconfig import default_files

    return next((str(file.absolute()) for file in default_files() if file.exists()), default)
