"""kubeadm's ClusterConfiguration: reading it, its defaults out of a cluster.yaml, and storing it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from kubewright.errors import ConfigError
from kubewright.model.config import syntax
from kubewright.model.config.api_versions import V1BETA2, V1BETA4, written
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.endpoint import EndpointSpec, configured_address
from kubewright.model.config.etcd import with_external_etcd
from kubewright.model.config.findings import (
    Finding,
    FindingsError,
    raise_if_any,
    shown,
)
from kubewright.model.config.kinds import read_kind
from kubewright.model.config.kubeadm_checks import cluster_findings
from kubewright.model.config.kubeadm_types import (
    DNS,
    APIServer,
    ClusterConfiguration,
    ControlPlaneComponent,
    Etcd,
    ExternalEtcd,
    HostPathMount,
    LocalEtcd,
    Networking,
)
from kubewright.model.config.strict import Strict, with_defaults
from kubewright.model.config.yamltext import Path
from kubewright.model.versions import VersionFacts, facts_for

__all__ = [
    "DNS",
    "FIELD",
    "SHARED",
    "V1BETA2",
    "APIServer",
    "ClusterConfiguration",
    "ControlPlaneComponent",
    "Etcd",
    "ExternalEtcd",
    "HostPathMount",
    "LocalEtcd",
    "Networking",
    "check_type",
    "cluster_status",
    "completed",
    "default_cluster_configuration",
    "for_api_version",
    "from_document",
    "spec_facts",
    "to_stored",
    "where_said",
    "with_passed_through",
]

Model = TypeVar("Model", bound=Strict)

ECDSA_GATE = "PublicKeysECDSA"
FIELD = "clusterConfiguration"
"""The field of cluster.yaml under which this kind is passed through."""


def from_document(
    document: Mapping[str, Any], facts: VersionFacts, prefix: Path = (FIELD,)
) -> ClusterConfiguration:
    """Read a ClusterConfiguration as users write it; `apiVersion` and `kind` may be left out.

    `model_fields_set` of the result tells which fields were said: an empty string is not, as in kubeadm. Raises
    `FindingsError` with all mistakes, their paths below `prefix`.
    """
    findings = check_type(document, facts.kubeadm_api_versions, "ClusterConfiguration", prefix)
    stated = document.get("apiVersion")
    versions = (stated,) if stated in facts.kubeadm_api_versions else facts.kubeadm_api_versions
    cc, found = read_kind(document, ClusterConfiguration, versions)
    if cc is None:
        raise FindingsError(findings + [finding.below(*prefix) for finding in found])
    not_yet = list(_not_yet(cc))
    found += not_yet or cluster_findings(cc, facts)
    raise_if_any(findings + [finding.below(*prefix) for finding in found])
    return completed(cc)


def _not_yet(cc: ClusterConfiguration) -> Iterator[Finding]:
    """What node commands can do and `apply` cannot."""
    for field, is_out in (("dns", cc.dns.disabled), ("proxy", cc.proxy.disabled)):
        if is_out:
            yield Finding(
                (field, "disabled"), "a cluster without it is not supported yet", hint="leave it out"
            )


def completed(cc: ClusterConfiguration) -> ClusterConfiguration:
    """With what a field decides about another: a local etcd where none is named, and ECDSA for its old gate."""
    update: dict[str, Any] = {}
    if cc.etcd.local is None and cc.etcd.external is None:
        update["etcd"] = Etcd(local=LocalEtcd())
    if ECDSA_GATE in cc.feature_gates:
        update["encryption_algorithm"] = "ECDSA-P256" if cc.feature_gates[ECDSA_GATE] else "RSA-2048"
    return with_defaults(cc, update)


def check_type(
    document: Mapping[str, Any], api_versions: tuple[str, ...], kind: str, prefix: Path
) -> list[Finding]:
    """What is wrong with a passed-through document's `apiVersion` and `kind`, either of which may be missing."""
    findings = []
    version = document.get("apiVersion")
    if version is not None and version not in api_versions:
        findings.append(
            Finding(
                (*prefix, "apiVersion"), f"{shown(version)} is not {' or '.join(map(repr, api_versions))}"
            )
        )
    if document.get("kind") not in (None, kind):
        findings.append(Finding((*prefix, "kind"), f"{shown(document['kind'])} is not {kind!r}"))
    return findings


SHARED: tuple[tuple[Path, Path], ...] = (
    (("kubernetesVersion",), ("kubernetesVersion",)),
    (("name",), ("clusterName",)),
    (("endpoint",), ("controlPlaneEndpoint",)),
    (("network", "podSubnet"), ("networking", "podSubnet")),
    (("network", "serviceSubnet"), ("networking", "serviceSubnet")),
    (("network", "dnsDomain"), ("networking", "dnsDomain")),
)
"""What cluster.yaml and ClusterConfiguration both can say, as paths in each. (Of `endpoint`, its address.)"""


