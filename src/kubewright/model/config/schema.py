"""The JSON schema of `cluster.yaml`, for editors and for reading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from kubewright.model.component_fields import ListOf, Shape
from kubewright.model.config.cluster import API_VERSION, ClusterSpec
from kubewright.model.config.kubeadm import ClusterConfiguration
from kubewright.model.versions import VersionFacts

Schema = dict[str, Any]

_DEFS = "#/$defs/{model}"


def cluster_schema(facts: VersionFacts) -> Schema:
    """The schema, in JSON Schema's 2020-12 draft, the passed-through kinds being those of the version of `facts`.

    It holds the fields, types and choices. What takes more (overlapping networks, duplicate hosts) only
    `parse_cluster` finds.
    """
    schema = _of_model(ClusterSpec)
    kubeadm = _of_model(ClusterConfiguration)
    definitions = schema["$defs"] | kubeadm.pop("$defs")
    definitions["ClusterConfiguration"] = _typed(kubeadm, facts.kubeadm_api_versions, "ClusterConfiguration")
    for kind, version, shape in (
        ("KubeletConfiguration", facts.kubelet_api_version, facts.kubelet_fields),
        ("KubeProxyConfiguration", facts.kube_proxy_api_version, facts.kube_proxy_fields),
    ):
        definitions[kind] = _typed(_of_shape(shape), (version,), kind) | {
            "description": f"Fields of {kind}, over kubeadm's defaults."
        }
    for field, kind in (
        ("clusterConfiguration", "ClusterConfiguration"),
        ("kubeletConfiguration", "KubeletConfiguration"),
        ("kubeProxyConfiguration", "KubeProxyConfiguration"),
    ):
        property_ = schema["properties"][field]
        schema["properties"][field] = {
            "$ref": _DEFS.format(model=kind),
            "title": property_["title"],
            "description": property_["description"],
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"https://{API_VERSION}/cluster.schema.json",
        **schema,
        "$defs": dict(sorted(definitions.items())),
    }


def _of_model(model: type[BaseModel]) -> Schema:
    schema = model.model_json_schema(by_alias=True, ref_template=_DEFS)
    for part in (schema, *schema.get("$defs", {}).values()):
        for name, property_ in part.get("properties", {}).items():
            part["properties"][name] = _without_null(property_)
    return schema


def _without_null(property_: Schema) -> Schema:
    """A field without the choice of null (which only says that it is not set) and without an empty default."""
    choices = [choice for choice in property_.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) > 1:
        property_["anyOf"] = choices
    elif choices:
        del property_["anyOf"]
        property_ |= choices[0]
    if "default" in property_ and not isinstance(property_["default"], str | int):
        del property_["default"]
    return property_


def _typed(schema: Schema, api_versions: tuple[str, ...], kind: str) -> Schema:
    properties = {"apiVersion": {"enum": list(api_versions)}, "kind": {"const": kind}} | schema["properties"]
    return schema | {"title": kind, "properties": properties}


_TYPES: Mapping[str, Schema] = {
    "text": {"type": "string"},
    "flag": {"type": "boolean"},
    "int": {"type": "integer"},
    "number": {"type": "number"},
    "duration": {"type": "string", "examples": ["4m0s"]},
    "duration or int": {"type": ["string", "integer"], "examples": ["5s"]},
    "quantity": {"type": ["string", "number"], "examples": ["64Ki"]},
    "texts": {"type": "array", "items": {"type": "string"}},
    "ints": {"type": "array", "items": {"type": "integer"}},
    "text map": {"type": "object", "additionalProperties": {"type": "string"}},
    "flag map": {"type": "object", "additionalProperties": {"type": "boolean"}},
    "texts map": {
        "type": "object",
        "additionalProperties": {"type": "array", "items": {"type": "string"}},
    },
    "quantity map": {"type": "object", "additionalProperties": {"type": ["string", "number"]}},
}


def _of_shape(shape: Shape) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _of_kind(kind) for name, kind in shape.items()},
    }


def _of_kind(kind: str | ListOf | Shape) -> Schema:
    if isinstance(kind, str):
        return dict(_TYPES[kind])
    if isinstance(kind, ListOf):
        return {"type": "array", "items": _of_shape(kind.shape)}
    return _of_shape(kind)
