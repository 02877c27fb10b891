"""The reference of `cluster.yaml` (docs/cluster-yaml.md), written out of the models."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from kubewright.errors import ExitCode
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.example import EXAMPLE
from kubewright.model.config.kubeadm import SHARED, ClusterConfiguration
from kubewright.model.config.yamltext import render_path
from kubewright.model.extra_args import ExtraArgs

_HEAD = """\
# cluster.yaml

<!-- Written by `kubewright config reference`; change the models under src/kubewright/model/config instead. -->

A whole cluster in one file: `kubewright plan|apply|status -f cluster.yaml`. `kubewright config example` prints the
file below; `kubewright config schema` prints a JSON schema for editors.

```yaml
{example}```

## How it is read

- One YAML document of at most 1 MiB, in UTF-8. Scalars follow YAML 1.2: `yes`, `010` and dates are text.
  Anchors, aliases and merge keys work; a field that stands twice is refused.
- An unknown field is refused, with the nearest known one. A field without a value is not set.
- Text must be text: a version, label or argument that looks like a number needs quotes.
- All mistakes are listed, each with its path and line. The exit code tells the first one's kind:

| exit code | what is wrong |
| --- | --- |
{codes}
## Fields
"""

_CODES = (
    (ExitCode.CONFIG_UNKNOWN_FIELD, "a field does not exist"),
    (ExitCode.CONFIG_DUPLICATE_HOST, "two hosts have one name, one address and SSH port, or one nodeIP"),
    (ExitCode.CONFIG_OVERLAPPING_SUBNETS, "pod, service and host networks have common addresses"),
    (ExitCode.VERSION_UNAVAILABLE, "the version of Kubernetes is not supported"),
    (ExitCode.CONFIG_INVALID, "anything else"),
)

_KUBEADM = """
## clusterConfiguration

kubeadm's ClusterConfiguration, in an API version that the Kubernetes version's kubeadm reads
([config.md](config.md)); `apiVersion` and `kind` may be left out. These fields say the same as fields above. Each
may stand in either place, or in both with the same value:

| clusterConfiguration | cluster.yaml |
| --- | --- |
{shared}"""

_COMPONENTS = """
## kubeletConfiguration, kubeProxyConfiguration

Fields of KubeletConfiguration (`kubelet.config.k8s.io/v1beta1`) and KubeProxyConfiguration
(`kubeproxy.config.k8s.io/v1alpha1`), over kubeadm's defaults; unknown fields are refused here, too. Beyond
kubeadm, the kubelet's `containerLogMaxSize` (10Mi) and `containerLogMaxFiles` (5) are always set, and kube-proxy's
`clusterCIDR` is the pod subnet unless you say otherwise. `rotateCertificates` cannot be switched off.
"""


def reference() -> str:
    """The whole page, as Markdown."""
    codes = "".join(f"| {int(code)} `{code.name}` | {what} |\n" for code, what in _CODES)
    text = _HEAD.format(example=EXAMPLE, codes=codes)
    text += _sections("", ClusterSpec)
    shared = "".join(f"| `{render_path(theirs)}` | `{render_path(ours)}` |\n" for ours, theirs in SHARED)
    text += _KUBEADM.format(shared=shared)
    return text + _sections("clusterConfiguration", ClusterConfiguration) + _COMPONENTS


def _sections(path: str, model: type[BaseModel]) -> str:
    """A section for each model, under the paths of all places in which it stands."""
    places: dict[type[BaseModel], list[str]] = {}
    for place, found in _models(path, model):
        places.setdefault(found, []).append(place)
    return "".join(_section(", ".join(paths), found) for found, paths in places.items())


def _models(path: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """A model and those inside it, each with its path in the file and in the order of the fields."""
    yield path, model
    for name, info in model.model_fields.items():
        inner, many = _inner(info.annotation)
        if inner is not None:
            field = (info.alias or name) + ("[]" if many else "")
            yield from _models(f"{path}.{field}" if path else field, inner)


def _inner(annotation: Any, many: bool = False) -> tuple[type[BaseModel] | None, bool]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, many
    for argument in get_args(annotation):
        inner, is_many = _inner(argument, many or get_origin(annotation) is list)
        if inner is not None:
            return inner, is_many
    return None, many


def _section(path: str, model: type[BaseModel]) -> str:
    title = f"\n### {path}\n" if path and path != "clusterConfiguration" else ""
    about = " ".join((model.__doc__ or "").split())
    rows = "".join(_row(info.alias or name, info) for name, info in model.model_fields.items())
    return f"{title}\n{about}\n\n| field | type | default | what it is |\n| --- | --- | --- | --- |\n{rows}"


def _row(name: str, info: FieldInfo) -> str:
    what = (info.description or "").replace("|", "\\|").replace("\n", " ")
    if info.examples:
        what += f" Example: `{_value(info.examples[0])}`."
    return f"| `{name}` | {_type(info.annotation)} | {_default(info)} | {what} |\n"


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    default = info.get_default(call_default_factory=True, validated_data={})
    if default in (None, "", [], {}, ExtraArgs(), PydanticUndefined) or isinstance(default, BaseModel):
        return ""
    return f"`{_value(default)}`"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_value(inner)}' for key, inner in value.items())}}}"
    return str(value).lower() if isinstance(value, bool) else str(value)


_NAMES = {
    ExtraArgs: "mapping to text, or list of `name` and `value`",
    str: "text",
    int: "number",
    bool: "true or false",
}


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        written = next((item for item in arguments[1:] if isinstance(item, BeforeValidator)), None)
        return _type(written.json_schema_input_type if written else arguments[0])
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments if choice != "")
    if origin in (Union, UnionType):
        kinds = [_type(argument) for argument in arguments if argument is not NoneType]
        return " or ".join(kind for kind in kinds if kind)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"mapping to {_type(arguments[1])}" if arguments[1] is not Any else "mapping"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " / ".join(f"`{member.value}`" for member in annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    return _NAMES.get(annotation, "text")
