"""The proxies of an endpoint: what each is given, whether it knows all API servers, and their removal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import ClassVar, Literal

from kubewright.clients.haproxy import ask_haproxy
from kubewright.errors import ExitCode, HostError
from kubewright.events import Activity
from kubewright.hosts import FileWrite
from kubewright.model import haproxy, nginx
from kubewright.model import loadbalancer as model
from kubewright.model.loadbalancer import Backend
from kubewright.phases.endpoint_service import UNITS, EndpointService
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase


class LoadBalancer(EndpointService):
    """A proxy in front of the API servers.

    Those of `keep`, control planes that could not be asked in this run, stay behind it where they are.
    """

    name: ClassVar[str] = "load-balancer"
    title: ClassVar[str] = "configure and start the load balancer"

    def __init__(
        self, node: Node, proxy: Literal["haproxy", "nginx"], backends: Sequence[Backend], ca: bytes, *,
        address: str, port: int, keep: Collection[str] = (), virtual: bool = False,
    ) -> None:  # fmt: skip
        """`address` and `port` are what it listens on; `ca` is the cluster's CA as PEM.

        Unless it is behind a `virtual` IP, one that its host has from before is given up.
        """
        super().__init__(node, proxy)
        self._proxy = proxy
        self._backends = list(backends)
        self._ca = ca
        self._listen = (address, port)
        self._keep = frozenset(keep)
        self._virtual = virtual

    @property
    def _units(self) -> list[str]:
        return [self._unit, nginx.CHECK_UNIT] if self._proxy == "nginx" else [self._unit]

    @property
    def _others(self) -> list[str]:
        other = model.unit_of("nginx" if self._proxy == "haproxy" else "haproxy")
        return [other] if self._virtual else [other, model.unit_of("keepalived")]

    async def files(self) -> list[FileWrite]:
        """The configuration, its CA and API servers, and the units."""
        if self._keep:
            before = model.read_backends(await self._node.host.read_file(model.BACKENDS_PATH) or b"")
            known = {one.name for one in self._backends}
            self._backends += [one for one in before if one.name in self._keep - known]
        files = [
            FileWrite(model.CA_PATH, self._ca),
            FileWrite(model.BACKENDS_PATH, model.backends_file(self._backends)),
        ]
        if self._proxy == "haproxy":
            return [
                *files,
                FileWrite(haproxy.HAPROXY_CONFIG, haproxy.haproxy_config(self._backends, *self._listen)),
                FileWrite(f"{UNITS}/{self._unit}", haproxy.haproxy_unit()),
            ]
        return [
            *files,
            FileWrite(nginx.NGINX_CONFIG, nginx.nginx_config(*self._listen)),
            FileWrite(nginx.NGINX_CHECK, nginx.nginx_check(), 0o755),
            FileWrite(f"{UNITS}/{self._unit}", nginx.nginx_unit()),
            FileWrite(f"{UNITS}/{nginx.CHECK_UNIT}", nginx.nginx_check_unit()),
        ]

    async def before_reload(self) -> None:
        """What haproxy knows of its servers' health, for its next process."""
        if self._proxy == "haproxy":
            with suppress(HostError):
                state = await ask_haproxy(self._node.host, haproxy.STATS_SOCKET, haproxy.SHOW_STATE)
                await self._node.host.write_file(haproxy.STATE_PATH, state.encode(), mode=0o600)

    async def check_free(self) -> None:
        """P44: whether its port is free, and who has it otherwise."""
        address, port = self._listen
        seen = await self._node.host.shell('ss -Hltnp "sport = :$1"', str(port), check=False)
        if holder := model.port_holder(seen.text, address):
            raise HostError(
                f"{self.host_name}: port {port}, where {self._proxy} is to listen, is taken by {holder} (P44)",
                host=self.host_name, hint="stop that program, or give endpoint.address another port",
                exit_code=ExitCode.HOST_NOT_FIT,
            )  # fmt: skip

    async def not_yet(self) -> str | None:
        """Whether all API servers are behind it, and no other."""
        wanted = {(one.name, one.host_port) for one in self._backends}
        try:
            known = await self._known()
        except HostError as error:
            return error.message
        if known == wanted:
            return None
        return f"behind it are {', '.join(sorted(name for name, _ in known)) or 'none'}"

    async def _known(self) -> set[tuple[str, str]]:
        """The API servers that the running program knows, by name and address."""
        host = self._node.host
        if self._proxy == "haproxy":
            return haproxy.stat_servers(await ask_haproxy(host, haproxy.STATS_SOCKET, "show stat"))
        upstream = await host.read_file(nginx.UPSTREAM_PATH) or b""
        names = {one.host_port: one.name for one in self._backends}
        return {(names.get(place, place), place) for place in nginx.upstream_servers(upstream)}


_GONE_LOOK = """
for unit in kubewright-haproxy kubewright-nginx-check kubewright-nginx kubewright-keepalived; do
  if [ -e "/etc/systemd/system/$unit.service" ]; then echo "$unit.service"; fi
done
[ ! -d "$1" ] || echo "$1"
"""


class ProxiesGone(Phase):
    """No proxy and no virtual IP of ours on a host: it left the endpoint, or the cluster. The packages stay."""

    name: ClassVar[str] = "load-balancer-gone"
    title: ClassVar[str] = "remove the load balancer"

    def __init__(self, node: Node) -> None:
        self._node = node
        self.host_name = node.name

    async def look(self) -> list[Change]:
        """Which units and files are there."""
        found = await self._node.host.shell(_GONE_LOOK, model.DIRECTORY)
        return [Change(Action.DELETE, row, self.host_name) for row in found.text.splitlines()]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Stop the virtual IP first, so that another host takes it over, then the proxy, and remove the files."""
        units = [change.target for change in changes if change.target.endswith(".service")]
        await self._node.host.shell(
            'directory=$1; shift; for unit; do systemctl disable -q --now "$unit"; done; '
            'for unit; do rm -f "/etc/systemd/system/$unit"; done; systemctl daemon-reload; '
            'rm -rf "$directory"; rmdir --ignore-fail-on-non-empty "${directory%/*}" 2>/dev/null; true',
            model.DIRECTORY, *sorted(units, key=lambda unit: "keepalived" not in unit), timeout=60,
        )  # fmt: skip
