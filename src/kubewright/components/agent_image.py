"""The image of our own programs that run in pods: Debian's Python, a few wheels, and parts of this package."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import kubewright
from kubewright.components.apt import Apt
from kubewright.components.cache import Cache, Entry, scratch
from kubewright.components.image import FORMAT, Config, Layer, Tree, write_archive, write_layer
from kubewright.components.recipes import IPTABLES_FILES, IPTABLES_LINKS, IPTABLES_PACKAGES, PATH, base_tree
from kubewright.components.rootfs import Rootfs
from kubewright.components.source import Want
from kubewright.components.tools import run_tool
from kubewright.errors import ComponentError
from kubewright.events import Activity

NAME = "agent"
REPOSITORY = "kubewright.dev/agent"
DNS_REPOSITORY = "kubewright.dev/dns"

_KIND = "image-agent"
_BASE_KIND = "agent-base"
_ARCHIVE = "image.tar"
_BASE = "base.layer"

_PYTHON = "python3.11"
_PACKAGES = (f"{_PYTHON}-minimal", f"lib{_PYTHON}-stdlib", "libstdc++6", *IPTABLES_PACKAGES)
_STDLIB = f"/usr/lib/{_PYTHON}"
_SITE = f"/usr/local/lib/{_PYTHON}/dist-packages"
# What our programs import and all that it imports, each at the version that runs here.
_WHEELS = (
    "aiohappyeyeballs", "aiohttp", "aiosignal", "attrs", "dnspython", "frozenlist", "idna", "multidict",
    "prometheus-client", "propcache", "pyroute2", "typing-extensions", "yarl",
)  # fmt: skip
# Of this package: what runs in pods and what that imports (ARCHITECTURE.md, the in-pod programs).
_SOURCES = (
    "__init__.py", "errors.py", "events.py", "secret.py", "clients/__init__.py", "clients/kube.py",
    "clients/objects.py", "clients/paths.py", "clients/server.py", "network/**/*.py", "dns/**/*.py", "probe.py",
    "probe/**/*.py",
)  # fmt: skip
# What those programs may import at any time, whatever they import today.
_PROMISED = ("aiohttp", "aiohttp.web", "dns.asyncresolver", "dns.zone", "prometheus_client", "pyroute2")
# Never imported by a server: tests, editors, installers, terminals and databases.
_PRUNED = (
    "test", "tests", "idlelib", "lib2to3", "ensurepip", "distutils", "pydoc_data", "tkinter", "turtledemo",
    "venv", "curses", "dbm", "xmlrpc", "msilib", "__pycache__", "sitecustomize.py",
    "config-3.11-x86_64-linux-gnu", "_test*.so", "_xx*.so", "xx*.so", "_curses*.so", "_dbm*.so",
    "_crypt*.so", "nis*.so", "ossaudiodev*.so", "readline*.so", "audioop*.so", "_codecs_*.so", "_lsprof*.so",
    "_tkinter*.so", "*.pyi", "*.pyx", "*.pxd", "*.c", "*.h", "RECORD", "direct_url.json",
)  # fmt: skip


def agent_reference() -> str:
    """The image's name; its tag changes with the content of our programs and the versions they are pinned to."""
    return f"{REPOSITORY}:v{kubewright.__version__}-{_fingerprint()[:8]}"


def dns_reference(agent: str, coredns_tag: str) -> str:
    """The name of that image (`agent` is its reference) in the Deployment that stands in CoreDNS' place.

    kubeadm takes what follows the last colon for CoreDNS' version, and `kubeadm upgrade plan` stops at one that
    it does not know. Hence the tag is the version whose Corefile the server follows, and the content's mark is in
    the repository.
    """
    return f"{DNS_REPOSITORY}/{agent.rpartition('-')[2]}:{coredns_tag}"