def default_cluster_configuration(spec: ClusterSpec) -> ClusterConfiguration:
    """A cluster's ClusterConfiguration, complete: cluster.yaml's fields, those passed through, kubeadm's defaults.

    Raises `FindingsError` for mistakes in what is passed through, and where it contradicts cluster.yaml.
    """
    facts = spec_facts(spec)
    said = from_document(spec.cluster_configuration, facts)
    if said.control_plane_endpoint:
        endpoint = syntax.endpoint_with_port(said.control_plane_endpoint)
        said = said.model_copy(update={"control_plane_endpoint": endpoint})
    findings = []
    cc = said
    for ours, theirs in SHARED:
        mine, my_value = _look_up(spec, ours)
        passed, value = _look_up(said, theirs)
        if mine and passed and my_value != value:
            where = ".".join(str(part) for part in ours)
            findings.append(
                Finding(
                    (FIELD, *theirs),
                    f"{shown(value)} contradicts {where}, which says {shown(my_value)}",
                    hint=f"say it in one place only: {where}",
                )
            )
        elif my_value is not None and not passed:
            cc = _replaced(cc, theirs, my_value)
    raise_if_any(findings)
    cc = with_external_etcd(spec, cc)
    if "image_repository" not in said.model_fields_set:
        cc = cc.model_copy(update={"image_repository": facts.image_repository})
    return cc


def where_said(spec: ClusterSpec, path: Path) -> Path:
    """Where in cluster.yaml the value of `path` (a left side of `SHARED`) stands: there, or passed through."""
    for ours, theirs in SHARED:
        if ours == path and not _look_up(spec, ours)[0] and _raw(spec.cluster_configuration, theirs):
            return (FIELD, *theirs)
    return path


def with_passed_through(spec: ClusterSpec, cc: ClusterConfiguration) -> ClusterSpec:
    """The spec with what only its ClusterConfiguration says filled into its own fields: both agree then."""
    for ours, theirs in SHARED:
        value = _look_up(cc, theirs)[1]
        if value not in ("", _look_up(spec, ours)[1]):
            spec = _replaced(spec, ours, value)
    return spec


def spec_facts(spec: ClusterSpec) -> VersionFacts:
    """The facts of a cluster's version, wherever it is said. Raises `FindingsError`, VERSION_UNAVAILABLE."""
    passed = spec.cluster_configuration.get("kubernetesVersion")
    if "kubernetes_version" in spec.model_fields_set or not isinstance(passed, str) or not passed:
        path: Path = ("kubernetesVersion",)
        version = spec.kubernetes_version
    else:
        path, version = (FIELD, "kubernetesVersion"), passed
    try:
        return facts_for(version, field="")
    except ConfigError as error:
        problem = error.message.removeprefix(": ")
        raise FindingsError([Finding(path, problem, error.exit_code, error.hint)]) from error


def _attribute(model: Strict, name: str | int) -> str:
    return next(field for field, info in type(model).model_fields.items() if info.alias == name)


def _look_up(model: Any, path: Path) -> tuple[bool, Any]:
    """Whether a field was said, and its value or default."""
    if isinstance(model, ClusterSpec) and path == ("endpoint",):
        address = configured_address(model)
        return bool(address), address or None
    said = True
    for part in path:
        attribute = _attribute(model, part)
        said = said and attribute in model.model_fields_set
        model = getattr(model, attribute)
    return said and model is not None, model


def _raw(document: Any, path: Path) -> Any:
    for part in path:
        document = document.get(part) if isinstance(document, dict) else None
    return document


def _replaced(model: Model, path: Path, value: Any) -> Model:
    if isinstance(model, ClusterSpec) and path == ("endpoint",):
        endpoint = model.endpoint or EndpointSpec(type="external")
        value = endpoint.model_copy(update={"address": value})
    attribute = _attribute(model, path[0])
    if len(path) > 1:
        value = _replaced(getattr(model, attribute), path[1:], value)
    return model.model_copy(update={attribute: value})


def to_stored(cc: ClusterConfiguration) -> dict[str, Any]:
    """The document under `ClusterConfiguration` in the ConfigMap `kubeadm-config`, as that version writes it.

    The API version is the one that the version's kubeadm writes; what that one cannot say is left out. Until
    1.29 the API server's authorization mode is among its arguments, because kubeadm stores the configuration
    after it has filled that in.
    """
    from kubewright.model.arguments import (
        with_authorization_mode,
    )  # imported late: it needs this module's types

    facts = facts_for(cc.kubernetes_version)
    api_version = facts.kubeadm_api_versions[0]
    if facts.authorization_mode_stored:
        extra = with_authorization_mode(cc.api_server.extra_args)
        api_server = cc.api_server.model_copy(update={"extra_args": extra})
        cc = cc.model_copy(update={"api_server": api_server})
    document = written(for_api_version(cc, api_version), api_version)
    document |= {"apiVersion": api_version, "kind": "ClusterConfiguration"}
    return dict(sorted(document.items()))


def for_api_version(cc: ClusterConfiguration, api_version: str) -> ClusterConfiguration:
    """A configuration with what an API version says in another way: ECDSA is a feature gate until v1beta3."""
    gates = dict(cc.feature_gates)
    if api_version == V1BETA4:
        ecdsa = gates.pop(ECDSA_GATE, False)
        algorithm = "ECDSA-P256" if ecdsa else cc.encryption_algorithm
        return cc.model_copy(update={"feature_gates": gates, "encryption_algorithm": algorithm})
    if cc.encryption_algorithm == "ECDSA-P256":
        gates[ECDSA_GATE] = True
    return cc.model_copy(update={"feature_gates": gates})


def cluster_status(endpoints: Mapping[str, tuple[str, int]]) -> dict[str, Any]:
    """The document under `ClusterStatus` in `kubeadm-config`: node name to API address and port.

    Only where `VersionFacts.cluster_status_kept`.
    """
    return {
        "apiEndpoints": {
            name: {"advertiseAddress": address, "bindPort": port}
            for name, (address, port) in sorted(endpoints.items())
        },
        "apiVersion": V1BETA2,
        "kind": "ClusterStatus",
    }
