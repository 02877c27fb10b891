"""From one of kubeadm's API versions to another: what the other cannot say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubewright.model.config.api_versions import (
    V1BETA4,
    kinds_in,
    known_in,
    short,
    versions_of,
)
from kubewright.model.config.documents import Documents
from kubewright.model.config.findings import Finding, raise_if_any
from kubewright.model.config.kubeadm import for_api_version
from kubewright.model.config.kubeadm_nodes import Timeouts
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.model.config.strict import Strict
from kubewright.model.config.yamltext import Path
from kubewright.model.extra_args import ExtraArgs
from kubewright.model.versions import facts_for

_SAID_ELSEWHERE = ("timeoutForControlPlane", "type", "useHyperKubeImage")
"""Fields of older versions that v1beta4 says in another place, or that have one value only."""


def unsayable(documents: Documents, api_version: str) -> list[Finding]:
    """What of a file an API version has no words for, with its path; a field at its default is none of it."""
    findings: list[Finding] = []
    for kind, model in documents.kinds().items():
        if kind not in kinds_in(api_version):
            findings.append(Finding((kind,), f"{short([api_version])} has no such kind"))
            continue
        findings += [finding.below(kind) for finding in unsayable_in(model, api_version)]
    return findings


def unsayable_in(model: Strict, api_version: str) -> list[Finding]:
    """The same for one kind, paths beginning inside it."""
    if isinstance(model, ClusterConfiguration):
        converted = for_api_version(model, api_version)
        if api_version != V1BETA4 and converted.encryption_algorithm == "ECDSA-P256":
            converted = converted.model_copy(update={"encryption_algorithm": "RSA-2048"})
        model = converted
    return list(_unsayable(model, api_version, ()))


def not_kept(cluster: ClusterConfiguration) -> list[Finding]:
    """What of a ClusterConfiguration the cluster's `kubeadm-config` will not hold (see `kubeadm.to_stored`).

    A later command, a join or an upgrade, then does not know it.
    """
    return unsayable_in(cluster, facts_for(cluster.kubernetes_version).kubeadm_api_versions[0])


def refuse_loss(documents: Documents, api_version: str, source: str = "") -> None:
    """Raise `FindingsError` where an API version cannot say everything."""
    raise_if_any(unsayable(documents, api_version), source)


def _unsayable(model: Strict, api_version: str, path: Path) -> Iterator[Finding]:
    for attribute, info in type(model).model_fields.items():
        name = info.alias or attribute
        value = getattr(model, attribute)
        place = (*path, name)
        if not known_in(type(model), name, api_version):
            if isinstance(value, Timeouts):
                yield from _timeouts(value, place, api_version)
            elif name not in _SAID_ELSEWHERE and value != info.get_default(call_default_factory=True):
                yield _finding(place, versions_of(type(model), name), api_version)
        elif isinstance(value, ExtraArgs) and api_version != V1BETA4:
            for flag in value.names:
                if len(value.values_of(flag)) > 1:
                    yield Finding(
                        (*place, flag), f"only v1beta4 can hold a flag twice, not {short([api_version])}"
                    )
        else:
            yield from _inside(value, api_version, place)


def _inside(value: Any, api_version: str, path: Path) -> Iterator[Finding]:
    if isinstance(value, Strict):
        yield from _unsayable(value, api_version, path)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _inside(item, api_version, (*path, index))


def _timeouts(timeouts: Timeouts, path: Path, api_version: str) -> Iterator[Finding]:
    """Of v1beta4's timeouts, older versions have a field for the control plane's and the discovery's."""
    sayable = {"control_plane_component_health_check", "discovery"}
    for attribute, info in Timeouts.model_fields.items():
        if attribute not in sayable and getattr(timeouts, attribute) != info.default:
            yield _finding((*path, info.alias or attribute), (V1BETA4,), api_version)


def _finding(path: Path, having: tuple[str, ...], api_version: str) -> Finding:
    return Finding(path, f"only {short(having)} can say this, not {short([api_version])}")
