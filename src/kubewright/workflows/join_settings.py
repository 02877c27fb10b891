"""What `join` is to do: its options or its configuration file, and what is not said, found on the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kubewright.clients.cri import find_socket
from kubewright.errors import ConfigError, ExitCode
from kubewright.model.config.documents import Documents
from kubewright.model.config.findings import Finding, raise_if_any
from kubewright.model.config.host_defaults import HostDefaults, endpoint_on
from kubewright.model.config.kinds import read_kind
from kubewright.model.config.kubeadm_checks import join_findings
from kubewright.model.config.kubeadm_nodes import Discovery, JoinConfiguration
from kubewright.model.config.yamltext import Path
from kubewright.model.discovery import require_pins
from kubewright.model.patches import Patch
from kubewright.phases.node import Node
from kubewright.workflows.patches import read_patches

ADMIN_CONF = "/etc/kubernetes/admin.conf"

_FIELDS: Mapping[str, Path] = {
    "node-name": ("nodeRegistration", "name"),
    "cri-socket": ("nodeRegistration", "criSocket"),
    "api-server-endpoint": ("discovery", "bootstrapToken", "apiServerEndpoint"),
    "discovery-token": ("discovery", "bootstrapToken", "token"),
    "discovery-token-ca-cert-hash": ("discovery", "bootstrapToken", "caCertHashes"),
    "discovery-token-unsafe-skip-ca-verification": (
        "discovery",
        "bootstrapToken",
        "unsafeSkipCAVerification",
    ),
    "discovery-file": ("discovery", "file", "kubeConfigPath"),
    "tls-bootstrap-token": ("discovery", "tlsBootstrapToken"),
    "apiserver-advertise-address": ("controlPlane", "localAPIEndpoint", "advertiseAddress"),
    "apiserver-bind-port": ("controlPlane", "localAPIEndpoint", "bindPort"),
    "certificate-key": ("controlPlane", "certificateKey"),
}
"""Which field of JoinConfiguration an option sets."""

_OF_CONTROL_PLANES = ("apiserver-advertise-address", "apiserver-bind-port", "certificate-key")
_BESIDE_A_FILE = frozenset({"node-name", "cri-socket", "patches", "experimental-patches"})


@dataclass(frozen=True, slots=True)
class JoinSettings:
    """Everything that `join` needs to know before the cluster is asked: the configuration is complete but for
    the taints, which the cluster's version decides."""

    join: JoinConfiguration
    patches: tuple[Patch, ...] = ()
    by_admin_conf: bool = False
    """Whether the cluster is known by the `admin.conf` that the host has already."""
    proxy_env: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_control_plane(self) -> bool:
        """Whether the node becomes a control plane."""
        return self.join.control_plane is not None


def configuration(said: Mapping[str, Any], documents: Documents | None) -> JoinConfiguration:
    """The JoinConfiguration of options or a file, as far as no host is needed; both exclude each other, as in
    kubeadm, but for a few options. What discovery must have is checked by `join_settings`. Raises `FindingsError`
    and `ConfigError`."""
    if documents is not None:
        return _of_file(said, documents)
    document: dict[str, Any] = {"discovery": {}}
    token = said.get("token")
    wanted = dict(said)
    if token:
        wanted = {"discovery-token": token, "tls-bootstrap-token": token} | wanted
    if not said.get("api-server-endpoint"):
        # As with kubeadm: without an address a token can only be that of the TLS bootstrap.
        wanted = {
            name: value
            for name, value in wanted.items()
            if _FIELDS.get(name, ())[:2] != ("discovery", "bootstrapToken")
        }
    elif "discovery-token" not in wanted:
        raise ConfigError(
            "--token: the cluster at an address is known by a token",
            hint="on a control plane, `kubewright token create --print-join-command` prints the whole command",
            exit_code=ExitCode.USAGE,
        )
    else:
        require_pins(
            said.get("discovery-token-ca-cert-hash", ()),
            unsafe_skip_ca_verification="discovery-token-unsafe-skip-ca-verification" in said,
        )
    if said.get("control-plane"):
        document["controlPlane"] = {}
    else:
        wanted = {name: value for name, value in wanted.items() if name not in _OF_CONTROL_PLANES}
    for option, path in _FIELDS.items():
        if option in wanted:
            place = document
            for part in path[:-1]:
                place = place.setdefault(str(part), {})
            place[str(path[-1])] = wanted[option]
    model, findings = read_kind(document, JoinConfiguration)
    raise_if_any([_by_option(finding) for finding in findings])
    assert model is not None
    tls = model.discovery.tls_bootstrap_token
    if tls is None and model.discovery.bootstrap_token is not None:
        model = _with(model, tls_bootstrap_token=model.discovery.bootstrap_token.token)
    if model.discovery.file is not None:
        path_or_url = model.discovery.file.kube_config_path.removeprefix("file://")
        model = _with(model, file=model.discovery.file.model_copy(update={"kube_config_path": path_or_url}))
    return model


