"""`upgrade apply` and `upgrade node`: a control plane's programs one after the other, and what goes with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kubewright.clients.kube import KubeClient
from kubewright.errors import ConfigError, ExitCode, KubewrightError
from kubewright.events import Events
from kubewright.model import addons, rbac, stored
from kubewright.model import upgrade as model
from kubewright.model.cert_settings import of_configuration
from kubewright.model.config.duration import parse_duration
from kubewright.model.config.kubeadm_nodes import (
    InitConfiguration,
    LocalAPIEndpoint,
    NodeRegistrationOptions,
    Timeouts,
)
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.model.manifests import ETCD
from kubewright.model.node_preflight import CheckFinding, for_upgrade
from kubewright.model.objects import SYSTEM, Object
from kubewright.model.patches import Patch
from kubewright.model.reset import etcd_data_dir
from kubewright.model.upgrade import CONTROL_PLANE, ClusterState
from kubewright.model.version import Version
from kubewright.model.versions import VersionFacts, facts_for
from kubewright.phases.etcd import EtcdHealthy
from kubewright.phases.installed import Installed, read_installed, runtime_socket
from kubewright.phases.kubelet_config import KubeletConfig
from kubewright.phases.node import Node
from kubewright.phases.objects import Objects
from kubewright.phases.phase import Action, Change
from kubewright.phases.renewal import RenewCertificates
from kubewright.phases.serving import not_serving, own_server
from kubewright.phases.upgrade_pod import BACKUPS, UpgradePod
from kubewright.workflows.init import Init
from kubewright.workflows.init_settings import InitSettings
from kubewright.workflows.join_desired import cluster_configuration
from kubewright.workflows.preflight import run_preflight
from kubewright.workflows.tree import StepRun, run_steps
from kubewright.workflows.upgrade_pods import wanted_pods
from kubewright.workflows.upgrade_state import (
    KUBE_PROXY,
    coredns_tag,
    read_manifests,
    read_state,
    require_control_plane,
    stored_component,
)
from kubewright.workflows.upgrade_tree import NODE


@dataclass(frozen=True, slots=True)
class UpgradeOptions:
    """What the user said."""

    prerelease: bool = False
    candidates: bool = False
    force: bool = False
    etcd: bool = True
    renew: bool = True
    patches: tuple[Patch, ...] = ()
    ignore: frozenset[str] = frozenset()
    kubeconfig: str = ""
    """On the host, for what `init`'s phases do."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    pull_policy: str = "IfNotPresent"
    pull_one_by_one: bool = True


@dataclass
class UpgradeOutcome:
    """What a run did, or would do."""

    version: str
    changes: list[Change] = field(default_factory=list)
    backup: str = ""
    """Where the manifests that were replaced are kept; empty where none was."""


