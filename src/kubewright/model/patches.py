"""kubeadm's patches: files named `target[suffix][+patchtype].extension`, laid over what is written.

The three types are kubectl's: strategic merge (the default), merge (RFC 7386) and json (RFC 6902).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml

from kubewright.errors import ConfigError

TARGETS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubeletconfiguration",
    "corednsdeployment",
)
"""What can be patched: the static Pods, the kubelet's configuration and CoreDNS' Deployment."""


class PatchType(StrEnum):
    """How a patch is to be read."""

    STRATEGIC = "strategic"
    MERGE = "merge"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Patch:
    """One document of a patch file."""

    file: str
    target: str
    type: PatchType
    content: Any


_NAME = re.compile(
    rf"({'|'.join(TARGETS)})([^.+\n]*)(\+)?({'|'.join(PatchType)})?.*\.(?:json|yaml)", re.ASCII
)


def parse_file(name: str, text: str) -> list[Patch]:
    """The patches of one file of a patch directory; none for a file that is no patch by its name.

    Raises `ConfigError` naming the file, for a type that does not exist and for what is no JSON or YAML.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return []
    target, _, plus, kind = match.groups()
    if plus and not kind:
        raise ConfigError(
            f"patch {name}: no patch type after the '+'",
            hint=f"it is one of {', '.join(PatchType)}: {target}+merge.yaml, for example",
        )
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        raise ConfigError(
            f"patch {name}: neither JSON nor YAML" + (f", line {where.line + 1}" if where else ""),
            hint="correct the file, or take it out of the directory of patches",
        ) from error
    type_ = PatchType(kind) if kind else PatchType.STRATEGIC
    for document in documents:
        if not isinstance(document, list if type_ is PatchType.JSON else dict):
            raise ConfigError(
                f"patch {name}: a {type_} patch is a {'list' if type_ is PatchType.JSON else 'mapping'}",
                hint="the type stands after a '+' in the file's name: strategic, merge or json",
            )
    return [Patch(name, target, type_, document) for document in documents]


def patched(target: str, document: Mapping[str, Any], patches: Iterable[Patch]) -> dict[str, Any]:
    """The document with the patches of its target laid over it, in their order.

    Raises `ConfigError`, which names the patch's file, where one cannot be applied.
    """
    result: Any = copy.deepcopy(dict(document))
    for patch in patches:
        if patch.target != target:
            continue
        try:
            if patch.type is PatchType.JSON:
                result = _json(result, patch.content)
            elif patch.type is PatchType.MERGE:
                result = _merge(result, patch.content)
            else:
                result = _strategic(result, patch.content, _Schema.of(target), ())
        except _CannotError as error:
            raise ConfigError(
                f"patch {patch.file} cannot be applied to {target}: {error}",
                hint="kubewright init --dry-run shows what is patched",
            ) from error
        if not isinstance(result, dict):
            raise ConfigError(f"patch {patch.file} leaves no mapping of {target}", hint="correct the patch")
    return dict(result)


class _CannotError(Exception):
    """Why a patch does not fit."""


# -- merge (RFC 7386) ---------------------------------------------------------------------------------------------


def _merge(document: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merge(result.get(name), value)
    return result


# -- json (RFC 6902) ----------------------------------------------------------------------------------------------


def _json(document: Any, operations: Sequence[Any]) -> Any:
    holder = {"": document}
    for number, operation in enumerate(operations):
        if not isinstance(operation, dict) or "op" not in operation or "path" not in operation:
            raise _CannotError(f"operation {number} lacks op or path")
        try:
            _operate(holder, operation)
        except _CannotError as error:
            raise _CannotError(
                f"operation {number} ({operation['op']} {operation['path']}): {error}"
            ) from None
    return holder[""]


def _operate(holder: dict[str, Any], operation: Mapping[str, Any]) -> None:
    path = _pointer(operation["path"])
    match operation["op"]:
        case "add":
            _add(holder, path, copy.deepcopy(_value(operation)))
        case "remove":
            _remove(holder, path)
        case "replace":
            _remove(holder, path)
            _add(holder, path, copy.deepcopy(_value(operation)))
        case "move":
            _add(holder, path, _remove(holder, _pointer(operation.get("from"))))
        case "copy":
            _add(holder, path, copy.deepcopy(_get(holder, _pointer(operation.get("from")))))
        case "test":
            if _get(holder, path) != _value(operation):
                raise _CannotError("the test fails")
        case _:
            raise _CannotError("there is no such operation")


def _value(operation: Mapping[str, Any]) -> Any:
    if "value" not in operation:
        raise _CannotError("it has no value")
    return operation["value"]


def _pointer(path: Any) -> list[str]:
    """The parts of a JSON pointer (RFC 6901), below a holder whose only key is empty."""
    if not isinstance(path, str) or (path and not path.startswith("/")):
        raise _CannotError(f"{path!r} is no JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")]


