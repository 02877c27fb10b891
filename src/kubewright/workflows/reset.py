"""`reset`: undo on a host what `init` or `join` did, in kubeadm's phases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar

from kubewright.clients.objects import ObjectClient
from kubewright.clients.server import Server
from kubewright.errors import KubewrightError
from kubewright.events import Events
from kubewright.hosts import Host
from kubewright.model import kubeconfig
from kubewright.model.config.kubeadm_nodes import ResetConfiguration
from kubewright.model.conversion import RECORD
from kubewright.model.kept import Kept
from kubewright.model.node_preflight import for_reset, ignored_checks
from kubewright.model.reset import check_directory
from kubewright.phases.api import api_over
from kubewright.phases.gone import OwnNodeGone
from kubewright.phases.host_kubeconfig import read_kubeconfig
from kubewright.phases.installed import Installed, read_installed, runtime_socket
from kubewright.phases.leave import EndpointGone, EtcdMemberGone
from kubewright.phases.left_behind import left_behind
from kubewright.phases.loadbalancer import ProxiesGone
from kubewright.phases.node import Node
from kubewright.phases.phase import Change
from kubewright.phases.reset import CleanUp
from kubewright.phases.reset_filter import PacketFilterGone
from kubewright.phases.reset_network import PodNetworkGone
from kubewright.workflows.preflight import run_preflight
from kubewright.workflows.reset_tree import STEPS
from kubewright.workflows.tree import StepRun, run_steps

ADMIN_CONF = f"{kubeconfig.KUBERNETES_DIR}/admin.conf"

_API_DEADLINE = 20.0
"""Seconds in which the API must have done what a step asks of it: a host can be reset without it, too."""

_NO_ANSWER = f"it has not answered within {_API_DEADLINE:.0f} s"


@dataclass(frozen=True, slots=True)
class ResetResult:
    """What a reset did or, where it was dry, would do."""

    changes: Sequence[Change]
    node_name: str
    kept: Sequence[Kept] = ()
    """What it leaves, and why."""


class Reset(StepRun):
    """One run: what its steps share."""

    records: ClassVar[Sequence[str]] = (RECORD,)
    """What Kubewright itself has written down of the cluster on its hosts."""

    def __init__(
        self, node: Node, settings: ResetConfiguration, events: Events, *, kubeconfig_path: str, dry: bool,
        keep_node: bool = False, asks_etcd: bool = False,
    ) -> None:  # fmt: skip
        """With `asks_etcd`, nothing of the cluster is changed before etcd has agreed to lose the member."""
        super().__init__(events, dry=dry)
        self._keep_node = keep_node
        self._asks_etcd = asks_etcd
        self.kept: list[Kept] = []
        """What stays, as far as the steps have looked."""
        self.node = node
        self._settings = settings
        self._kubeconfig = kubeconfig_path or ADMIN_CONF
        self._certificates_dir = check_directory(settings.certificates_dir, "--cert-dir")
        self._installed: Installed | None = None
        self._etcd_data = ""
        self._silent = ""
        """Why the API could not be asked; empty where it could, or has not been."""

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
        await self._refuse_needed_member()
        try:
            async with asyncio.timeout(_API_DEADLINE), self._api(self.node.host) as kube:
                if kube is not None:
                    name = installed.node_name or self.node.name
                    await self.do(EndpointGone(kube, name, host=self.node.name))
        except KubewrightError as error:  # its kubeconfig may be damaged, too
            self._silent = error.message
        except TimeoutError:
            self._silent = _NO_ANSWER
        if self._silent:
            self._warn(f"kubeadm-config keeps this node's endpoint: {self._silent}")

    async def remove_node(self) -> None:
        """The Node goes while this host's API server still answers; without an answer it stays, and is named."""
        name = (await self.installed()).node_name
        if not name:
            return
        if self._keep_node:
            self._keep(name, "it is to stay, says --keep-node")
            return
        if self._silent:  # it is not waited for twice
            self._keep(name, f"the cluster cannot be asked: {self._silent}")
            return
        await self._refuse_needed_member()
        try:
            async with asyncio.timeout(_API_DEADLINE), self._api(self.node.host) as kube:
                if kube is None:
                    self._keep(name, f"this host has no {self._kubeconfig} to reach the cluster with")
                    return
                phase = OwnNodeGone(kube, name, self.node)
                await self.do(phase)
        except KubewrightError as error:
            self._keep(name, f"the cluster cannot be asked: {error.message}", warn=True)
        except TimeoutError:
            self._keep(name, f"the cluster cannot be asked: {_NO_ANSWER}", warn=True)
        else:
            if phase.foreign:
                self._keep(name, f"it is another host's by now: {phase.foreign}", mend="", warn=True)

    def _keep(self, name: str, why: str, *, mend: str | None = None, warn: bool = False) -> None:
        """Say that the Node stays."""
        mend = f"kubectl delete node {name}" if mend is None else mend
        self.kept.append(Kept(f"Node {name}", why, mend))
        if warn:
            self._warn(f"Node {name} stays: {why}")

    async def _refuse_needed_member(self) -> None:
        """Raise what `remove_etcd_member` would, before anything in the cluster is changed."""
        if self._asks_etcd:
            self._asks_etcd = False
            await EtcdMemberGone(self.node, self._certificates_dir).look()

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
            force_unmount="MNT_FORCE" in settings.unmount_flags, files=self.records,
        )  # fmt: skip
        await self.do(phase)
        rules, network = PacketFilterGone(self.node), PodNetworkGone(self.node)
        await self.do(rules)
        await self.do(network)
        await self.do(ProxiesGone(self.node))  # the kubelet may have used it until now
        self.kept += [*phase.kept, *rules.kept, *network.kept, *await left_behind(self.node.host)]
        for warning in (*phase.warnings, *rules.warnings, *network.warnings):
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
    keep_node: bool = False,
    dry: bool = False,
) -> ResetResult:
    """Run `reset`, or with `only` one of its phases; with `dry`, only look.

    `settings.dry_run` and `.force` are the caller's affair: whoever calls has asked the user. Raises
    `KubewrightError` before anything is removed where the host cannot be reset.
    """
    left_out = [*settings.skip_phases, *skip]
    run = Reset(
        node, settings, events, kubeconfig_path=kubeconfig_path, dry=dry, keep_node=keep_node,
        asks_etcd=not only and "remove-etcd-member" not in left_out,
    )  # fmt: skip
    title = f"reset {node.name}" if not only else f"reset phase {only}"
    async with events.workflow("reset", title) as activity:
        installed = await run.installed()
        await run_steps(STEPS, run, left_out, only=only)
        activity.summary(
            f"{node.name}: {len(run.changes)} changes" if run.changes else f"{node.name}: nothing to do"
        )
        activity.data["kept"] = [kept.as_dict() for kept in run.kept]
    return ResetResult(run.changes, installed.node_name, run.kept)
