"""`reset`: undo on a host what `init` or `join` did, in kubeadm's phases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from kubewright.clients.objects import ObjectClient
from kubewright.clients.server import Server
from kubewright.errors import KubewrightError
from kubewright.events import Events
from kubewright.hosts import Host
from kubewright.model import kubeconfig
from kubewright.model.config.kubeadm_nodes import ResetConfiguration
from kubewright.model.node_preflight import for_reset, ignored_checks
from kubewright.model.reset import check_directory
from kubewright.phases.api import api_over
from kubewright.phases.host_kubeconfig import read_kubeconfig
from kubewright.phases.installed import Installed, read_installed, runtime_socket
from kubewright.phases.leave import EndpointGone, EtcdMemberGone
from kubewright.phases.loadbalancer import ProxiesGone
from kubewright.phases.node import Node
from kubewright.phases.phase import Change
from kubewright.phases.reset import CleanUp
from kubewright.phases.reset_network import OwnNetworkGone
from kubewright.workflows.preflight import run_preflight
from kubewright.workflows.reset_tree import STEPS
from kubewright.workflows.tree import StepRun, run_steps

ADMIN_CONF = f"{kubeconfig.KUBERNETES_DIR}/admin.conf"

# Prints one line for each thing that stays and that a reader may want gone, too.
_LEFT = r"""
exec 2>/dev/null
[ -z "$(ls -A /etc/cni/net.d)" ] || echo 'cni'
rules=$( { iptables-save; ip6tables-save; nft list ruleset; } | grep -cE 'KUBE-|kube-proxy')
[ "${rules:-0}" -eq 0 ] || echo "rules $rules"
[ -z "$(ipvsadm -Ln | tail -n +4)" ] || echo 'ipvs'
for link in cni0 flannel.1 kube-ipvs0 kube-bridge; do [ ! -e "/sys/class/net/$link" ] || echo "link $link"; done
for home in /root /home/*; do [ ! -e "$home/.kube/config" ] || echo "kubeconfig $home/.kube/config"; done
"""


@dataclass(frozen=True, slots=True)
class ResetResult:
    """What a reset did or, where it was dry, would do."""

    changes: Sequence[Change]
    node_name: str
    left: Sequence[str] = ()
    """What it left on the host, a sentence each."""


class Reset(StepRun):
    """One run: what its steps share."""

    def __init__(
        self, node: Node, settings: ResetConfiguration, events: Events, *, kubeconfig_path: str, dry: bool
    ) -> None:
        super().__init__(events, dry=dry)
        self.node = node
        self._settings = settings
        self._kubeconfig = kubeconfig_path or ADMIN_CONF
        self._certificates_dir = check_directory(settings.certificates_dir, "--cert-dir")
        self._installed: Installed | None = None
        self._etcd_data = ""

    async def installed(self) -> Installed:
        """What the host's files say, read once and before anything is removed."""
        if self._installed is None:
            self._installed = await read_installed(self.node.host)
        return self._installed

    async def preflight(self) -> None:
        """Only root is asked for, as by kubeadm."""
        ignore = ignored_checks(self._settings.ignore_preflight_errors)
        checks = for_reset(node_name=self.node.name)
        await run_preflight(self.node, checks, events=self.events, ignore=ignore, dry=self.dry)

    async def update_cluster_status(self) -> None:
        """Only a control plane has an endpoint; a cluster that cannot be asked is no reason to stop."""
        installed = await self.installed()
        if not installed.is_control_plane:
            return
        try:
            async with self._api(self.node.host) as kube:
                if kube is not None:
                    name = installed.node_name or self.node.name
                    await self.do(EndpointGone(kube, name, host=self.node.name))
        except KubewrightError as error:  # its kubeconfig may be damaged, too
            self._warn(f"kubeadm-config keeps this node's endpoint: {error.message}")

    async def remove_etcd_member(self) -> None:
        """A member that must not leave stops the run before anything has been removed."""
        phase = EtcdMemberGone(self.node, self._certificates_dir)
        await self.do(phase)
        self._etcd_data = check_directory(phase.data_dir, "etcd's data directory") if phase.data_dir else ""
        if phase.note and (await self.installed()).is_control_plane:
            self._warn(phase.note)

    async def cleanup_node(self) -> None:
        """etcd's data goes, too, where its phase has run; where that was skipped it stays, as in kubeadm."""
        settings = self._settings
        socket = await runtime_socket(self.node.host, settings.cri_socket, await self.installed())
        if self._certificates_dir != kubeconfig.KUBERNETES_DIR + "/pki":
            self._warn(f"{self._certificates_dir}, which is not kubeadm's own directory, is emptied")
        phase = CleanUp(
            self.node, certificates_dir=self._certificates_dir, cri_socket=socket, etcd_data=self._etcd_data,
            tmp_dir=settings.cleanup_tmp_dir, lazy_unmount="MNT_DETACH" in settings.unmount_flags,
            force_unmount="MNT_FORCE" in settings.unmount_flags,
        )  # fmt: skip
        await self.do(phase)
        await self.do(OwnNetworkGone(self.node))
        await self.do(ProxiesGone(self.node))  # the kubelet may have used it until now
        for warning in phase.warnings:
            self._warn(warning)

    def _warn(self, message: str) -> None:
        self.events.warn(message, host=self.node.name)

    @asynccontextmanager
    async def _api(self, host: Host) -> AsyncIterator[ObjectClient | None]:
        """The cluster's API by the administrator's kubeconfig on the host; None where there is none."""
        if not await host.stat_files([self._kubeconfig], digest=False):
            yield None
            return
        server = Server.from_kubeconfig(await read_kubeconfig(host, self._kubeconfig))
        async with api_over(host, server, timeout=15) as kube:
            yield kube


async def reset(
    node: Node,
    settings: ResetConfiguration,
    events: Events,
    *,
    kubeconfig_path: str = "",
    skip: Collection[str] = (),
    only: str = "",
    dry: bool = False,
) -> ResetResult:
    """Run `reset`, or with `only` one of its phases; with `dry`, only look.

    `settings.dry_run` and `.force` are the caller's affair: whoever calls has asked the user. Raises
    `KubewrightError` before anything is removed where the host cannot be reset.
    """
    run = Reset(node, settings, events, kubeconfig_path=kubeconfig_path, dry=dry)
    title = f"reset {node.name}" if not only else f"reset phase {only}"
    async with events.workflow("reset", title) as activity:
        installed = await run.installed()
        await run_steps(STEPS, run, [*settings.skip_phases, *skip], only=only)
        activity.summary(
            f"{node.name}: {len(run.changes)} changes" if run.changes else f"{node.name}: nothing to do"
        )
    left = [] if dry or only not in ("", "cleanup-node") else await _left(node.host)
    return ResetResult(run.changes, installed.node_name, left)


async def _left(host: Host) -> list[str]:
    """What reset leaves on a host, because it may be somebody else's (design rule: nothing of the user's)."""
    try:
        lines = (await host.shell(_LEFT, check=False)).text.splitlines()
    except KubewrightError:
        return []
    said = []
    for line in lines:
        kind, _, what = line.partition(" ")
        if kind == "cni":
            said.append("the pod network's configuration: rm -r /etc/cni/net.d")
        elif kind == "rules":
            said.append(
                f"{what} packet filter rules of kube-proxy: restart the host, or flush the tables if all of their "
                "rules are the cluster's (iptables -F && iptables -t nat -F && iptables -t mangle -F)"
            )
        elif kind == "ipvs":
            said.append("IPVS tables: ipvsadm --clear")
        elif kind == "link":
            said.append(f"the pod network's link {what}: ip link delete {what}")
        elif kind == "kubeconfig":
            said.append(f"{what}, which may name this cluster")
    return said