def _get(holder: Any, path: Sequence[str]) -> Any:
    for part in path:
        if isinstance(holder, dict) and part in holder:
            holder = holder[part]
        elif isinstance(holder, list):
            holder = holder[_index(part, len(holder) - 1)]
        else:
            raise _CannotError(f"there is no {part!r}")
    return holder


def _add(holder: Any, path: Sequence[str], value: Any) -> None:
    parent, last = _get(holder, path[:-1]), path[-1]
    if isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else _index(last, len(parent)), value)
    else:
        raise _CannotError("its parent is neither a list nor a mapping")


def _remove(holder: Any, path: Sequence[str]) -> Any:
    value, parent, last = _get(holder, path), _get(holder, path[:-1]), path[-1]
    del parent[last if isinstance(parent, dict) else int(last)]
    if path == [""]:
        holder[""] = None
    return value


def _index(part: str, most: int) -> int:
    if not part.isdecimal() or int(part) > most:
        raise _CannotError(f"there is no item {part!r}")
    return int(part)


# -- strategic merge ----------------------------------------------------------------------------------------------

_POD: Mapping[str, str] = {
    "spec.volumes": "name",
    "spec.containers": "name",
    "spec.initContainers": "name",
    "spec.ephemeralContainers": "name",
    "spec.imagePullSecrets": "name",
    "spec.hostAliases": "ip",
    "spec.topologySpreadConstraints": "topologyKey",
    **{
        f"spec.{containers}.{field}": key
        for containers in ("containers", "initContainers", "ephemeralContainers")
        for field, key in {
            "env": "name",
            "ports": "containerPort",
            "volumeDevices": "devicePath",
            "volumeMounts": "mountPath",
        }.items()
    },
    "metadata.ownerReferences": "uid",
}
"""The lists of a Pod whose items are known by one of their fields, as the API's types say
(`patchMergeKey` in k8s.io/api/core/v1); any other list is replaced as a whole."""

_TEXTS = frozenset({"metadata.finalizers"})
"""Lists of texts that are joined."""


@dataclass(frozen=True, slots=True)
class _Schema:
    keys: Mapping[str, str]
    below: str = ""

    @classmethod
    def of(cls, target: str) -> _Schema:
        if target == "kubeletconfiguration":
            return cls({})
        return cls(_POD, "spec.template." if target == "corednsdeployment" else "")

    def place(self, path: tuple[str, ...]) -> str:
        text = ".".join(path)
        return text.removeprefix(self.below) if self.below and text.startswith(self.below) else text


def _strategic(document: Any, patch: Any, schema: _Schema, path: tuple[str, ...]) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    directive = patch.get("$patch")
    if directive == "replace":
        return {name: copy.deepcopy(value) for name, value in patch.items() if name != "$patch"}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise _CannotError(f"$patch: {directive!r} is not replace, delete or merge")
    result = dict(document) if isinstance(document, dict) else {}
    if "$retainKeys" in patch:
        result = {name: value for name, value in result.items() if name in patch["$retainKeys"]}
    for name, value in patch.items():
        if name.startswith("$deleteFromPrimitiveList/"):
            field = name.partition("/")[2]
            result[field] = [item for item in result.get(field) or [] if item not in value]
        elif name.startswith("$"):
            continue  # $patch and $retainKeys are done; $setElementOrder only orders what a patch does not change
        elif value is None:
            result.pop(name, None)
        else:
            result[name] = _field(result.get(name), value, schema, (*path, name))
    return result


def _field(have: Any, value: Any, schema: _Schema, path: tuple[str, ...]) -> Any:
    if not isinstance(value, list):
        return _strategic(have, value, schema, path)
    place = schema.place(path)
    present = have if isinstance(have, list) else []
    if place in _TEXTS:
        return [*present, *(item for item in value if item not in present)]
    key = schema.keys.get(place)
    return copy.deepcopy(value) if key is None else _by_key(present, value, key, schema, path)


def _by_key(
    present: list[Any], patch: list[Any], key: str, schema: _Schema, path: tuple[str, ...]
) -> list[Any]:
    """Items of one key are merged. The patch's keep its order; the others are put in where they stood."""
    wanted = [item for item in patch if not (isinstance(item, dict) and "$patch" in item)]
    for item in patch:
        if item in wanted:
            continue
        if item["$patch"] == "replace":
            return copy.deepcopy(wanted)
        if item["$patch"] != "delete" or key not in item:
            raise _CannotError(f"an item of {'.'.join(path)} has a $patch that is neither replace nor delete")
        present = [have for have in present if have.get(key) != item[key]]
    if any(not isinstance(item, dict) or key not in item for item in wanted):
        raise _CannotError(f"an item of {'.'.join(path)} lacks its {key}")
    before = {have.get(key): (place, have) for place, have in enumerate(present)}
    merged = [_strategic(before.get(item[key], (0, {}))[1], item, schema, path) for item in wanted]
    named = {item[key] for item in wanted}
    others = [have for have in present if have.get(key) not in named]
    result = []
    for item in merged:
        place = before.get(item.get(key), (-1, {}))[0]
        while others and place > before[others[0].get(key)][0]:
            result.append(others.pop(0))
        result.append(item)
    return result + others