class AgentMaker:
    """Makes the agent's image: a base layer that changes with its packages, a thin one with our programs."""

    def __init__(self, cache: Cache, apt: Apt) -> None:
        self._cache = cache
        self._apt = apt

    async def kept(self, want: Want) -> Entry | None:
        """The image if it is there: without apt, without the network, in milliseconds."""
        versions = self._apt.kept(_PACKAGES)
        return await self._cache.find(_KIND, _inputs(want, versions)) if versions else None

    async def make(self, want: Want, activity: Activity) -> Entry:
        """The image, made where the cache does not have it."""
        versions = await self._apt.resolve(
            _PACKAGES,
            activity=activity,
            enough=lambda found: self._cache.has(_BASE_KIND, _base_inputs(found)),
        )

        async def build_base(target: Path) -> dict[str, Any]:
            return await _build_base(self._apt, versions, target, activity)

        async def build(target: Path) -> dict[str, Any]:
            activity.progress(f"making {want.reference}")
            base = await self._cache.entry(
                _BASE_KIND, _base_inputs(versions), build_base, waiting=activity.progress
            )
            return await _build(base, want, target)

        return await self._cache.entry(_KIND, _inputs(want, versions), build, waiting=activity.progress)


def sources() -> dict[str, Path]:
    """The files of this package that the image has, by their path in it (`kubewright/dns/server.py`)."""
    package = Path(kubewright.__file__).parent
    found = {
        path.relative_to(package.parent).as_posix(): path for glob in _SOURCES for path in package.glob(glob)
    }
    return dict(sorted(found.items()))


def pins() -> dict[str, str]:
    """The version of each wheel: the one that this program itself runs with."""
    try:
        return {name: metadata.version(name) for name in _WHEELS}
    except metadata.PackageNotFoundError as error:
        raise ComponentError(
            f"the agent's image needs {error.name}, which is not installed beside kubewright",
            hint="install kubewright with all of its dependencies",
        ) from error


def _fingerprint() -> str:
    digest = hashlib.sha256(json.dumps([FORMAT, _PACKAGES, pins()]).encode())
    for name, path in sources().items():
        digest.update(f"\0{name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _base_inputs(versions: Mapping[str, str]) -> dict[str, Any]:
    return {
        "format": FORMAT, "versions": dict(versions), "pins": pins(), "pruned": _PRUNED, "files": IPTABLES_FILES
    }  # fmt: skip


def _inputs(want: Want, versions: Mapping[str, str]) -> dict[str, Any]:
    return {"base": _base_inputs(versions), "programs": _fingerprint(), "reference": want.reference}


async def _build_base(
    apt: Apt, versions: Mapping[str, str], target: Path, activity: Activity
) -> dict[str, Any]:
    async with scratch(target) as work:
        root, stage = work / "root", work / "stage"
        await apt.make_root(_PACKAGES, versions, root, activity=activity)
        activity.progress("downloading the agent's wheels")
        await _install_wheels(stage)
        await asyncio.to_thread(shutil.copytree, root / _STDLIB[1:], stage / _STDLIB[1:], symlinks=True)
        await asyncio.to_thread(_prune, stage)
        rootfs = Rootfs(root)
        activity.progress("compiling the agent's Python modules")
        await _compile(_python(rootfs, stage), stage, [_STDLIB, _SITE], keep_sources=False)
        tree = base_tree()
        await rootfs.copy_programs(tree, f"/usr/bin/{_PYTHON}", *IPTABLES_FILES)
        await _add_stage(rootfs, tree, stage)
        tree.link("/usr/bin/python3", _PYTHON)
        for path, to in IPTABLES_LINKS.items():
            tree.link(path, to)
        layer = await write_layer(tree, target / _BASE)
    return {"diff": layer.diff}


async def _build(base: Entry, want: Want, target: Path) -> dict[str, Any]:
    """Our programs on top of the base, compiled and imported once by the very Python that will run them."""
    file = base.files[_BASE]
    async with scratch(target) as work:
        root, stage = work / "root", work / "stage"
        root.mkdir()
        await run_tool(
            "unpacking the agent's base",
            [
                "tar",
                "--extract",
                "--zstd",
                "--no-same-owner",
                "--file",
                str(file.path),
                "--directory",
                str(root),
            ],
        )
        for name, path in sources().items():
            copy = stage / _SITE[1:] / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        rootfs = Rootfs(root)
        await _compile(_python(rootfs, root), stage, [_SITE], keep_sources=True)
        await _check_imports(_python(rootfs, root), root, stage)
        tree = Tree()
        await _add_stage(rootfs, tree, stage)
        layer = await write_layer(tree, work / "programs")
        layers = [Layer(file.path, base.info["diff"], file.sha256, file.size), layer]
        config = Config(
            env={"PATH": PATH, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            labels={
                "org.opencontainers.image.title": NAME,
                "org.opencontainers.image.version": kubewright.__version__,
            },
        )
        image_id = await asyncio.to_thread(
            write_archive, target / _ARCHIVE, want.reference, want.arch, config, layers
        )
    return {"image_id": image_id, "version": kubewright.__version__}


async def _install_wheels(stage: Path) -> None:
    """Download the wheels for the image's Python and architecture, through the user's pip configuration."""
    if importlib.util.find_spec("pip") is None:
        raise ComponentError(
            "the agent's image needs pip in kubewright's own Python environment",
            hint=f"{sys.executable} -m ensurepip",
        )
    # pip takes these names one by one (PEP 600); 2.36 is the C library of Debian 12.
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)]
    await run_tool(
        "downloading the agent's wheels",
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile",
            "--no-deps", "--only-binary=:all:", "--implementation=cp", "--python-version=3.11", *platforms,
            "--platform=manylinux2014_x86_64", f"--target={stage}{_SITE}",
            *(f"{name}=={version}" for name, version in pins().items()),
        ],
    )  # fmt: skip
    shutil.rmtree(stage / _SITE[1:] / "bin", ignore_errors=True)


