"""`join`: a host becomes a node of a cluster that exists, as a worker or as a further control plane."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

from kubewright.clients.kube import KubeClient
from kubewright.clients.paths import Object
from kubewright.clients.server import Server
from kubewright.errors import ApiError, ConfigError, ExitCode, HostError
from kubewright.events import Events
from kubewright.model import pki, stored
from kubewright.model.config.duration import parse_duration
from kubewright.model.copy_certs import parse_certificate_key
from kubewright.model.node_preflight import for_join, for_join_control_plane
from kubewright.phases import discovery
from kubewright.phases.api import api_over
from kubewright.phases.cluster_status import ClusterStatus
from kubewright.phases.controlplane import ApiServerUp, StaticPods, ca_directories
from kubewright.phases.copy_certs import DownloadCerts, require_shared
from kubewright.phases.discovery_file import has_credentials
from kubewright.phases.etcd import EtcdHealthy, NewEtcdMember
from kubewright.phases.host_kubeconfig import read_kubeconfig
from kubewright.phases.kubeconfigs import Kubeconfigs
from kubewright.phases.kubelet_join import JoinKubelet
from kubewright.phases.node import Node
from kubewright.phases.nodes import NodeMarks
from kubewright.phases.phase import Action, Change
from kubewright.phases.pki import Authorities, Certificates
from kubewright.phases.waiting import wait_until
from kubewright.workflows.join_desired import JoinDesired, cluster_configuration
from kubewright.workflows.join_settings import ADMIN_CONF, JoinSettings
from kubewright.workflows.join_tree import JOIN
from kubewright.workflows.preflight import run_preflight
from kubewright.workflows.tree import StepRun, run_steps


@dataclass
class Outcome:
    """What a run did, or would do."""

    node: str
    control_plane: bool
    endpoint: str = ""
    etcd_member: bool = False
    changes: list[Change] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)


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


class Join(StepRun):
    """What the phases of one join share. The cluster is asked once, by whichever phase needs it first."""

    def __init__(
        self, node: Node, settings: JoinSettings, events: Events, *, ignore: Collection[str] = (), dry: bool
    ) -> None:
        super().__init__(events, dry=dry)
        self.node = node
        self.settings = settings
        self.outcome = Outcome(node.name, settings.is_control_plane)
        self._ignore = ignore
        self._stack = AsyncExitStack()
        self._server: Server | None = None
        self._kube: KubeClient | None = None
        self._admin: KubeClient | None = None
        self._desired: JoinDesired | None = None

    async def __aenter__(self) -> Join:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    # -- the cluster ----------------------------------------------------------------------------------------------

    async def _discovered(self) -> Server:
        """The cluster, with the credentials of the TLS bootstrap."""
        if self._server is None:
            async with self.events.phase(
                "discovery", "get to know the cluster", host=self.node.name
            ) as activity:
                self._server = await self._discover(activity.progress)
                activity.summary(f"the cluster at {self._server.url}")
            self.outcome.endpoint = self._server.url
        return self._server

    async def _discover(self, progress: discovery.Progress) -> Server:
        host, wanted = self.node.host, self.settings.join.discovery
        if self.settings.by_admin_conf:
            return Server.from_kubeconfig(await read_kubeconfig(host, ADMIN_CONF))
        deadline = parse_duration(self.settings.join.timeouts.discovery) / 1e9
        if (token := wanted.bootstrap_token) is not None:
            found = await discovery.by_token(
                host, token.api_server_endpoint, token.token, token.ca_cert_hashes,
                unsafe_skip_ca_verification=token.unsafe_skip_ca_verification, deadline=deadline,
                progress=progress,
            )  # fmt: skip
        else:
            assert wanted.file is not None
            found = await discovery.by_file(
                host, wanted.file.kube_config_path, deadline=deadline, progress=progress
            )
        if wanted.tls_bootstrap_token is not None:
            return await discovery.require_accepted(host, found, wanted.tls_bootstrap_token)
        if not has_credentials(found.server):
            raise ConfigError(
                "--discovery-file: the file has no credentials to ask for the kubelet's certificate with",
                hint="give --tls-bootstrap-token as well; on a control plane, `kubewright token create` makes one",
            )
        return found.server

    async def _bootstrap(self) -> KubeClient:
        """The API with the credentials of the TLS bootstrap."""
        if self._kube is None:
            server = await self._discovered()
            self._kube = await self._stack.enter_async_context(api_over(self.node.host, server))
        return self._kube

    async def _administrator(self) -> KubeClient:
        """The API with this control plane's own `admin.conf`."""
        if self._admin is None:
            server = Server.from_kubeconfig(await read_kubeconfig(self.node.host, ADMIN_CONF))
            self._admin = await self._stack.enter_async_context(api_over(self.node.host, server))
        return self._admin

    async def _wanted(self) -> JoinDesired:
        """What the node must be, by the cluster's own configuration."""
        if self._desired is None:
            config = await self._config_map(stored.KUBEADM_CONFIG)
            self._desired = JoinDesired(self.settings, self.node, cluster_configuration(config))
        return self._desired

    async def _config_map(self, name: str) -> Object | None:
        """A ConfigMap of kube-system. The API server learns what a token may read a little late."""
        kube = await self._bootstrap()
        found: Object | None = None

        async def missing() -> str | None:
            nonlocal found
            try:
                found = await kube.get("v1", "ConfigMap", name, "kube-system")
            except ApiError as error:
                if error.status in (401, 403):
                    return error.message
                raise
            return None

        await wait_until(
            missing, f"{self.node.name}: ConfigMap kube-system/{name}, read with the credentials of the join",
            deadline=20,
            hint="has the control plane's initialisation ended? `kubewright init phase upload-config` writes it",
        )  # fmt: skip
        return found

    # -- phases ---------------------------------------------------------------------------------------------------

    async def preflight(self) -> None:
        """The host, then whether the cluster can take it."""
        join, node = self.settings.join, self.node
        await run_preflight(node, for_join(join), events=self.events, ignore=self._ignore, dry=self.dry)
        want = await self._wanted()
        if join.control_plane is None:
            return
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
        checks = for_join_control_plane(join, want.cluster, want.facts)
        await run_preflight(node, checks, events=self.events, ignore=self._ignore, dry=self.dry)

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
        want, host = await self._wanted(), self.node.host
        ca = pki.CA
        there = await host.stat_files([ca.cert_path(self._pki), ca.key_path(self._pki)], digest=False)
        pods = want.static_pods(
            ca_dirs=await ca_directories(host),
            external_ca=ca.cert_path(self._pki) in there and ca.key_path(self._pki) not in there,
        )
        await self.do(StaticPods(self.node, pods), "control-plane-prepare/control-plane")

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
            certificates_dir=want.cluster.certificates_dir, data_dir=want.etcd_data, pod=want.etcd_pod,
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

    # -- what they share ------------------------------------------------------------------------------------------

    @property
    def _pki(self) -> str:
        assert self._desired is not None
        return self._desired.cluster.certificates_dir

    def _for_control_plane(self) -> bool:
        return self.settings.is_control_plane

    async def _has_ca(self, want: JoinDesired) -> bool:
        path = pki.CA.cert_path(want.cluster.certificates_dir)
        return bool(await self.node.host.stat_files([path], digest=False))

    async def _authorities(self, want: JoinDesired) -> Authorities:
        """The cluster's authorities, which must be there: one of our own would be another cluster's."""
        await require_shared(self.node.host, want.cluster)
        found = Authorities(self.node, want.cluster.certificates_dir, pki.cluster_cas(want.cluster))
        for change in await found.look():
            raise HostError(
                f"{self.node.name}: {change.target} cannot be used: {', '.join(change.diff)}",
                host=self.node.name, exit_code=ExitCode.HOST_NOT_FIT,
                hint="copy it again from a control plane, with its key",
            )  # fmt: skip
        return found

    def _would(self, action: Action, *targets: str) -> None:
        self.changes += [Change(action, target, self.node.name) for target in targets]

    async def _no_admin_yet(self, action: Action, target: str) -> bool:
        """In a dry run before there is an `admin.conf`, the cluster cannot be asked: name what would be done."""
        if not self.dry or await self.node.host.stat_files([ADMIN_CONF], digest=False):
            return False
        self._would(action, target)
        return True
