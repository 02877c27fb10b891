"""Which of kubeadm's checks apply to a node command, and what a check finds.

The names and what they demand are those of kubeadm (cmd/kubeadm/app/preflight in Kubernetes 1.20 and newer);
`docs/preflight.md` lists them, with the few of our own. `model.node_checks` decides them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kubewright.errors import ConfigError, ExitCode
from kubewright.model.config.kubeadm_nodes import (
    InitConfiguration,
    JoinConfiguration,
    NodeRegistrationOptions,
)
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.model.kernel_modules import proxy_modules
from kubewright.model.node import is_address, split_endpoint
from kubewright.model.versions import VersionFacts, image_references

MANIFESTS = "/etc/kubernetes/manifests"
KUBELET_CONF = "/etc/kubernetes/kubelet.conf"
BOOTSTRAP_CONF = "/etc/kubernetes/bootstrap-kubelet.conf"
STATIC_PODS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")

KUBELET_PORT, SCHEDULER_PORT, CONTROLLER_MANAGER_PORT = 10250, 10259, 10257
ETCD_PORTS = (2379, 2380)

BRIDGE_FILTER = "/proc/sys/net/bridge/bridge-nf-call-iptables"
BRIDGE_FILTER_6 = "/proc/sys/net/bridge/bridge-nf-call-ip6tables"
FORWARD = "/proc/sys/net/ipv4/ip_forward"
FORWARD_6 = "/proc/sys/net/ipv6/conf/default/forwarding"


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """What one check found. An error stops the command unless its name is ignored."""

    check: str
    """kubeadm's name, such as `Port-6443`; what `--ignore-preflight-errors` takes."""
    message: str
    hint: str = ""
    error: bool = True
    details: tuple[str, ...] = ()
    """Further lines of evidence, such as a log's, which are shown below an error."""

    def __str__(self) -> str:
        mend = f" ({self.hint})" if self.hint else ""
        return f"[{'ERROR' if self.error else 'WARNING'} {self.check}]: {self.message}{mend}"


@dataclass(frozen=True, slots=True)
class ExternalEtcd:
    """An external etcd whose version is asked for: its endpoints, and the files that lead to it."""

    endpoints: tuple[str, ...]
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


@dataclass(frozen=True, slots=True)
class NodeChecks:
    """Which checks apply. Made by `for_init` and its sisters; what is empty is not checked."""

    command: str
    node_name: str = ""
    machine: bool = False
    """Whether the host must be fit for a kubelet: programs, kernel, runtime, swap, kubelet's version and port."""
    control_plane: bool = False
    """Whether it must be fit for a control plane, too: processors and memory."""
    member: bool = False
    """Whether it is known to be a node of the very cluster that it is to join."""
    facts: VersionFacts | None = None
    """Of the version to be, or else of the installed kubelet."""
    version_is_chosen: bool = True
    """Whether `facts` are of a control plane that the kubelet must fit, rather than of the kubelet itself."""
    system: bool = False
    """Whether SystemVerification applies."""
    cri_socket: str = ""
    fail_swap_on: bool = True
    ports: tuple[int, ...] = ()
    absent_files: tuple[str, ...] = ()
    empty_directories: tuple[str, ...] = ()
    existing_files: tuple[tuple[str, str], ...] = ()
    """Paths and the check's name for each."""
    settings: tuple[str, ...] = ()
    """Files below /proc/sys that must hold 1."""
    modules: Mapping[str, str] = field(default_factory=dict)
    """Modules of the kernel that are looked for, with the kernel's option for each."""
    ipvs: tuple[str, ...] = ()
    """Of these, what kube-proxy's mode ipvs needs (P17)."""
    proxy_hosts: tuple[str, ...] = ()
    proxy_subnets: tuple[str, ...] = ()
    advertise_address: str = ""
    address_is_chosen: bool = True
    """Whether the user named the advertise address; otherwise several candidates are warned of (P08)."""
    subnets: tuple[tuple[str, str], ...] = ()
    """Names and CIDRs of the cluster's networks, which must not overlap the host's own (P32)."""
    etcd: ExternalEtcd | None = None
    images: tuple[str, ...] = ()
    """What a control plane runs, pulled after all other checks have passed."""
    pull_policy: str = "IfNotPresent"
    pull_one_by_one: bool = True

    @property
    def paths(self) -> list[str]:
        """All paths that are looked at."""
        existing = [path for path, _ in self.existing_files]
        return [*self.absent_files, *self.empty_directories, *existing]

    @property
    def firewall_ports(self) -> list[int]:
        """The ports that other nodes must reach."""
        return [port for port in self.ports if port not in (SCHEDULER_PORT, CONTROLLER_MANAGER_PORT)]


