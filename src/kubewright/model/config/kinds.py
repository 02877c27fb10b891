"""Reading one of kubeadm's kinds: a document's plain values in; the model, or what is wrong with them, out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from kubewright.errors import ExitCode
from kubewright.model.config import kubeadm_nodes as nodes
from kubewright.model.config import kubeadm_types as types
from kubewright.model.config.api_versions import (
    API_VERSIONS,
    V1BETA4,
    inner_model,
    known_in,
    short,
    versions_of,
)
from kubewright.model.config.duration import normal_duration
from kubewright.model.config.findings import Finding, of_validation, shown
from kubewright.model.config.strict import Strict
from kubewright.model.config.yamltext import Path
from kubewright.model.extra_args import ExtraArgs

Model = TypeVar("Model", bound=Strict)

KINDS: Mapping[str, type[Strict]] = {
    "InitConfiguration": nodes.InitConfiguration,
    "ClusterConfiguration": types.ClusterConfiguration,
    "JoinConfiguration": nodes.JoinConfiguration,
    "ResetConfiguration": nodes.ResetConfiguration,
    "UpgradeConfiguration": nodes.UpgradeConfiguration,
}
"""kubeadm's kinds, in the order in which a file has them."""

_ARGUMENTS = ("extraArgs", "kubeletExtraArgs")


def read_kind(
    document: Mapping[str, Any], model: type[Model], api_versions: Iterable[str] = API_VERSIONS
) -> tuple[Model | None, list[Finding]]:
    """A document as a model, and what is wrong with it; `apiVersion` and `kind` are not looked at.

    A field that none of `api_versions` has is a mistake, and so is a form of `extraArgs` that only others have.
    An empty text is a field that is not set, as in kubeadm. `model_fields_set` tells which fields were said.
    """
    versions = tuple(api_versions)
    fields = {name: value for name, value in document.items() if name not in ("apiVersion", "kind")}
    findings: list[Finding] = []
    moved: dict[str, Any] = {}
    if model is nodes.JoinConfiguration:
        fields, moved = _without_discovery_timeout(fields, versions, findings)
    fields = _of_versions(without_empty(fields), model, versions, (), findings)
    if moved:
        timeouts = fields.get("timeouts")
        fields["timeouts"] = {**moved, **timeouts} if isinstance(timeouts, dict) else timeouts or moved
    try:
        return model.model_validate(fields), findings
    except ValidationError as error:
        return None, findings + of_validation(error, model)


def without_empty(value: Any) -> Any:
    """Mappings without their empty texts, which mean "not said"; arguments keep theirs, where they mean ""."""
    if not isinstance(value, dict):
        return value
    return {
        name: inner if name in _ARGUMENTS else without_empty(inner)
        for name, inner in value.items()
        if inner != ""
    }


def _of_versions(
    value: Mapping[str, Any],
    model: type[Strict],
    versions: tuple[str, ...],
    path: Path,
    findings: list[Finding],
) -> dict[str, Any]:
    """The fields without those that no such API version has, each of which is a finding."""
    inside = {info.alias or name: info.annotation for name, info in model.model_fields.items()}
    kept: dict[str, Any] = {}
    for name, inner in value.items():
        place = (*path, name)
        annotation = inside.get(name)
        if annotation is not None and not any(known_in(model, name, version) for version in versions):
            having = versions_of(model, name)
            findings.append(
                Finding(
                    path,
                    f"field {name!r} is one of {short(having)}, not of {short(versions)}",
                    ExitCode.CONFIG_UNKNOWN_FIELD,
                    hint=_INSTEAD.get(name, ""),
                    key=name,
                )
            )
            continue
        if annotation is ExtraArgs:
            findings += _wrong_form(inner, versions, place)
        kept[name] = _inside(inner, inner_model(annotation), versions, place, findings)
    return kept


def _inside(
    value: Any, model: type[Strict] | None, versions: tuple[str, ...], path: Path, findings: list[Finding]
) -> Any:
    if model is None:
        return value
    if isinstance(value, dict):
        return _of_versions(value, model, versions, path, findings)
    if isinstance(value, list):
        return [_inside(item, model, versions, (*path, at), findings) for at, item in enumerate(value)]
    return value


_INSTEAD = {
    "timeoutForControlPlane": "v1beta4 has `timeouts.controlPlaneComponentHealthCheck` of InitConfiguration and "
    "JoinConfiguration for it",
    "timeout": "v1beta4 has `timeouts.discovery` for it",
    "encryptionAlgorithm": "for ECDSA, older versions have the feature gate PublicKeysECDSA",
    "useHyperKubeImage": "no hyperkube image exists since Kubernetes 1.19: leave it out",
    "type": "CoreDNS is the only server since Kubernetes 1.21: leave it out",
}


def _wrong_form(value: Any, versions: tuple[str, ...], path: Path) -> list[Finding]:
    if isinstance(value, list) and V1BETA4 not in versions:
        return [
            Finding(
                path,
                f"a list of names and values is v1beta4's form, not that of {short(versions)}",
                hint=f'write a mapping, `{path[-1]}: {{v: "4"}}`, or the file\'s apiVersion as {V1BETA4}',
            )
        ]
    if isinstance(value, dict) and versions == (V1BETA4,):
        return [
            Finding(
                path,
                "a mapping is the form of v1beta3 and older; v1beta4 has a list of names and values",
                hint=f'write `{path[-1]}: [{{name: v, value: "4"}}]`',
            )
        ]
    return []


def _without_discovery_timeout(
    fields: dict[str, Any], versions: tuple[str, ...], findings: list[Finding]
) -> tuple[dict[str, Any], dict[str, str]]:
    """`discovery.timeout` of older versions is v1beta4's `timeouts.discovery`."""
    discovery = fields.get("discovery")
    if not isinstance(discovery, dict) or "timeout" not in discovery:
        return fields, {}
    others = {name: value for name, value in discovery.items() if name != "timeout"}
    if versions == (V1BETA4,):
        findings.append(
            Finding(
                ("discovery",),
                "field 'timeout' is one of v1beta2 and v1beta3, not of v1beta4",
                ExitCode.CONFIG_UNKNOWN_FIELD,
                hint=_INSTEAD["timeout"],
                key="timeout",
            )
        )
        return fields | {"discovery": others}, {}
    timeout, moved = discovery["timeout"], {}
    if isinstance(timeout, str) and timeout:
        try:
            moved["discovery"] = normal_duration(timeout)
        except ValueError as error:
            findings.append(Finding(("discovery", "timeout"), str(error)))
    elif timeout not in (None, ""):
        findings.append(Finding(("discovery", "timeout"), f"must be text, not {shown(timeout)}"))
    return fields | {"discovery": others}, moved