def _with(model: JoinConfiguration, **update: Any) -> JoinConfiguration:
    return model.model_copy(update={"discovery": model.discovery.model_copy(update=update)})


def ignored_options(said: Mapping[str, Any]) -> list[str]:
    """Options of a control plane that say nothing because --control-plane is missing."""
    return [] if said.get("control-plane") else [f"--{name}" for name in _OF_CONTROL_PLANES if name in said]


def _of_file(said: Mapping[str, Any], documents: Documents) -> JoinConfiguration:
    mixed = sorted(
        f"--{name}" if name != "api-server-endpoint" else "the API server's address"
        for name in said
        if name not in _BESIDE_A_FILE and not name.startswith("skip-")
    )
    if mixed:
        raise ConfigError(
            f"--config and {', '.join(mixed)} exclude each other",
            hint="say it in the file; an option beside it would be overlooked", exit_code=ExitCode.USAGE,
        )  # fmt: skip
    join = documents.join
    if join is None:
        raise ConfigError(
            "--config: the file holds no JoinConfiguration",
            hint="`kubewright config print join-defaults` prints one to begin with",
        )
    update = {
        attribute: said[name]
        for name, attribute in (("node-name", "name"), ("cri-socket", "cri_socket"))
        if said.get(name)
    }
    return join.model_copy(update={"node_registration": join.node_registration.model_copy(update=update)})


async def join_settings(
    node: Node,
    join: JoinConfiguration,
    said: Mapping[str, Any],
    *,
    discovers: bool,
    proxy_env: Mapping[str, str] | None = None,
) -> JoinSettings:
    """Complete a JoinConfiguration for its host.

    A control plane that has an `admin.conf` already knows its cluster by that; so does a phase that is not told
    how to find it (`discovers` is False). Raises `FindingsError`, `ConfigError` and `HostError`.
    """
    has_admin = bool(await node.host.stat_files([ADMIN_CONF], digest=False))
    by_admin_conf = has_admin and (join.control_plane is not None or not discovers)
    if not by_admin_conf:
        if not discovers:
            raise ConfigError(
                f"{node.name}: there is no {ADMIN_CONF}, by which this phase reaches the cluster",
                hint="the phase control-plane-prepare writes it", exit_code=ExitCode.HOST_NOT_FIT,
            )  # fmt: skip
        _require_discovery(join)
    registration = join.node_registration.model_copy(
        update={
            "name": node.name,
            "cri_socket": join.node_registration.cri_socket or await find_socket(node.host),
        }
    )
    update: dict[str, Any] = {"node_registration": registration}
    if join.control_plane is not None:
        here = HostDefaults(node.facts.hostname, node.ip)
        endpoint = endpoint_on(join.control_plane.local_api_endpoint, here)
        update["control_plane"] = join.control_plane.model_copy(update={"local_api_endpoint": endpoint})
    directory = said.get("patches") or said.get("experimental-patches") or join.patches.directory
    return JoinSettings(
        join.model_copy(update=update), read_patches(directory), by_admin_conf, proxy_env or {}
    )


def _require_discovery(join: JoinConfiguration) -> None:
    if join.discovery == Discovery() or not (join.discovery.bootstrap_token or join.discovery.file):
        raise ConfigError(
            "which cluster? give the API server's address and --token, or --discovery-file",
            hint="on a control plane, `kubewright token create --print-join-command` prints the whole command",
            exit_code=ExitCode.USAGE,
        )
    raise_if_any([_by_option(finding) for finding in join_findings(join)])


def _by_option(finding: Finding) -> Finding:
    """The finding under the name of the option that it is about."""
    for option, path in _FIELDS.items():
        if finding.path[: len(path)] == path:
            name = f"--{option}" if option != "api-server-endpoint" else "API-SERVER-ENDPOINT"
            return replace(finding, path=(name, *finding.path[len(path) :]))
    return finding
