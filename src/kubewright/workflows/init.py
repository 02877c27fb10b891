"""`init`: one host becomes a cluster's first control plane, phase by phase as with kubeadm."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from kubewright.errors import ConfigError, ExitCode
from kubewright.events import Events
from kubewright.model import addons, copy_certs, kubeconfig, manifests, pki, rbac, x509
from kubewright.model.config.conversion import not_kept
from kubewright.model.config.duration import parse_duration
from kubewright.model.config.yamltext import render_path
from kubewright.model.node_preflight import for_init
from kubewright.model.objects import SYSTEM
from kubewright.phases.controlplane import ApiServerUp, DataDirectory, StaticPods, ca_directories
from kubewright.phases.kubeconfigs import Kubeconfigs
from kubewright.phases.kubelet import Kubelet
from kubewright.phases.kubelet_finalize import KubeletFinalize, StaticPodsReported
from kubewright.phases.node import Node
from kubewright.phases.objects import Objects, created
from kubewright.phases.phase import Change
from kubewright.phases.pki import Authorities, Certificates
from kubewright.phases.requests import GenerateRequests
from kubewright.phases.upload_certs import UploadCerts
from kubewright.secret import Secret
from kubewright.workflows.init_run import InitRun
from kubewright.workflows.init_settings import InitSettings
from kubewright.workflows.init_tree import INIT
from kubewright.workflows.leftovers import without_own
from kubewright.workflows.preflight import run_preflight
from kubewright.workflows.tree import run_steps

_KUBECONFIG_FILES = {
    "admin": (kubeconfig.ADMIN, kubeconfig.SUPER_ADMIN),
    "kubelet": (kubeconfig.KUBELET,),
    "controller-manager": (kubeconfig.CONTROLLER_MANAGER,),
    "scheduler": (kubeconfig.SCHEDULER,),
}
_POD_STEPS = {
    manifests.API_SERVER: "control-plane/apiserver",
    manifests.CONTROLLER: "control-plane/controller-manager",
    manifests.SCHEDULER_POD: "control-plane/scheduler",
    manifests.ETCD: "etcd/local",
}


@dataclass
class InitOutcome:
    """What a run did, or would do, and what nodes need to join."""

    changes: list[Change] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    """The paths of the phases that were run."""
    endpoint: str = ""
    tokens: list[Secret[str]] = field(default_factory=list)
    ca_hash: str = ""
    certificate_key: Secret[str] | None = None
    """Set where certificates were uploaded under it."""
    has_endpoint: bool = False
    """Whether further control planes can join: a controlPlaneEndpoint is set."""


async def init(
    node: Node,
    settings: InitSettings,
    events: Events,
    *,
    dry: bool = False,
    only: str = "",
    skip: Collection[str] = (),
    ignore: Collection[str] = (),
) -> InitOutcome:
    """Run the phases of `init` on a host: all but `skip`, or the one at the path `only` and what is below it.

    `ignore` is `ignored_checks(...)`. With `dry` nothing is changed; the outcome tells what would be. Raises
    `KubewrightError`.
    """
    title = f"{'look at' if dry else 'make'} {node.name}, Kubernetes {settings.cluster.kubernetes_version}"
    async with events.workflow("init", title) as activity:
        run = Init(node, settings, events, dry=dry, ignore=ignore, alone=bool(only))
        async with run:
            await run.begin()
            ran = await run_steps(INIT, run, skip, only=only)
            outcome = await run.outcome(ran)
        count = len(outcome.changes)
        activity.summary(f"{node.name}: {count} {'change' if count == 1 else 'changes'}")
        return outcome


class Init(InitRun):
    """One run: each method is what one phase of `workflows.init_tree` does."""

    async def outcome(self, ran: Sequence[str]) -> InitOutcome:
        """What was done, and what is needed to join."""
        cluster = self._settings.cluster
        ca = await self._node.host.read_file(pki.CA.cert_path(cluster.certificates_dir))
        return InitOutcome(
            self.changes,
            list(ran),
            self._want.endpoint,
            [one.text for one in self._want.tokens()] if "bootstrap-token" in ran else [],
            x509.ca_hash(ca) if ca else "",
            self._certificate_key,
            bool(cluster.control_plane_endpoint),
        )

    # -- the host -------------------------------------------------------------------------------------------------

    async def preflight(self) -> None:
        """Refuse a host that is not fit, and pull images."""
        settings = self._settings
        checks = for_init(
            settings.init, settings.cluster, settings.facts, kube_proxy=settings.kube_proxy,
            fail_swap_on=settings.kubelet.get("failSwapOn") is not False,
            address_is_chosen=settings.address_is_chosen,
        )  # fmt: skip
        ca_dirs = await ca_directories(self._node.host)
        external = pki.CA.name in self._external.names
        pods = {
            name: self._want.static_pod(name, ca_dirs=ca_dirs, external_ca=external) for name in _POD_STEPS
        }
        checks = await without_own(
            self._node, checks, {name: pod for name, pod in pods.items() if pod is not None},
            settings.init.local_api_endpoint.bind_port,
        )  # fmt: skip
        await run_preflight(self._node, checks, events=self.events, ignore=self._ignore, dry=self.dry)

    async def authority(self, name: str) -> None:
        """Make one authority, unless it is the user's own and signs elsewhere."""
        spec = self._want.certificates.get(name)
        if spec is None or name in self._external.names:
            return
        certs = Authorities(self._node, self._directory, [spec], etcd_data=self._want.etcd_data)
        await self.do(certs, f"certs/{name}")
        self._authorities[name] = certs

    async def certificate(self, name: str) -> None:
        """Make one certificate, or a request for it."""
        spec = self._want.certificates.get(name)
        if spec is not None and (directory := self._settings.csr_dir):
            await self.do(
                GenerateRequests(self._node.host, [spec], [], directory=directory, kubeconfig_dir=""),
                f"certs/{name}",
            )
            return
        if spec is None or spec.ca in self._external.names:
            return
        await self.do(
            Certificates(self._node, self._directory, [spec], authorities=await self._signer(spec.ca)),
            f"certs/{name}",
        )

    async def service_account(self) -> None:
        """Make the keys that sign service accounts' tokens."""
        await self.do(
            Certificates(
                self._node, self._directory, [], service_account=pki.key_kind(self._settings.cluster),
                etcd_data=self._want.etcd_data,
            ),
            "certs/sa",
        )  # fmt: skip

    async def kubeconfig(self, name: str) -> None:
        """Write the kubeconfigs of one step; those of an external CA's user are there already."""
        if pki.CA.name in self._external.names:
            return
        known = self._want.kubeconfigs
        specs = [known[file] for file in _KUBECONFIG_FILES[name] if file in known]
        await self.do(
            Kubeconfigs(
                self._node, specs, await self._signer(pki.CA.name),
                directory=self._settings.kubeconfig_dir, embedded=self._alone,
            ),
            f"kubeconfig/{name}",
        )  # fmt: skip

    async def kubelet_start(self) -> None:
        """Configure the kubelet and start it."""
        await self.do(Kubelet(self._node, self._want.kubelet_files(), enable=False))

    async def static_pod(self, name: str) -> None:
        """Write one static Pod."""
        pod = self._want.static_pod(
            name,
            ca_dirs=await ca_directories(self._node.host),
            external_ca=pki.CA.name in self._external.names,
        )
        if pod is not None:
            step = _POD_STEPS[name]
            await self.do(StaticPods(self._node, {name: pod}, step))

    async def etcd_local(self) -> None:
        """Write the local etcd's static Pod; nothing where etcd is elsewhere."""
        if self._want.etcd_data:
            await self.do(DataDirectory(self._node, self._want.etcd_data), "etcd/local")
            await self.static_pod(manifests.ETCD)

    async def kubelet_finalize(self) -> None:
        """Point the kubelet at its own certificate."""
        flags = self._settings.init.node_registration.kubelet_extra_args
        directory = flags.get("cert-dir") or kubeconfig.KUBELET_PKI_DIR
        step = "kubelet-finalize/experimental-cert-rotation"
        changes = await self.do(KubeletFinalize(self._node, directory=directory), step)
        if changes or self.dry or self._alone:
            return
        kube = await self._api()
        assert kube is not None  # only a dry run does without
        await self.do(StaticPodsReported(self._node, kube), step)

    # -- the cluster ----------------------------------------------------------------------------------------------

    async def wait_control_plane(self) -> None:
        """Wait until the API server answers, and give admin.conf its rights where it has none by itself."""
        administrators = rbac.cluster_admins() if self._settings.facts.super_admin else []
        if self.dry:
            self.changes += map(created, administrators)
            return
        kube = await self._first_api()
        timeout = parse_duration(self._settings.init.timeouts.control_plane_component_health_check) / 1e9
        await self.do(ApiServerUp(self._node, kube, timeout))
        if administrators:
            title = "give admin.conf its rights"
            await self.do(Objects(kube, administrators, "wait-control-plane", title))

    async def upload_kubeadm(self) -> None:
        """Keep the ClusterConfiguration in the cluster."""
        others = await self._other_endpoints()
        for finding in not_kept(self._settings.cluster):
            self.events.warn(
                f"kubeadm-config keeps no {render_path(finding.path)} in Kubernetes "
                f"{self._settings.facts.version.series}: {finding.problem}"
            )
        await self._objects(
            self._want.kubeadm_config(others), "upload-config/kubeadm", "keep the ClusterConfiguration"
        )

    async def upload_kubelet(self) -> None:
        """Keep the kubelets' configuration in the cluster, and say on the Node which runtime it has."""
        step = "upload-config/kubelet"
        await self._objects(self._want.kubelet_config_map(), step, "keep the kubelets' configuration")
        await self._mark(step, cri_socket=self._want.cri_socket_annotation)

    async def upload_certs(self) -> None:
        """Upload the shared certificates, if that is wanted."""
        if not self._settings.upload_certs:
            if self._alone:
                raise ConfigError(
                    "upload-certs: nothing is uploaded without --upload-certs",
                    hint="it puts keys into the cluster, encrypted: say --upload-certs",
                    exit_code=ExitCode.USAGE,
                )
            return
        key = self._settings.init.certificate_key or copy_certs.new_certificate_key()
        await self.do(UploadCerts(await self._api(), self._node, self._settings.cluster, key))
        self._certificate_key = key

    async def mark_control_plane(self) -> None:
        """Label and taint the Node."""
        await self._mark("mark-control-plane", labels=self._want.labels(), taints=self._want.taints())

    async def bootstrap_token(self) -> None:
        """Make tokens, and let nodes join."""
        ca = await self._node.host.read_file(pki.CA.cert_path(self._directory)) or b""
        await self._objects(self._want.joining(ca), "bootstrap-token", "let nodes join")

    async def coredns(self) -> None:
        """Deploy cluster DNS. The replicas and the Corefile of one that is there are the user's."""
        if self._settings.cluster.dns.disabled:
            return
        kube = await self._api()
        replicas, corefile = 2, ""
        if kube is not None:
            live = await kube.get("apps/v1", "Deployment", addons.COREDNS, SYSTEM) or {}
            replicas = (live.get("spec") or {}).get("replicas") or replicas
            config = await kube.get("v1", "ConfigMap", addons.COREDNS, SYSTEM) or {}
            corefile = (config.get("data") or {}).get("Corefile", "")
        await self._objects(
            self._want.coredns(replicas=replicas, corefile=corefile), "addon/coredns", "deploy cluster DNS"
        )

    async def kube_proxy(self) -> None:
        """Deploy kube-proxy."""
        if not self._settings.cluster.proxy.disabled:
            await self._objects(self._want.kube_proxy(), "addon/kube-proxy", "deploy kube-proxy")
