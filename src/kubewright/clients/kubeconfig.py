"""Kubeconfig files on this computer: finding and reading them as kubectl does, and our own context in them.

Where a file is changed, it is edited as a tree of YAML nodes: what is not ours keeps its values, types, quoting
and unknown fields. Comments are lost, as with `kubectl config`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kubewright.clients.filelock import replace_file, shared_with_kubectl
from kubewright.errors import ConfigError

_FILES_IN_ENTRIES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
_SECTIONS = {"clusters": "cluster", "contexts": "context", "users": "user"}


@dataclass(frozen=True, slots=True)
class Merged:
    """What `merge_context` left behind."""

    path: Path
    context: str
    current: bool
    """Whether kubectl uses the context without being told its name."""


def default_files(env: Mapping[str, str] | None = None) -> list[Path]:
    """The files that kubectl reads: those of KUBECONFIG, else `~/.kube/config`. They need not exist."""
    value = (os.environ if env is None else env).get("KUBECONFIG", "")
    named = [Path(part).expanduser() for part in value.split(os.pathsep) if part]
    return named or [Path("~/.kube/config").expanduser()]


def default_target(env: Mapping[str, str] | None = None) -> Path:
    """The file that `kubectl config` would write a new context into: the first that exists, else the last."""
    files = default_files(env)
    return next((file for file in files if file.exists()), files[-1])


def load(files: Sequence[Path]) -> dict[str, Any]:
    """Several files as one kubeconfig: the first that names an entry or the current context wins.

    File names inside are made absolute, by the folder of the file that holds them. Files that do not exist are
    left out, but one must be there. Raises `ConfigError`.
    """
    merged: dict[str, Any] = {"apiVersion": "v1", "kind": "Config"}
    if len(files) > 1 and not any(file.exists() for file in files):
        raise ConfigError(f"{os.pathsep.join(map(str, files))}: none of these kubeconfig files exists")
    for file in files:
        config = yaml.load(_text(file), Loader=_Loader) if len(files) == 1 or file.exists() else None  # noqa: S506 - a SafeLoader
        if config is None:
            continue
        _check(config, file)
        if not merged.get("current-context"):
            merged["current-context"] = config.get("current-context") or ""
        for section, inner in _SECTIONS.items():
            entries = merged.setdefault(section, [])
            known = {entry["name"] for entry in entries}
            for entry in config.get(section) or []:
                if entry["name"] not in known:
                    entries.append(_absolute(entry, inner, file.absolute().parent))
    return merged


def merge_context(target: Path, config: Mapping[str, Any], name: str) -> Merged:
    """Put the current context of `config` into the file `target` as the context `name`.

    Its cluster and user are called `kubewright:NAME`, so that no entry of another context is ever replaced. The
    file's current context becomes ours only where there is none. The file is replaced in one step and is 0600
    afterwards; nothing is written where nothing changes. Raises `ConfigError` and leaves the file as it was
    where it cannot be read, or where a context `name` is there that Kubewright has not made.
    """
    entry = own_entry(name)
    wanted = {
        "clusters": {"name": entry, "cluster": _current(config, "cluster")},
        "users": {"name": entry, "user": _current(config, "user")},
        "contexts": {"name": name, "context": {"cluster": entry, "user": entry}},
    }
    with _edit(target) as root:
        context = _find(root, "contexts", name)
        if context is not None and _inner_value(context, "context", "cluster") != entry:
            raise ConfigError(
                f"{target}: has a context named {name!r} that Kubewright did not make; it was left as it is",
                hint=f"rename it (kubectl config rename-context {name} OTHER) or give the cluster another name",
            )
        _set_default(root, "apiVersion", "v1")
        _set_default(root, "kind", "Config")
        for section, value in wanted.items():
            _put(root, section, value)
        if not _scalar(root, "current-context"):
            _set(root, "current-context", name)
        current = _scalar(root, "current-context") == name
    return Merged(target, name, current)


def remove_context(target: Path, name: str) -> bool:
    """Take our context `name` out of the file `target` again; False where it is not there or is not ours.

    Its cluster and user go too, unless another context uses them. Raises `ConfigError` where the file cannot be
    read.
    """
    if not target.exists():
        return False
    entry = own_entry(name)
    with _edit(target) as root:
        context = _find(root, "contexts", name)
        if context is None or _inner_value(context, "context", "cluster") != entry:
            return False
        _drop(root, "contexts", name)
        others = _entries(root, "contexts")
        for section, inner in (("clusters", "cluster"), ("users", "user")):
            if all(_inner_value(other, "context", inner) != entry for other in others):
                _drop(root, section, entry)
        if _scalar(root, "current-context") == name:
            _set(root, "current-context", "")
    return True


def own_entry(name: str) -> str:
    """What the cluster and the user of our context `name` are called."""
    return f"kubewright:{name}"


# -- reading ------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Reads dates as text: kubectl writes them without quotes, and nobody wants a datetime back."""


class _Dumper(yaml.SafeDumper):
    """Writes such dates as they were."""


_Loader.yaml_implicit_resolvers = _Dumper.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _text(file: Path) -> str:
    """The file's text, checked to be YAML. Errors say where, and never what stands there: it may be a key."""
    try:
        text = file.read_text(encoding="utf-8")
        yaml.compose(text, Loader=_Loader)
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such kubeconfig file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file}: cannot be read: {getattr(error, 'strerror', '') or 'not UTF-8'}"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(
            f"{file}{where}: not a kubeconfig: {getattr(error, 'problem', '') or 'not YAML'}",
            hint="mend or move the file; it has not been changed",
        ) from None
    return text