def ignored_checks(flag: Collection[str], configured: Collection[str] = ()) -> frozenset[str]:
    """Names of checks whose errors are warnings, in lower case: those of the flag and of the configuration.

    Raises `ConfigError` (USAGE) for `all` beside others, as kubeadm does.
    """
    names = frozenset(name.strip().lower() for name in (*flag, *configured) if name.strip())
    if "all" in names and len(names) > 1:
        raise ConfigError(
            "--ignore-preflight-errors: 'all' and single checks cannot be combined",
            hint=f"leave out all, or these: {', '.join(sorted(names - {'all'}))}", exit_code=ExitCode.USAGE,
        )  # fmt: skip
    return names


def judged(findings: Sequence[CheckFinding], ignored: Collection[str]) -> list[CheckFinding]:
    """The findings, with errors of ignored checks made warnings."""
    return [
        replace(one, error=False) if one.error and ("all" in ignored or one.check.lower() in ignored) else one
        for one in findings
    ]


def not_root() -> CheckFinding:
    """IsPrivilegedUser, which is asked alone and first: without root nothing else can be found out."""
    return CheckFinding("IsPrivilegedUser", "not running as root", "run it as root, or with sudo")


def for_reset(*, node_name: str = "") -> NodeChecks:
    """`reset` only needs root."""
    return NodeChecks("reset", node_name)


def for_upgrade(
    facts: VersionFacts,
    cluster: ClusterConfiguration | None,
    registration: NodeRegistrationOptions,
    *,
    pull_policy: str = "IfNotPresent",
    pull_one_by_one: bool = True,
    with_dns: bool = True,
) -> NodeChecks:
    """`upgrade apply` and `upgrade node`; `cluster` where the node is a control plane, whose images are pulled.

    `with_dns` says whether CoreDNS' is one of them. kubeadm checks the system again from 1.30 on.
    """
    images = image_references(cluster, facts) if cluster is not None else {}
    return NodeChecks(
        "upgrade", registration.name, system=True, facts=facts, cri_socket=registration.cri_socket,
        images=tuple(image for name, image in images.items() if with_dns or name != "coredns"),
        pull_policy=pull_policy, pull_one_by_one=pull_one_by_one,
    )  # fmt: skip


def for_init(
    init: InitConfiguration,
    cluster: ClusterConfiguration,
    facts: VersionFacts,
    *,
    kube_proxy: Mapping[str, Any],
    fail_swap_on: bool = True,
    address_is_chosen: bool = True,
) -> NodeChecks:
    """`init`. All defaults of the configuration must have been filled in: the node's name, socket and address.

    `kube_proxy` is the user's KubeProxyConfiguration, empty where there is none.
    """
    registration = init.node_registration
    address = init.local_api_endpoint.advertise_address
    checks = _control_plane(cluster, facts, registration, address, init.local_api_endpoint.bind_port)
    external = cluster.etcd.external
    modules = {} if cluster.proxy.disabled else proxy_modules(kube_proxy)
    return replace(
        checks,
        command="init",
        node_name=registration.name,
        machine=True,
        system=True,
        cri_socket=registration.cri_socket,
        fail_swap_on=fail_swap_on,
        ports=(*checks.ports, KUBELET_PORT),
        settings=_settings(facts, [address, cluster.networking.service_subnet, cluster.networking.pod_subnet]),
        modules=modules,
        ipvs=tuple(modules),
        existing_files=_etcd_files(cluster),
        address_is_chosen=address_is_chosen,
        subnets=(
            ("podSubnet", cluster.networking.pod_subnet),
            ("serviceSubnet", cluster.networking.service_subnet),
        ),
        etcd=ExternalEtcd(
            tuple(external.endpoints), external.ca_file, external.cert_file, external.key_file
        ) if external is not None else None,
    )  # fmt: skip