class UpgradeRun(StepRun):
    """One run on one host."""

    def __init__(
        self, node: Node, kube: KubeClient, options: UpgradeOptions, events: Events, *, dry: bool = False
    ) -> None:
        super().__init__(events, dry=dry)
        self.node = node
        self.kube = kube
        self.options = options
        self.installed: Installed
        self.cluster: ClusterConfiguration
        self.facts: VersionFacts
        self.before: dict[str, dict[str, Any]] = {}
        self.after: dict[str, Object] = {}
        self.backup = f"{BACKUPS}{datetime.now(UTC):%Y-%m-%d-%H-%M-%S}"
        self._socket = ""
        self._dns = True

    async def begin(self, cluster: ClusterConfiguration) -> None:
        """Look at the node; `cluster` is at the version that is to be."""
        self.cluster, self.facts = cluster, facts_for(cluster.kubernetes_version)
        self.installed = await read_installed(self.node.host)
        self._socket = await runtime_socket(self.node.host, "", self.installed)
        if self.installed.is_control_plane:
            self.before = await read_manifests(self.node.host)
            require_control_plane(self.node.host, self.before)
            self.after = await wanted_pods(self.node, cluster, self.before, self.options.patches)
            dns = await self.kube.list("apps/v1", "Deployment", SYSTEM, labels="k8s-app=kube-dns")
            self._dns = bool(coredns_tag(dns))

    async def preflight(self, also: Sequence[CheckFinding] = ()) -> None:
        """The checks, and the images that will be needed."""
        options = self.options
        registration = NodeRegistrationOptions(name=self.node.name, cri_socket=self._socket)
        checks = for_upgrade(
            self.facts, self.cluster if self.after else None, registration,
            pull_policy=options.pull_policy, pull_one_by_one=options.pull_one_by_one, with_dns=self._dns,
        )  # fmt: skip
        await run_preflight(
            self.node, checks, events=self.events, ignore=options.ignore, dry=self.dry, also=also
        )

    async def control_plane(self) -> None:
        """etcd, then the API server, then the controllers: each is up again before the next is touched."""
        if not self.after:
            return
        settings = of_configuration(self.cluster)
        changed = False
        for name in (ETCD, *CONTROL_PLANE):
            if name not in self.after or (name == ETCD and not self._etcd_goes_along()):
                continue
            phase = self._pod_phase(name, settings)
            if name == ETCD and _replaced(await phase.look()):
                await self.do(EtcdHealthy(self.node, self.kube, self.cluster.certificates_dir))
            if changes := await self.do(phase, f"upgrade/{name}"):
                changed = changed or _replaced(changes)
                if name == ETCD:
                    await self.do(EtcdHealthy(self.node, self.kube, self.cluster.certificates_dir))
        if not changed:
            self.backup = ""
        if self.options.renew:
            await self._renew_administrators(settings)

    def _pod_phase(self, name: str, settings: Any) -> UpgradePod:
        pod = self.after[name]
        url = model.control_plane_node(self.node.name, self.after[CONTROL_PLANE[0]]).url
        server = own_server(self.kube.server, url)

        async def healthy() -> str | None:
            return await not_serving(self.node.host, name, pod, server, self.cluster.certificates_dir)

        async def reported() -> Object | None:
            return await self.kube.get("v1", "Pod", f"{name}-{self.node.name}", SYSTEM)

        return UpgradePod(
            self.node, name, pod, cri_socket=self._socket, backup=self.backup, healthy=healthy, reported=reported,
            certificates=settings if self.options.renew else None,
            data_dir=etcd_data_dir(self.before.get(ETCD, {})) if name == ETCD else "",
            deadline=parse_duration(self.options.timeouts.upgrade_manifests) / 1e9,
        )  # fmt: skip

    def _etcd_goes_along(self) -> bool:
        """Whether etcd is to be touched: it was asked for, and is no step back."""
        if not self.options.etcd or ETCD not in self.before:
            return False
        old, new = (_tag(pods[ETCD]) for pods in (self.before, self.after))
        if old and new and _older(new, old):
            self.events.warn(f"etcd stays at {old}: {new} is older", host=self.node.name)
            return False
        return True

    async def _renew_administrators(self, settings: Any) -> None:
        phase = RenewCertificates(self.node.host, settings, ["admin.conf", "super-admin.conf"])
        await self.do(phase, "upgrade/certificates")
        if phase.result.external:
            names = ", ".join(phase.result.external)
            self.events.warn(
                f"{names}: not renewed, for the key of their CA is not on this host", host=self.node.name
            )

    async def kubelet_config(self) -> None:
        """The kubelet's configuration on this node."""
        found = await stored_component(self.kube, self.facts.kubelet_config_map, "kubelet")
        await self.do(KubeletConfig(self.node, found.document, self.options.patches))


async def apply(
    node: Node,
    kube: KubeClient,
    version: str,
    options: UpgradeOptions,
    events: Events,
    *,
    state: ClusterState | None = None,
    dry: bool = False,
) -> UpgradeOutcome:
    """Bring the cluster to a version, on its first control plane; the others follow by `node`.

    Raises `KubewrightError` before anything is changed where the version is out of reach.
    """
    target = Version.parse(version, field="version")
    async with events.workflow("upgrade apply", f"upgrade to {target}") as activity:
        state = state or await read_state(node.host, kube)
        check_target(state, target, options, events)
        run = UpgradeRun(node, kube, options, events, dry=dry)
        await run.begin(model.for_version(state.cluster, target))
        require_control_plane(node.host, run.before)
        not_ready = [
            CheckFinding(
                "ControlPlaneNodesReady", f"not Ready: {', '.join(state.unready)}", "mend them first"
            )
        ]
        await run.preflight(not_ready if state.unready else ())
        await run.control_plane()
        await _in_the_cluster(run)
        activity.summary(f"the cluster is at {target}" if not dry else f"{len(run.changes)} changes")
        return UpgradeOutcome(str(target), run.changes, run.backup)


def check_target(state: ClusterState, target: Version, options: UpgradeOptions, events: Events) -> None:
    """Raise `ConfigError` where a cluster must not go to a version; with `force`, warn of what force overrides."""
    verdict = model.judge(state, target, prerelease=options.prerelease, candidates=options.candidates)
    if verdict.forbidden:
        raise ConfigError(
            f"version: {verdict.forbidden[0]}", exit_code=ExitCode.VERSION_UNAVAILABLE,
            hint=f"patch releases of v{state.version.series} can be applied; `upgrade plan` and `upgrade diff` "
            "show what any version brings",
        )  # fmt: skip
    if verdict.forceable and not options.force:
        raise ConfigError(
            f"version: {'; '.join(verdict.forceable)}", exit_code=ExitCode.VERSION_UNAVAILABLE,
            hint="--force goes on in spite of it",
        )  # fmt: skip
    for one in verdict.forceable:
        events.warn(one)