def _check(config: Any, file: Path) -> None:
    """Raise `ConfigError` unless the document has a kubeconfig's shape."""
    if not isinstance(config, Mapping):
        raise ConfigError(f"{file}: not a kubeconfig: not a mapping at its top", hint=_LEFT)
    for section, inner in _SECTIONS.items():
        entries = config.get(section)
        if entries is not None and not isinstance(entries, list):
            raise ConfigError(f"{file}: {section}: must be a list", hint=_LEFT)
        for index, entry in enumerate(entries or []):
            good = isinstance(entry, Mapping) and isinstance(entry.get("name"), str)
            if not good or not isinstance(entry.get(inner) or {}, Mapping):
                raise ConfigError(f"{file}: {section}[{index}]: must have a name and {inner!r}", hint=_LEFT)


_LEFT = "mend or move the file; it has not been changed"


def _absolute(entry: Mapping[str, Any], inner: str, folder: Path) -> dict[str, Any]:
    copy = deepcopy(dict(entry))
    for key in _FILES_IN_ENTRIES:
        if isinstance(value := (copy.get(inner) or {}).get(key), str) and value:
            copy[inner][key] = str(folder / Path(value).expanduser())
    return copy


def _current(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The cluster or user of a kubeconfig's current context."""
    context_name = config.get("current-context", "")
    for context in config.get("contexts") or []:
        if context["name"] == context_name:
            for entry in config.get(f"{kind}s") or []:
                if entry["name"] == (context.get("context") or {}).get(kind):
                    return dict(entry.get(kind) or {})
    raise ConfigError(f"kubeconfig: the current context {context_name!r} has no {kind}")


# -- editing a tree of YAML nodes ---------------------------------------------------------------------------------


@contextmanager
def _edit(target: Path) -> Iterator[yaml.MappingNode]:
    """The file's tree, to be changed inside; written back at the end if it has changed."""
    real = target.expanduser().resolve()  # a symbolic link stays one
    try:
        real.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"{real.parent}: cannot be made: {error.strerror}") from None
    with shared_with_kubectl(real):
        before = _text(real) if real.exists() else ""
        _check(yaml.load(before, Loader=_Loader) or {}, target)  # noqa: S506 - a SafeLoader
        root = yaml.compose(before, Loader=_Loader)
        if not isinstance(root, yaml.MappingNode):
            root = _node({})
        start = _serialized(root)
        yield root
        after = _serialized(root)
        if start != after or not real.exists() or real.stat().st_mode & 0o077:
            replace_file(real, after.encode(), mode=0o600)


def _serialized(root: yaml.Node) -> str:
    return str(yaml.serialize(root, Dumper=_Dumper, allow_unicode=True, width=2**20))


def _node(value: Any) -> Any:
    return yaml.compose(yaml.safe_dump(value, sort_keys=False, default_flow_style=False), Loader=_Loader)


def _get(node: yaml.MappingNode, key: str) -> yaml.Node | None:
    return next((value for name, value in node.value if name.value == key), None)


def _set(node: yaml.MappingNode, key: str, value: Any) -> None:
    new = value if isinstance(value, yaml.Node) else _node(value)
    node.flow_style = False
    for index, (name, _) in enumerate(node.value):
        if name.value == key:
            node.value[index] = (name, new)
            return
    node.value.append((_node(key), new))


def _set_default(node: yaml.MappingNode, key: str, value: Any) -> None:
    if not _scalar(node, key):
        _set(node, key, value)


def _scalar(node: yaml.MappingNode, key: str) -> str:
    """A field's text; empty where it is missing or null."""
    found = _get(node, key)
    return found.value if isinstance(found, yaml.ScalarNode) and not found.tag.endswith(":null") else ""


def _entries(root: yaml.MappingNode, section: str) -> list[Any]:
    found = _get(root, section)
    return found.value if isinstance(found, yaml.SequenceNode) else []


def _find(root: yaml.MappingNode, section: str, name: str) -> Any:
    return next((entry for entry in _entries(root, section) if _scalar(entry, "name") == name), None)


def _inner_value(entry: yaml.MappingNode, inner: str, key: str) -> str:
    found = _get(entry, inner)
    return _scalar(found, key) if isinstance(found, yaml.MappingNode) else ""


def _put(root: yaml.MappingNode, section: str, value: Mapping[str, Any]) -> None:
    """Add an entry, or replace the one of the same name; unknown fields of a context (its namespace) stay."""
    if not isinstance(_get(root, section), yaml.SequenceNode):
        _set(root, section, [])
    sequence: Any = _get(root, section)
    sequence.flow_style = False
    existing = _find(root, section, value["name"])
    if existing is None:
        sequence.value.append(_node(dict(value)))
    elif section == "contexts":
        for key, inner in value["context"].items():
            _set(_get(existing, "context"), key, inner)  # type: ignore[arg-type] # checked by its caller
    else:
        sequence.value[sequence.value.index(existing)] = _node(dict(value))


def _drop(root: yaml.MappingNode, section: str, name: str) -> None:
    if (entry := _find(root, section, name)) is not None:
        _entries(root, section).remove(entry)