def for_join(
    join: JoinConfiguration, *, facts: VersionFacts | None = None, fail_swap_on: bool = True
) -> NodeChecks:
    """`join`, of a worker or a control plane, before the cluster is asked anything.

    `facts` are those of the kubelet on the host where the cluster's version is not known yet. A control plane has
    further checks, `for_join_control_plane`, once the cluster's configuration is known. kube-proxy's mode is in a
    ConfigMap that no join reads, so that modules are not asked for.
    """
    registration = join.node_registration
    token = join.discovery.bootstrap_token
    server = split_endpoint(token.api_server_endpoint)[0] if token and token.api_server_endpoint else ""
    free = [KUBELET_CONF, BOOTSTRAP_CONF, *([join.ca_cert_path] if join.control_plane is None else [])]
    return NodeChecks(
        "join", registration.name, machine=True, system=True, facts=facts, version_is_chosen=False,
        cri_socket=registration.cri_socket, fail_swap_on=fail_swap_on, ports=(KUBELET_PORT,),
        absent_files=tuple(free), empty_directories=(MANIFESTS,),
        settings=_settings(facts, [server] if is_address(server) else ["0.0.0.0"]),  # noqa: S104
        proxy_hosts=(server,) if server else (),
    )  # fmt: skip


def for_join_control_plane(
    join: JoinConfiguration, cluster: ClusterConfiguration, facts: VersionFacts
) -> NodeChecks:
    """What a joining control plane needs beyond `for_join`, by the cluster's own configuration."""
    assert join.control_plane is not None
    endpoint = join.control_plane.local_api_endpoint
    checks = _control_plane(
        cluster, facts, join.node_registration, endpoint.advertise_address, endpoint.bind_port
    )
    downloads = join.control_plane.certificate_key is not None
    return replace(
        checks, command="join", node_name=join.node_registration.name,
        existing_files=() if downloads else _etcd_files(cluster),
    )  # fmt: skip


def for_facts(checks: NodeChecks, facts: VersionFacts) -> NodeChecks:
    """Checks that were made before the version was known, for that version."""
    settings = checks.settings
    if not facts.bridge_filter_checked:
        settings = tuple(path for path in settings if path not in (BRIDGE_FILTER, BRIDGE_FILTER_6))
    return replace(checks, facts=facts, settings=settings)


def _control_plane(
    cluster: ClusterConfiguration,
    facts: VersionFacts,
    registration: NodeRegistrationOptions,
    address: str,
    port: int,
) -> NodeChecks:
    """What `init` and a control plane's `join` have in common."""
    local = cluster.etcd.local
    return NodeChecks(
        "",
        control_plane=True,
        facts=facts,
        cri_socket=registration.cri_socket,
        ports=(port, SCHEDULER_PORT, CONTROLLER_MANAGER_PORT, *(ETCD_PORTS if local is not None else ())),
        absent_files=tuple(f"{MANIFESTS}/{name}.yaml" for name in STATIC_PODS),
        # P02: where etcd is elsewhere, its ports and directory here are nobody's business.
        empty_directories=(local.data_dir,) if local is not None else (),
        proxy_hosts=(address,) if address else (),
        proxy_subnets=tuple(
            filter(None, f"{cluster.networking.service_subnet},{cluster.networking.pod_subnet}".split(","))
        ),
        advertise_address=address,
        images=_images(cluster, facts),
        pull_policy=registration.image_pull_policy,
        pull_one_by_one=registration.image_pull_serial,
    )


def _images(cluster: ClusterConfiguration, facts: VersionFacts) -> tuple[str, ...]:
    return tuple(image_references(cluster, facts).values())


def _etcd_files(cluster: ClusterConfiguration) -> tuple[tuple[str, str], ...]:
    etcd = cluster.etcd.external
    paths = (etcd.ca_file, etcd.cert_file, etcd.key_file) if etcd is not None else ()
    return tuple((path, "ExternalEtcdClientCertificates") for path in paths if path)


def _settings(facts: VersionFacts | None, addresses: Sequence[str]) -> tuple[str, ...]:
    """The kernel's settings for the families of these addresses and subnets (lists with commas)."""
    texts = [part for text in addresses for part in text.split(",") if part]
    four, six = any(":" not in text for text in texts), any(":" in text for text in texts)
    bridge = facts is None or facts.bridge_filter_checked
    paths = []
    if four:
        paths += [*([BRIDGE_FILTER] if bridge else []), FORWARD]
    if six:
        paths += [*([BRIDGE_FILTER_6] if bridge else []), FORWARD_6]
    return tuple(paths)
