"""docs/versions.md: what changes from one version of Kubernetes to the next, and where that was read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from tools.versions.sources import NOT_CHECKED, SOURCES, checked

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

## What was seen, what was read, and what was not

- **Seen on a running cluster: 1.20.** What that row makes is compared with the files and objects of the real
  kubeadm 1.20.2 for the same configurations, on running clusters; [kubeadm-parity.md](kubeadm-parity.md) has the
  differences that remain.
- **Read: {second} to {newest}.** None of it has been seen on a running cluster yet. The last column of the
  tables says for each change how it was checked:
  - `source`: in kubeadm's sources from before and from after it. At hand were those of 1.20.2 and of a 1.22
    release, whole, and parts of 1.21.4, 1.22.6, 1.23.15, 1.24.14, 1.26.7, 1.27.7, 1.28.6, 1.29.6, 1.30.7, 1.31.11
    and 1.32.10: the constants, feature gates, defaults and kinds, images, certificates, etcd's Pod, what all
    static Pods share, arguments and preflight. `source of 1.20 and 1.22`: it came with one of the two versions
    after 1.20, and in kubeadm's sources it was not checked with which one.
  - `#NUMBER`: in the description of the change in Kubernetes' repository, with its date and the branches that
    took it, and in the release notes of that version. What the notes of 1.21 to 1.37 say of kubeadm was read
    through for changes that the table lacked.
  - `KEP-NUMBER`: in the milestones of the enhancement proposal.
  - `images`: against minikube's table of what `kubeadm config images list` prints, for each patch release from
    1.20.0 to 1.36.3 and for 1.37.0-rc.0.
  - `types`: in the published types of kubelet and kube-proxy.
  - {not_checked}: taken over as it was found, and the first to doubt.
    {doubtful}

What the versions render is kept in files under `tests/unit/golden` and was reviewed, file by file:

- v1.20.2 and v1.22.6 against kubeadm's sources of every file;
- v1.24.14, v1.26.7, v1.29.6 and v1.31.12 against its sources for etcd's Pod, the probes and frame of all static
  Pods, identities, images, names, and the defaults in `kubeadm-config`; against the published types for the
  kubelet's and kube-proxy's configuration; and against the descriptions of changes for the other servers'
  arguments, the kubelet's flags, the add-ons and the permissions, where the sources of just these versions were
  not at hand;
- v{newest}.0 against the published types just before the release, the DNS add-on's source as it is from 1.34 on,
  and the descriptions of changes and release notes for the rest.

"Where" is a path in Kubernetes' repository; kubeadm is below `cmd/kubeadm`.

## What changed with each minor version

| version | fact | from then on | where | checked by |
| --- | --- | --- | --- | --- |
"""

_START = """
## Where the table starts: Kubernetes {oldest}

| fact | value | where |
| --- | --- | --- |
"""

_PATCHES = """
## What changed with a patch release

| from version | fact | from then on | checked by |
| --- | --- | --- | --- |
"""

_COMPONENTS = """
## Fields of the components' configurations

Which fields KubeletConfiguration and KubeProxyConfiguration have at {oldest} is in
`src/kubewright/model/component_fields.py`; these came and went later. They were compared, field by field, with the
published types (`{kubelet}`, `{kube_proxy}`, and those of component-base
inside them) at the last patch release of each minor version, and so was what kubeadm writes of the fields that
nobody set.

| version | kind | came | went |
| --- | --- | --- | --- |
"""


def page() -> str:
    """The whole page, as Markdown. Raises `KeyError` for a fact that has no source."""
    series = list(ROWS)
    by_minor = list(_changes())
    by_patch = list(_patches())
    doubtful = sum(row[-1] == NOT_CHECKED for row in [*by_minor, *by_patch])
    text = _HEAD.format(
        oldest=series[0],
        second=series[1],
        newest=series[-1],
        not_checked=NOT_CHECKED,
        doubtful=f"Changes of that kind: {doubtful}." if doubtful else "No change is left that stands so.",
    )
    text += "".join(_row(*row) for row in by_minor)
    text += _START.format(oldest=series[0])
    text += "".join(_row(*row) for row in _beginning(ROWS[series[0]]))
    text += _PATCHES
    text += "".join(_row(*row) for row in by_patch)
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
                    yield minor, f"`{name}`", _shown(value), _source(name), checked(minor, name)
        before = facts


def _patches() -> Iterator[tuple[str, ...]]:
    for minor, patches in PATCHES.items():
        for patch, changed in sorted(patches.items()):
            for name, value in changed.items():
                yield f"{minor}.{patch}", f"`{name}`", _shown(value), checked(f"{minor}.{patch}", name)


def _beginning(facts: VersionFacts) -> Iterator[tuple[str, ...]]:
    for name in _names():
        yield f"`{name}`", _shown(getattr(facts, name)), _source(name)


def _names() -> list[str]:
    return [field.name for field in fields(VersionFacts) if field.name not in {"version", *_LARGE}]


def _source(name: str) -> str:
    path = SOURCES[name]
    return f"`{path}`" if "/" in path else path


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
