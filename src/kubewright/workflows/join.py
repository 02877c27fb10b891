"""`join`: a host becomes a node of a cluster that exists, as a worker or as a further control plane."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from kubewright.clients.paths import Object
from kubewright.errors import ConfigError, ExitCode, HostError
from kubewright.events import Events
from kubewright.model import pki, stored
from kubewright.model.config.duration import parse_duration
from kubewright.model.config.kubeadm_nodes import JoinConfiguration
from kubewright.model.copy_certs import parse_certificate_key
from kubewright.model.node_preflight import NodeChecks, for_join, for_join_control_plane
from kubewright.phases.api import api_over
from kubewright.phases.cluster_status import ClusterStatus
from kubewright.phases.controlplane import ApiServerUp, StaticPods, ca_directories
from kubewright.phases.copy_certs import DownloadCerts, require_shared
from kubewright.phases.etcd import EtcdHealthy, NewEtcdMember
from kubewright.phases.kubeconfigs import Kubeconfigs
from kubewright.phases.kubelet_join import JoinKubelet
from kubewright.phases.node import Node
from kubewright.phases.nodes import NodeMarks
from kubewright.phases.phase import Action
from kubewright.phases.pki import Certificates
from kubewright.workflows.join_desired import JoinDesired
from kubewright.workflows.join_leftovers import (
    has_leftovers,
    without_own_directory,
    without_own_node,
    without_own_pods,
)
from kubewright.workflows.join_run import JoinRun, Outcome
from kubewright.workflows.join_settings import JoinSettings
from kubewright.workflows.join_tree import JOIN
from kubewright.workflows.preflight import run_preflight
from kubewright.workflows.tree import run_steps


async def join(
    node: Node,
    settings: JoinSettings,
    events: Events,
    *,
    ignore: Collection[str] = (),
    skip: Collection[str] = (),
    only: str = "",
    dry: bool = False,
) -> Outcome:
    """Run the phases of `join`, or with `only` the one at that path, without those in `skip`.

    `ignore` is `ignored_checks(...)`. With `dry` nothing is changed and the outcome has what would be.
    """
    async with Join(node, settings, events, ignore=ignore, dry=dry) as run:
        async with events.workflow("join", f"join {node.name} to its cluster") as activity:
            run.outcome.steps = await run_steps(JOIN, run, skip, only=only)
            kind = "control plane" if settings.is_control_plane else "node"
            activity.summary(f"{node.name}: {kind} of {run.outcome.endpoint or 'its cluster'}")
        # In a dry run two phases may each miss the same file.
        run.outcome.changes = list({(one.target, one.host): one for one in reversed(run.changes)}.values())[
            ::-1
        ]
        return run.outcome


class Join(JoinRun):
    """One run: each method is what one phase of `workflows.join_tree` does."""

    async def preflight(self) -> None:
        """The host, then whether the cluster can take it."""
        join, node = self.settings.join, self.node
        host = for_join(join)
        if await has_leftovers(node, host):
            server = await self._discovered()
            host = await without_own_node(node, host, join.ca_cert_path, server.ca or b"")
        if join.control_plane is None:
            await self._check(host)
            await self._wanted()
            return
        plane = None
        if self._server is not None or self.settings.by_admin_conf:
            plane = await self._plane_checks(join)
            host = await without_own_directory(node, host, plane)
        await self._check(host)
        want = await self._wanted()
        if not want.cluster.control_plane_endpoint:
            raise HostError(
                "the cluster has no stable address: controlPlaneEndpoint is not set in ConfigMap "
                "kube-system/kubeadm-config, and a second control plane would serve nobody",
                host=node.name, exit_code=ExitCode.HOST_NOT_FIT,
                hint="make the cluster with --control-plane-endpoint; an existing one must have it added to its "
                "configuration and its API server's certificate",
            )  # fmt: skip
        if join.control_plane.certificate_key is None:
            await require_shared(node.host, want.cluster)
        await self._check(plane or await self._plane_checks(join))

    async def _check(self, checks: NodeChecks) -> None:
        await run_preflight(self.node, checks, events=self.events, ignore=self._ignore, dry=self.dry)

    async def _plane_checks(self, join: JoinConfiguration) -> NodeChecks:
        """What a control plane needs of its host, less what an interrupted join of it has made."""
        want = await self._wanted()
        checks = for_join_control_plane(join, want.cluster, want.facts)
        return await without_own_pods(self.node, checks, await self._pods(want), want.control_plane)

    async def download_certs(self) -> None:
        """What control planes share."""
        control_plane = self.settings.join.control_plane
        if control_plane is None or control_plane.certificate_key is None:
            return
        key = parse_certificate_key(control_plane.certificate_key)
        want = await self._wanted()
        phase = DownloadCerts(self.node, await self._bootstrap(), want.cluster, key)
        await self.do(phase, "control-plane-prepare/download-certs")

    async def certs(self) -> None:
        """This control plane's own certificates."""
        if not self._for_control_plane():
            return
        want = await self._wanted()
        if self.dry and not await self._has_ca(want):
            paths = [
                path for spec in want.leaves for path in (spec.key_path(self._pki), spec.cert_path(self._pki))
            ]
            self._would(Action.CREATE, *paths)
            return
        authorities = await self._authorities(want)
        leaves = Certificates(
            self.node, want.cluster.certificates_dir, want.leaves, authorities=authorities,
            etcd_data=want.etcd_data,
        )  # fmt: skip
        await self.do(leaves, "control-plane-prepare/certs")

    async def kubeconfigs(self) -> None:
        """The administrator's and the controllers' kubeconfigs."""
        if not self._for_control_plane():
            return
        want = await self._wanted()
        if self.dry and not await self._has_ca(want):
            self._would(Action.CREATE, *(spec.path for spec in want.kubeconfigs))
            return
        phase = Kubeconfigs(self.node, want.kubeconfigs, await self._authorities(want))
        await self.do(phase, "control-plane-prepare/kubeconfig")

    async def static_pods(self) -> None:
        """The three servers."""
        if not self._for_control_plane():
            return
        pods = await self._pods(await self._wanted())
        await self.do(StaticPods(self.node, pods), "control-plane-prepare/control-plane")

    async def _pods(self, want: JoinDesired) -> dict[str, Object]:
        host, directory = self.node.host, want.cluster.certificates_dir
        cert, key = pki.CA.cert_path(directory), pki.CA.key_path(directory)
        there = await host.stat_files([cert, key], digest=False)
        return want.static_pods(
            ca_dirs=await ca_directories(host), external_ca=cert in there and key not in there
        )

    async def check_etcd(self) -> None:
        """Nobody joins an etcd that is ill."""
        if self._for_control_plane() and not self.dry:
            want = await self._wanted()
            if want.stacked_etcd:
                await self.do(
                    EtcdHealthy(self.node, await self._administrator(), want.cluster.certificates_dir)
                )

    async def kubelet_start(self) -> None:
        """The kubelet's certificate, files and start."""
        want = await self._wanted()
        name = want.facts.kubelet_config_map
        config = ((await self._config_map(name) or {}).get("data") or {}).get("kubelet")
        if not config:
            raise ConfigError(
                f"ConfigMap kube-system/{name} is missing or empty",
                hint="on a control plane, `kubewright init phase upload-config kubelet` writes it",
            )
        server = await self._discovered()
        phase = JoinKubelet(
            self.node, server, want.facts, want.kubelet_files(config),
            ca_path=self.settings.join.ca_cert_path,
            kubelet_server=want.control_plane.url if want.local_api_server else server.url,
            cri_socket=want.cri_socket_annotation,
            wait_for_node=not want.local_api_server,
            deadline=parse_duration(self.settings.join.timeouts.tls_bootstrap) / 1e9,
        )  # fmt: skip
        await self.do(phase, "kubelet-start")

    async def etcd(self) -> None:
        """This control plane's member of etcd."""
        if not self._for_control_plane():
            return
        want = await self._wanted()
        if not want.stacked_etcd:
            self.events.note("etcd is external: no member is added", host=self.node.name)
            return
        self.outcome.etcd_member = True
        if await self._no_admin_yet(Action.CREATE, f"/etc/kubernetes/manifests/etcd.yaml ({want.etcd_data})"):
            return
        phase = NewEtcdMember(
            self.node, await self._administrator(), want.control_plane,
            certificates_dir=want.cluster.certificates_dir,
            cri_socket=want.settings.join.node_registration.cri_socket, data_dir=want.etcd_data, pod=want.etcd_pod,
        )  # fmt: skip
        await self.do(phase, "control-plane-join/etcd")

    async def update_status(self) -> None:
        """The list of control planes, for the versions that keep one."""
        if not self._for_control_plane():
            return
        want = await self._wanted()
        if not want.facts.cluster_status_kept:
            return
        if await self._no_admin_yet(Action.UPDATE, f"ConfigMap kube-system/{stored.KUBEADM_CONFIG}"):
            return
        phase = ClusterStatus(await self._administrator(), want.control_plane)
        await self.do(phase, "control-plane-join/update-status")

    async def mark_control_plane(self) -> None:
        """Labels and taints."""
        if not self._for_control_plane():
            return
        want = await self._wanted()
        if await self._no_admin_yet(Action.UPDATE, f"Node {self.node.name}"):
            return
        if want.local_api_server:
            await self.wait_control_plane()  # before that its kubelet registers no Node
        phase = NodeMarks(
            await self._administrator(), self.node, labels=want.labels(), taints=want.taints(),
            cri_socket=want.cri_socket_annotation,
        )  # fmt: skip
        await self.do(phase, "control-plane-join/mark-control-plane")

    async def wait_control_plane(self) -> None:
        """This node's own API server serves."""
        if not self._for_control_plane() or self.dry:
            return
        want = await self._wanted()
        server = replace((await self._administrator()).server, url=want.control_plane.url, connect=None)
        timeout = self.settings.join.timeouts.control_plane_component_health_check
        async with api_over(self.node.host, server) as kube:
            await self.do(ApiServerUp(self.node, kube, deadline=parse_duration(timeout) / 1e9))
