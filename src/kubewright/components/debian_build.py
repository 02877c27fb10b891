"""Kubernetes' programs built out of Debian's source package `kubernetes`, real kubeadm and kubectl included."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kubewright.components.apt import Apt
from kubewright.components.cache import Cache, Entry, scratch
from kubewright.components.tools import require, run_tool
from kubewright.errors import ComponentError, ExitCode
from kubewright.events import Activity, Events

KIND = "kubernetes"
VERSION = "v1.20.2"
"""What the package of Debian 12 holds; its own number, 1.20.5+really1.20.2, says so too."""
PROGRAMS = (
    "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubeadm", "kubectl",
)  # fmt: skip

_COMMIT = "faecb196815e248d3ecfb03c680a4507229c2a56"  # of the tag v1.20.2
_COMMIT_TIME = "1610544489"  # 2021-01-13T13:28:09Z, as the official binaries say
_SETTINGS: Mapping[str, str] = {
    "CGO_ENABLED": "0",
    "GO111MODULE": "off",
    # Without the clouds' SDKs, and without Docker: a kubelet with dockershim waits 5 s for a Docker at each start
    # (cAdvisor asks five times), wherever its containers run. Kubernetes' scripts read the tags up to the next
    # dash, so they must stand last; -v is for the progress.
    "GOFLAGS": "-v -tags=providerless,dockerless",
    "KUBE_GIT_VERSION": VERSION,
    "KUBE_GIT_TREE_STATE": "clean",
    "KUBE_GIT_COMMIT": _COMMIT,
    "SOURCE_DATE_EPOCH": _COMMIT_TIME,
}
# The vendored copy crashes under Go 1.18 and later; Debian's is the first release that does not.
_REPLACED = "vendor/github.com/modern-go/reflect2"
_REPLACEMENT = "/usr/share/gocode/src/github.com/modern-go/reflect2"

_TOOLS = (
    "golang-go", "golang-github-modern-go-reflect2-dev", "dpkg-dev", "make", "rsync", "jq",
)  # fmt: skip
_PACKAGES_COMPILED = 2500
"""About as many packages as the compiler names on its way: the measure of progress, nothing more."""
_SPACE = 5 << 30
"""Bytes that the tree, the compiler's cache and the result take while it builds."""


def inputs(source: Mapping[str, str]) -> dict[str, Any]:
    """What the programs are made from. The compiler's version is recorded and is no part of it."""
    return {
        "source": dict(source), "programs": PROGRAMS, "settings": dict(_SETTINGS), "replaced": _REPLACED
    }  # fmt: skip


async def kubernetes(cache: Cache, apt: Apt, events: Events) -> Entry:
    """The entry with Kubernetes' programs, built where the cache does not have it: minutes on two cores."""
    known = apt.kept_source("kubernetes")
    if known and (found := await cache.find(KIND, inputs(known))):
        return found
    async with events.phase("kubernetes-build", f"build Kubernetes {VERSION} from source") as activity:
        source = await apt.source_version(
            "kubernetes", enough=lambda found: cache.has(KIND, inputs(found)), activity=activity
        )

        async def build(target: Path) -> dict[str, Any]:
            return await _build(apt, source, target, activity)

        return await cache.entry(KIND, inputs(source), build, waiting=activity.progress)


async def _build(apt: Apt, source: Mapping[str, str], target: Path, activity: Activity) -> dict[str, Any]:
    require("building Kubernetes", *_TOOLS)
    free = shutil.disk_usage(target).free
    if free < _SPACE:
        raise ComponentError(
            f"building Kubernetes needs {_SPACE >> 30} GiB free at {target.parent}, and {free >> 30} GiB are",
            hint="free some space, or set KUBEWRIGHT_CACHE to a directory on a larger disk",
            exit_code=ExitCode.HOST_DISK_FULL,
        )
    async with scratch(target) as work:
        tree = work / "go" / "src" / "k8s.io" / "kubernetes"
        await apt.fetch_source("kubernetes", source["version"], tree, work, activity)
        await asyncio.to_thread(_replace, tree)
        (work / "home").mkdir()
        environment = {
            **_SETTINGS,
            "HOME": str(work / "home"),
            "GOPATH": str(work / "go"),
            "GOCACHE": str(work / "compiled"),
            "TMPDIR": str(work),
        }
        compiler = await run_tool("asking for Go's version", ["go", "version"], env=environment)
        await run_tool(
            "building Kubernetes", ["make", f"WHAT={' '.join(f'cmd/{name}' for name in PROGRAMS)}"],
            cwd=tree, env=environment, timeout=3600, on_line=_Progress(activity),
        )  # fmt: skip
        built = (tree / "_output" / "bin").resolve()
        for name in PROGRAMS:
            (built / name).rename(target / name)
    version = (
        await run_tool("checking kubeadm", [str(target / "kubeadm"), "version", "-o", "short"])
    ).strip()
    if version != VERSION:
        raise ComponentError(
            f"building Kubernetes: the kubeadm that came of it says {version}, not {VERSION}"
        )
    return {"compiler": compiler.strip(), "package": source["version"]}


def _replace(tree: Path) -> None:
    """Put Debian's newer copy in place of the vendored one, keeping the files that Kubernetes' scripts read."""
    old = tree / _REPLACED
    build_files = {path.name: path.read_bytes() for path in old.glob("BUILD*")}
    shutil.rmtree(old)
    shutil.copytree(_REPLACEMENT, old)
    for name, content in build_files.items():
        (old / name).write_bytes(content)


class _Progress:
    """Turns the build's output into progress: which part it is at and how much of it is compiled."""

    def __init__(self, activity: Activity) -> None:
        self._activity = activity
        self._count = 0
        self._part = "starting"

    def __call__(self, line: str) -> None:
        if line.startswith(("+++", "Makefile", "go:", "stat ")):
            return
        if line.startswith(("cmd/", "./vendor/k8s.io", "./vendor/github.com")):
            self._part = "compiling the programs" if line.startswith("cmd/") else "generating code"
        elif "/" in line and " " not in line:
            self._count += 1
            if self._count % 20:
                return
        else:
            return
        fraction = min(self._count / _PACKAGES_COMPILED, 0.99)
        self._activity.progress(f"{self._part}: {line.removeprefix('k8s.io/kubernetes/')}", fraction)
