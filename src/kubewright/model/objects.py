"""What all objects share: their type, and how one is written down."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

Object = dict[str, Any]
"""A Kubernetes object or configuration document, as it stands in a manifest."""

SYSTEM = "kube-system"
PUBLIC = "kube-public"

_QUOTED = re.compile(r"[yYnN]|[-+]?(0o[0-7]+|(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?)", re.ASCII)
"""Text that PyYAML would write plain and others read as a number or a truth: YAML 1.2's core schema `1e3`, and the
library of Kubernetes' own tools (go-yaml, resolve.go) `08` and `y`, too."""

_Base: type[yaml.SafeDumper] = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_Base):  # type: ignore[misc,valid-type]
    """Many lines as a literal block, so that a person can read a ConfigMap; no anchors and aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else "'" if _QUOTED.fullmatch(value) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def to_yaml(document: Mapping[str, Any], *, sort_keys: bool = True) -> bytes:
    """A document as YAML, keys in alphabetical order as Kubernetes' own tools write them, or in their own."""
    text: str = yaml.dump(
        dict(document),
        Dumper=_Dumper,
        default_flow_style=False,
        sort_keys=sort_keys,
        allow_unicode=True,
        width=2**20,
    )
    return text.encode()


def read_mapping(text: bytes | str) -> Object | None:
    """The mapping that a YAML text holds; None where it holds something else, or is no YAML."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    return document if isinstance(document, dict) else None


def metadata(
    name: str,
    namespace: str = "",
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Object:
    """An object's metadata; what is empty is left out."""
    meta: Object = {"name": name}
    if namespace:
        meta["namespace"] = namespace
    if labels:
        meta["labels"] = dict(labels)
    if annotations:
        meta["annotations"] = dict(annotations)
    return meta


def config_map(
    name: str, namespace: str, data: Mapping[str, str], *, labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Object:  # fmt: skip
    """A ConfigMap of text."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(name, namespace, labels=labels, annotations=annotations),
        "data": dict(data),
    }


def service_account(name: str, namespace: str = SYSTEM) -> Object:
    """A ServiceAccount."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(name, namespace)}
