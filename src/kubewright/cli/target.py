"""Which cluster a command works on, and the way to its API: by file, kubeconfig, or the default lab."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click

from kubewright.errors import ConfigError, ExitCode, HostError, KubewrightError

if TYPE_CHECKING:
    from kubewright.clients.kube import KubeClient
    from kubewright.clients.server import Server
    from kubewright.model.config.cluster import ClusterSpec

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_LAB = "default"
ADMIN_CONF = "/etc/kubernetes/admin.conf"
_QUICK = 3.0
"""Seconds in which an API server that can be reached directly answers its health endpoint."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What the user said about the cluster: at most one of the two files, perhaps a context."""

    file: Path | None = None
    kubeconfig: Path | None = None
    context: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster that answers. `label` says to a person which it is."""

    kube: KubeClient
    label: str
    spec: ClusterSpec | None = None


def target_options(function: F) -> F:
    """Add -f, --kubeconfig and --context, as the one parameter `selection`."""
    import functools

    @click.option(
        "-f",
        "--file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The cluster of this cluster.yaml.",
    )
    @click.option(
        "--kubeconfig",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The cluster of this kubeconfig.",
    )
    @click.option(
        "--context", default="", metavar="NAME", help="A context of the kubeconfig; default: its current one."
    )
    @functools.wraps(function)
    def with_selection(
        *args: Any, file: Path | None, kubeconfig: Path | None, context: str, **kwargs: Any
    ) -> Any:
        if file and (kubeconfig or context):
            raise click.UsageError("-f names the cluster already: leave --kubeconfig and --context out")
        return function(*args, selection=Selection(file, kubeconfig, context), **kwargs)

    return with_selection  # type: ignore[return-value]


def kubeconfig_files(
    selection: Selection, env: Mapping[str, str] | None = None, labs: Path | None = None
) -> tuple[list[Path], str]:
    """The kubeconfig files to read where no -f was given, and the cluster's name for a person.

    --kubeconfig, else KUBECONFIG (or what kubectl reads, where only --context was given), else the lab `default`.
    Raises `ConfigError` where there is none of them: the current context of `~/.kube/config` is not taken
    unasked, because it may be anybody's production.
    """
    from kubewright.clients.kubeconfig import default_files
    from kubewright.lab.places import STATE

    env = os.environ if env is None else env
    context = f"context {selection.context} of " if selection.context else ""
    if selection.kubeconfig:
        return [selection.kubeconfig], f"{context}{selection.kubeconfig}"
    if env.get("KUBECONFIG") or selection.context:
        files = default_files(env)
        return files, f"{context}{os.pathsep.join(map(str, files))}"
    lab = (labs or STATE) / DEFAULT_LAB / "kubeconfig"
    if lab.exists():
        return [lab], f"lab {DEFAULT_LAB}"
    raise ConfigError(
        "which cluster? There is no -f, no --kubeconfig, no KUBECONFIG and no lab called 'default'",
        hint="name one with -f cluster.yaml, --kubeconfig FILE or --context NAME, or make one: kubewright lab up",
        exit_code=ExitCode.USAGE,
    )


@asynccontextmanager
async def connect(selection: Selection) -> AsyncIterator[Target]:
    """The cluster that the selection means, with a client for as long as the context lasts.

    With -f, the cluster's own kubeconfig on this computer is used if its API answers; else the first control
    plane that can be reached over SSH gives its `admin.conf` and carries our connections.
    """
    from kubewright.clients import kubeconfig
    from kubewright.clients.kube import KubeClient
    from kubewright.clients.server import Server

    if selection.file is not None:
        async with _of_file(selection.file) as target:
            yield target
        return
    files, label = kubeconfig_files(selection)
    server = Server.from_kubeconfig(kubeconfig.load(files), context=selection.context)
    async with KubeClient(server) as kube:
        yield Target(kube, label)


@asynccontextmanager
async def _of_file(file: Path) -> AsyncIterator[Target]:
    from kubewright.clients.kube import KubeClient
    from kubewright.model.config.load import load_cluster

    spec = load_cluster(file)
    label = f"cluster {spec.name} of {file}"
    async with AsyncExitStack() as stack:
        for server in known_servers(spec, file):
            kube = await stack.enter_async_context(KubeClient(server))
            if await kube.healthz("/livez", timeout=_QUICK):
                yield Target(kube, label, spec)
                return
        server = await _over_ssh(spec, stack)
        yield Target(await stack.enter_async_context(KubeClient(server)), label, spec)


def known_servers(spec: ClusterSpec, file: Path, env: Mapping[str, str] | None = None) -> list[Server]:
    """The cluster's API as kubeconfigs here know it: a lab's beside its `cluster.yaml`, or our context.

    A kubeconfig counts only if its server is an address of this very cluster: names repeat themselves.
    """
    from kubewright.clients import kubeconfig
    from kubewright.clients.server import Server

    found = []
    beside = file.absolute().parent / "kubeconfig"
    places = [([beside], "")] if beside.exists() else []
    places.append((kubeconfig.default_files(env), spec.name))
    for files, context in places:
        try:
            config = kubeconfig.load(files)
            server = Server.from_kubeconfig(config, context=context)
        except ConfigError:
            continue  # none here; a broken file of the user's is not this command's business
        if _belongs(server.url, spec):
            found.append(server)
    return found


def _belongs(url: str, spec: ClusterSpec) -> bool:
    servers = [*spec.control_planes, *spec.load_balancers]
    addresses = {address for host in servers for address in (host.address, host.node_ip) if address}
    if spec.endpoint and spec.endpoint.address:
        addresses.add(urlsplit(f"//{spec.endpoint.address}").hostname or "")
    return "local" in addresses or (urlsplit(url).hostname or "") in addresses


async def _over_ssh(spec: ClusterSpec, stack: AsyncExitStack) -> Server:
    """The API by way of the first control plane that lets us in and has an `admin.conf`."""
    import yaml

    from kubewright.clients.server import Server
    from kubewright.hosts.open import open_host

    problems: list[KubewrightError] = []
    for entry in spec.hosts:
        if "control-plane" not in entry.roles:
            continue
        try:
            host = await stack.enter_async_context(open_host(entry, spec.ssh))
            content = await host.read_file(ADMIN_CONF)
            if content is None:
                raise HostError(
                    f"{entry.name}: there is no {ADMIN_CONF}: no cluster has been made here yet",
                    host=entry.name, hint="kubewright apply -f FILE makes it", exit_code=ExitCode.FAILURE,
                )  # fmt: skip
            server = Server.from_kubeconfig(yaml.safe_load(content))
            url = urlsplit(server.url)
            way = await stack.enter_async_context(host.forward_tcp(url.hostname or "", url.port or 443))
            return server.through(*way)
        except KubewrightError as error:
            problems.append(error)
    raise problems[0] if problems else ConfigError("hosts: none has the role control-plane")
