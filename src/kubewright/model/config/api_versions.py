"""What kubeadm's API versions say differently: fields that one of them lacks, and how each writes a kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, get_args

from kubewright.model.config import kubeadm_nodes as nodes
from kubewright.model.config import kubeadm_types as types
from kubewright.model.config.strict import Strict
from kubewright.model.extra_args import ExtraArgs
from kubewright.secret import Secret

GROUP = "kubeadm.k8s.io"
V1BETA2, V1BETA3, V1BETA4 = (f"{GROUP}/v1beta{number}" for number in (2, 3, 4))
API_VERSIONS = (V1BETA2, V1BETA3, V1BETA4)

_UNTIL_V1BETA3 = frozenset({V1BETA2, V1BETA3})
_FROM_V1BETA3 = frozenset({V1BETA3, V1BETA4})
_V1BETA2 = frozenset({V1BETA2})
_V1BETA4 = frozenset({V1BETA4})

_KNOWN_IN: Mapping[type[Strict], Mapping[str, frozenset[str]]] = {
    types.ClusterConfiguration: {
        "useHyperKubeImage": _V1BETA2,
        "proxy": _V1BETA4,
        "encryptionAlgorithm": _V1BETA4,
        "certificateValidityPeriod": _V1BETA4,
        "caCertificateValidityPeriod": _V1BETA4,
    },
    types.ControlPlaneComponent: {"extraEnvs": _V1BETA4},
    types.APIServer: {"extraEnvs": _V1BETA4, "timeoutForControlPlane": _UNTIL_V1BETA3},
    types.LocalEtcd: {"extraEnvs": _V1BETA4},
    types.ExternalEtcd: {"httpEndpoints": _V1BETA4},
    types.DNS: {"type": _V1BETA2, "disabled": _V1BETA4},
    nodes.NodeRegistrationOptions: {"imagePullPolicy": _FROM_V1BETA3, "imagePullSerial": _V1BETA4},
    nodes.InitConfiguration: {
        "dryRun": _V1BETA4, "skipPhases": _FROM_V1BETA3, "patches": _FROM_V1BETA3, "timeouts": _V1BETA4,
    },
    nodes.JoinConfiguration: {
        "dryRun": _V1BETA4, "skipPhases": _FROM_V1BETA3, "patches": _FROM_V1BETA3, "timeouts": _V1BETA4,
    },
    nodes.Discovery: {"timeout": _UNTIL_V1BETA3},
}  # fmt: skip
"""The fields that not every API version has. Sources: the types of the three packages in kubeadm's source."""

_ALWAYS: Mapping[type[Strict], frozenset[str]] = {
    types.DNS: frozenset({"type"}),
    types.LocalEtcd: frozenset({"dataDir"}),
    types.ExternalEtcd: frozenset({"endpoints", "caFile", "certFile", "keyFile"}),
    types.HostPathMount: frozenset({"name", "hostPath", "mountPath"}),
    types.EnvVar: frozenset({"name"}),
    types.KeyRef: frozenset({"key"}),
    types.ResourceFieldRef: frozenset({"resource"}),
    types.FieldRef: frozenset({"fieldPath"}),
    nodes.NodeRegistrationOptions: frozenset({"taints"}),
    nodes.Taint: frozenset({"key", "effect"}),
    nodes.BootstrapTokenDiscovery: frozenset({"token"}),
    nodes.FileDiscovery: frozenset({"kubeConfigPath"}),
}
"""The fields that kubeadm writes even where they are empty: those without `omitempty`."""

_LEFT_OUT_IF_EMPTY = (nodes.Patches,)
"""Models that stand behind a pointer in kubeadm's types, and are left out where they say nothing."""

_DEFAULTS_LEFT_OUT: Mapping[type[Strict], frozenset[str]] = {
    nodes.UpgradeDiff: frozenset({"contextLines"}),
}
"""Fields whose default kubeadm does not write."""


def known_in(model: type[Strict], field: str, api_version: str) -> bool:
    """Whether an API version has a field (by its name in files)."""
    return api_version in _KNOWN_IN.get(model, {}).get(field, API_VERSIONS)


def versions_of(model: type[Strict], field: str) -> tuple[str, ...]:
    """The API versions that have a field, oldest first."""
    return tuple(version for version in API_VERSIONS if known_in(model, field, version))


def kinds_in(api_version: str) -> tuple[str, ...]:
    """The kinds of an API version that are configuration files."""
    common = ("InitConfiguration", "JoinConfiguration", "ClusterConfiguration")
    return (*common, "ResetConfiguration", "UpgradeConfiguration") if api_version == V1BETA4 else common


def written(model: Strict, api_version: str) -> dict[str, Any]:
    """A kind as kubeadm marshals it in an API version: in alphabetical order, without what is empty.

    What the version has no field for is left out; `conversion.unsayable` tells what that is.
    """
    document: dict[str, Any] = {}
    always = _ALWAYS.get(type(model), frozenset())
    quiet = _DEFAULTS_LEFT_OUT.get(type(model), frozenset())
    for attribute, info in type(model).model_fields.items():
        name = info.alias or attribute
        if not known_in(type(model), name, api_version):
            continue
        field = getattr(model, attribute)
        value = _plain(field, api_version)
        if isinstance(field, Strict):
            said = bool(value) or not isinstance(field, _LEFT_OUT_IF_EMPTY)
        elif name in quiet:
            said = value != info.get_default()
        else:
            pointed_at = value is False and info.get_default() is True
            said = name in always or pointed_at or value not in ("", None, False, [], {})
        if said:
            document[name] = value
    return dict(sorted(document.items()))


def _plain(value: Any, api_version: str) -> Any:
    match value:
        case Strict():
            return written(value, api_version)
        case ExtraArgs():
            return value.as_list() if api_version == V1BETA4 else value.as_map()
        case Secret():
            return value.reveal()
        case datetime():
            moment = value if value.tzinfo else value.replace(tzinfo=UTC)
            return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        case list():
            return [_plain(item, api_version) for item in value]
        case Mapping():
            return dict(sorted(value.items()))
        case _:
            return value


def inner_model(annotation: Any) -> type[Strict] | None:
    """The model inside a field's annotation: that of a list's items, or of what may be missing."""
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return annotation
    return next((found for part in get_args(annotation) if (found := inner_model(part)) is not None), None)


def short(api_versions: Iterable[str]) -> str:
    """`v1beta3 and v1beta4`, for messages."""
    names = [version.removeprefix(f"{GROUP}/") for version in api_versions]
    return " and ".join(names)
