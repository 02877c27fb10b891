"""docs/versions.md: what changes from one version of Kubernetes to the next, and where that was read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from tools.versions.sources import SOURCES

from kubewright.model.component_changes import KUBE_PROXY_FIELDS, KUBELET_FIELDS
from kubewright.model.version_facts import ProbePaths, VersionFacts
from kubewright.model.version_rows import PATCHES, ROWS

_LARGE = {"kubelet_fields", "kubelet_unset", "kube_proxy_fields", "kube_proxy_unset"}
"""Facts that are tables themselves: every field of a component's configuration."""

_HEAD = """\
# What each version of Kubernetes changes

This page is generated out of the version table: `.venv/bin/python -m tools.versions`. A test compares the two.

Kubewright knows Kubernetes {oldest} to {newest}. All that differs between them is in one table
(`src/kubewright/model/version_rows.py`): a row for each minor version is the row before it with what changed, and
what came with a patch release stands apart. No other place in the code asks for a version.

## What was seen and what was read

- **Seen on a running cluster: 1.20.** What that row makes is compared with the files and objects of the real
  kubeadm 1.20.2 for the same configurations, on running clusters; [kubeadm-parity.md](kubeadm-parity.md) has the
  differences that remain.
- **Read: {second} to {newest}.** Each change was read in Kubernetes' own sources at the last patch release of the
  minor version, in the place that the tables below name. What they render is kept in files under
  `tests/unit/golden`, for v1.20, v1.22, v1.24, v1.26, v1.29, v1.31 and v{newest}, to be reviewed against the same
  sources. None of it has been seen on a running cluster yet.

A source is a path in Kubernetes' repository, where kubeadm is below `cmd/kubeadm`, or the number of a Kubernetes
enhancement proposal (KEP).

## What changed with each minor version

| version | fact | from then on | read in |
| --- | --- | --- | --- |
"""

_START = """
## Where the table starts: Kubernetes {oldest}

| fact | value | read in |
| --- | --- | --- |
"""

_PATCHES = """
## What changed with a patch release

| from version | fact | from then on |
| --- | --- | --- |
"""

_COMPONENTS = """
## Fields of the components' configurations

Which fields KubeletConfiguration and KubeProxyConfiguration have at {oldest} is in
`src/kubewright/model/component_fields.py`; these came and went later. They were read off the published types
(`{kubelet}`, `{kube_proxy}`).

| version | kind | came | went |
| --- | --- | --- | --- |
"""


def page() -> str:
    """The whole page, as Markdown. Raises `KeyError` for a fact that has no source."""
    series = list(ROWS)
    text = _HEAD.format(oldest=series[0], second=series[1], newest=series[-1])
    text += "".join(_row(*row) for row in _changes())
    text += _START.format(oldest=series[0])
    text += "".join(_row(*row) for row in _beginning(ROWS[series[0]]))
    text += _PATCHES
    for minor, patches in PATCHES.items():
        for patch, changed in sorted(patches.items()):
            for name, value in changed.items():
                text += _row(f"{minor}.{patch}", f"`{name}`", _shown(value))
    text += _COMPONENTS.format(
        oldest=series[0], kubelet=SOURCES["kubelet_fields"], kube_proxy=SOURCES["kube_proxy_fields"]
    )
    tables = (("KubeletConfiguration", KUBELET_FIELDS), ("KubeProxyConfiguration", KUBE_PROXY_FIELDS))
    for minor in series:
        for kind, changes in tables:
            found = list(_named(changes.get(minor, {})))
            if found:
                came, went = (
                    ", ".join(f"`{name}`" for name, there in found if there is wanted)
                    for wanted in (True, False)
                )
                text += _row(minor, kind, came, went)
    return text


def _changes() -> Iterator[tuple[str, ...]]:
    before: VersionFacts | None = None
    for minor, facts in ROWS.items():
        if before is not None:
            for name in _names():
                was, value = getattr(before, name), getattr(facts, name)
                if was != value:
                    yield minor, f"`{name}`", _shown(value), _source(name)
        before = facts


def _beginning(facts: VersionFacts) -> Iterator[tuple[str, ...]]:
    for name in _names():
        yield f"`{name}`", _shown(getattr(facts, name)), _source(name)


def _names() -> list[str]:
    return [field.name for field in fields(VersionFacts) if field.name not in {"version", *_LARGE}]


def _source(name: str) -> str:
    path, _, rest = SOURCES[name].partition("; ")
    return "; ".join([f"`{path}`" if "/" in path else path, *([rest] if rest else [])])


def _shown(value: Any) -> str:
    match value:
        case True:
            return "yes"
        case False:
            return "no"
        case None | "" | ():
            return "none"
        case str() | int():
            return f"`{value}`"
        case ProbePaths():
            asked = [("liveness", value.live), ("startup", value.startup), ("readiness", value.ready)]
            return ", ".join(f"{name} `{path}`" for name, path in asked if path)
        case Mapping():
            return ", ".join(f"`{name}={_plain(item)}`" for name, item in value.items()) or "none"
        case _:
            return (
                ", ".join(f"`{item}`" for item in sorted(value, key=str))
                if isinstance(value, frozenset)
                else ", ".join(f"`{item}`" for item in value)
            )


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _named(changes: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, bool]]:
    """The paths of fields that come or go, and whether they come."""
    for name, shape in changes.items():
        if isinstance(shape, Mapping):
            yield from _named(shape, f"{above}{name}.")
        else:
            yield f"{above}{name}", shape is not None


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"