def _prune(stage: Path) -> None:
    for pattern in _PRUNED:
        for path in list(stage.rglob(pattern)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _python(rootfs: Rootfs, home: Path) -> list[str]:
    """The image's Python as a command that runs here, with the standard library of `home`."""
    return [
        "env", f"PYTHONHOME={home}/usr", "PYTHONHASHSEED=0", "PYTHONDONTWRITEBYTECODE=1",
        *rootfs.run_prefix(), str(rootfs.find(f"/usr/bin/{_PYTHON}")),
    ]  # fmt: skip


async def _compile(python: Sequence[str], stage: Path, paths: Sequence[str], *, keep_sources: bool) -> None:
    """Compile modules as they will lie in the image. Without their sources they are half the size.

    The files' times play no part in it (PEP 552, unchecked), so that the same sources give the same bytes.
    """
    await run_tool(
        "compiling the agent's Python modules",
        [
            *python, "-m", "compileall", "-q", "-s", str(stage), "-p", "/", *([] if keep_sources else ["-b"]),
            "--invalidation-mode", "unchecked-hash", *(f"{stage}{path}" for path in paths),
        ],
    )  # fmt: skip
    if not keep_sources:
        for path in paths:
            for source in (stage / path[1:]).rglob("*.py"):
                source.unlink()


async def _check_imports(python: Sequence[str], root: Path, stage: Path) -> None:
    """Import every module once: what was pruned too much, or is not in the list of wheels, is found here."""
    modules = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in sources()
        if not name.endswith("__main__.py")
    ]
    script = "import sys, importlib; [importlib.import_module(name) for name in sys.argv[1:]]"
    path = f"{stage}{_SITE}:{root}{_SITE}"
    await run_tool(
        "importing the agent's modules in its own image",
        ["env", f"PYTHONPATH={path}", *python, "-S", "-c", script, *_PROMISED, *modules],
    )


async def _add_stage(rootfs: Rootfs, tree: Tree, stage: Path) -> None:
    """Put all of `stage` into `tree`, with the libraries that its extension modules need from the root."""
    staged = Rootfs(stage)
    extensions = [path for path in staged.copy(tree, "/usr") if ".so" in path.name and path.is_file()]
    for library in await rootfs.libraries(extensions):
        tree.file(library, rootfs.find(library), 0o755)