async def _in_the_cluster(run: UpgradeRun) -> None:
    """What `init` once wrote into the cluster, as the new version has it. Add-ons that were taken out stay out."""
    kube, facts = run.kube, run.facts
    kubelet = await stored_component(kube, facts.kubelet_config_map, "kubelet")
    proxy = await stored_component(kube, KUBE_PROXY, "config.conf")
    api_server = run.before[CONTROL_PLANE[0]]
    own = model.control_plane_node(run.node.name, api_server)
    settings = InitSettings(
        InitConfiguration(
            node_registration=NodeRegistrationOptions(
                name=run.node.name, cri_socket=facts.cri_endpoint(run.installed.cri_socket)
            ),
            local_api_endpoint=LocalAPIEndpoint(
                advertise_address=own.advertise_address, bind_port=own.bind_port
            ),
        ),
        run.cluster,
        facts,
        kubelet.document if kubelet.by_user else {},
        proxy.document if proxy.by_user else {},
        run.options.patches,
        kubeconfig=run.options.kubeconfig,
        proxy_env=model.proxy_environment(api_server),
        cgroup_driver=kubelet.document.get("cgroupDriver") or "",
    )
    async with Init(run.node, settings, run.events, dry=run.dry, alone=True) as init:
        await init.upload_kubeadm()
        await init.upload_kubelet()
        await run.kubelet_config()
        readers = stored.cluster_info("", b"")[1:]
        joining = [*rbac.node_bootstrap(facts), *readers]
        await init.do(Objects(kube, joining, "bootstrap-token", "let nodes join"))
        live = await kube.list("apps/v1", "Deployment", SYSTEM, labels="k8s-app=kube-dns")
        if coredns_tag(live):
            await init.coredns()
        else:
            what = "another program than CoreDNS" if live else "not there"
            run.events.warn(f"cluster DNS is {what}, and stays as it is")
        if await kube.get("apps/v1", "DaemonSet", addons.KUBE_PROXY, SYSTEM) is not None:
            await init.kube_proxy()
        else:
            run.events.warn("kube-proxy is not there, and is not deployed")
        run.changes += init.changes


async def node(
    target: Node,
    kube: KubeClient,
    options: UpgradeOptions,
    events: Events,
    *,
    skip: Collection[str] = (),
    only: str = "",
    dry: bool = False,
) -> UpgradeOutcome:
    """Bring one node to the version that the cluster has. A worker only gets its kubelet's configuration."""
    async with events.workflow("upgrade node", f"upgrade {target.name}") as activity:
        cluster = cluster_configuration(await kube.get("v1", "ConfigMap", stored.KUBEADM_CONFIG, SYSTEM))
        run = UpgradeRun(target, kube, options, events, dry=dry)
        await run.begin(cluster)
        if run.before:
            _same_series(run.before, cluster)
        await run_steps(NODE, run, skip, only=only)
        count = len(run.changes)
        activity.summary(f"{target.name}: {count} {'change' if count == 1 else 'changes'}")
        return UpgradeOutcome(cluster.kubernetes_version, run.changes, run.backup)


def _same_series(before: Mapping[str, Mapping[str, Any]], cluster: ClusterConfiguration) -> None:
    """Raise `KubewrightError` where this control plane would go to another minor version: not yet."""
    try:
        now = Version.parse(_tag(before[CONTROL_PLANE[0]]).replace("_", "+"), field="kube-apiserver's image")
    except ConfigError:
        return
    if now.series != Version.parse(cluster.kubernetes_version).series:
        raise KubewrightError(
            f"this control plane is at {now}, the cluster at {cluster.kubernetes_version}: another minor version "
            "cannot be gone to yet", exit_code=ExitCode.VERSION_UNAVAILABLE,
            hint="`upgrade diff` shows what it brings; kubeadm of the cluster's version can do it",
        )  # fmt: skip


def _replaced(changes: Sequence[Change]) -> bool:
    """Whether a manifest is replaced, rather than its program only waited for."""
    return any(change.action is not Action.RUN for change in changes)


def _tag(pod: Mapping[str, Any]) -> str:
    containers = (pod.get("spec") or {}).get("containers") or [{}]
    return model.tag_of(str(containers[0].get("image", "")))


def _older(one: str, other: str) -> bool:
    """Whether one tag of etcd's image is older than another; tags that are no versions are not compared."""
    try:
        return Version.parse(one.partition("-")[0]) < Version.parse(other.partition("-")[0])
    except ConfigError:
        return False
