"""Imports go only downward through the layers, and the command line starts light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kubewright

ROOT = Path(kubewright.__file__).parent

LAYERS = {
    "cli": 7,
    "workflows": 6,
    "phases": 5,
    "lab": 4,
    "components": 4,
    "hosts": 3,
    "clients": 3,
    "model": 2,
    "errors": 1,
    "events": 1,
    "secret": 1,
}
"""Each knows those of a lower number, and itself. ARCHITECTURE.md says what each is for."""

BESIDE = {("lab", "components"), ("events", "errors"), ("clients", "hosts")}
"""On one level, and yet the first may use the second: a lab has its machines' files from components, and a runtime
is reached through its host."""

IN_PODS = {"network", "dns", "probe"}
"""They run inside pods, from an image that has little: nothing of ours but the client and the base."""
POD_MAY_USE = {
    "kubewright.clients.kube",
    "kubewright.clients.objects",
    "kubewright.clients.paths",
    "kubewright.clients.server",
    "kubewright.errors",
    "kubewright.events",
    "kubewright.secret",
}
POD_LIBRARIES = {"aiohttp", "pyroute2", "dns", "prometheus_client"}

HEAVY = {
    "asyncssh",
    "aiohttp",
    "pydantic",
    "rich",
    "cryptography",
    "yaml",
    "asyncio",
    "prometheus_client",
    "dns",
    "grpclib",
    "google",
}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("kubewright", *path.relative_to(ROOT).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path
    return found


MODULES = modules()


def parsed(name: str) -> ast.Module:
    """A module of ours; one at a time: no process runs the tests of all, and the trees are large."""
    return ast.parse(MODULES[name].read_text(), str(MODULES[name]))


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The line and dotted name of each import, wherever in the module it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides where it goes"
            base = node.module or ""
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield node.lineno, full if full in MODULES else base


def layer(name: str) -> str:
    """The first part of a module's name below the package: `kubewright.cli.lazy` is in `cli`."""
    return name.split(".")[1] if "." in name else ""


def upward(name: str, tree: ast.Module) -> Iterator[str]:
    """What is wrong with a module's imports, in words."""
    mine = layer(name)
    for line, other in imports(tree):
        where = f"{name}:{line} imports {other}"
        theirs = layer(other)
        if not other.startswith("kubewright.") or theirs == mine:
            if mine in IN_PODS and other.split(".")[0] not in POD_LIBRARIES | sys.stdlib_module_names | {
                "kubewright"
            }:
                yield f"{where}: an image for pods does not have that"
        elif mine in IN_PODS:
            if other not in POD_MAY_USE:
                yield f"{where}: a program in a pod uses the client and the base only"
        elif theirs in IN_PODS:
            # What runs in pods is data to the rest: an image is made of it, a manifest names it.
            yield f"{where}: that runs in pods"
        elif theirs not in LAYERS:
            yield f"{where}: {theirs} is in no layer"
        elif mine and LAYERS[theirs] >= LAYERS[mine] and (mine, theirs) not in BESIDE:
            yield f"{where}: {theirs} is not below {mine}"


def test_every_module_is_in_a_layer() -> None:
    strays = {
        name for name in MODULES if (part := layer(name)) and part not in {*LAYERS, *IN_PODS, "__main__"}
    }
    assert not strays


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_only_downward(name: str) -> None:
    if name == "kubewright.__main__":
        return  # it starts the command line, and is above all
    assert list(upward(name, parsed(name))) == []


@pytest.mark.parametrize(
    ("name", "code", "bad"),
    [
        ("kubewright.model.x", "from kubewright.clients import kube", True),
        ("kubewright.model.x", "def f():\n    import kubewright.cli", True),
        ("kubewright.phases.x", "from kubewright.workflows.apply import Apply", True),
        ("kubewright.hosts.x", "from kubewright.clients.kube import KubeClient", True),
        ("kubewright.lab.x", "from kubewright.components.cache import Cache", False),
        ("kubewright.components.x", "from kubewright.lab.lab import Lab", True),
        ("kubewright.dns.x", "from kubewright.model import versions", True),
        ("kubewright.dns.x", "import pydantic", True),
        (
            "kubewright.dns.x",
            "import dns.name, asyncio\nfrom kubewright.clients.kube import KubeClient",
            False,
        ),
        ("kubewright.cli.x", "from kubewright.dns.zone import Zone", True),
        ("kubewright.cli.x", "from kubewright.model.versions import facts\nimport rich", False),
        ("kubewright.errors", "from kubewright.events import Event", True),
        ("kubewright.events", "from kubewright.errors import leaves", False),
    ],
)
def test_the_rule_itself(name: str, code: str, bad: bool) -> None:
    assert bool(list(upward(name, ast.parse(code)))) == bad


@pytest.mark.parametrize("module", ["kubewright", "kubewright.cli"])
def test_the_command_line_starts_light(module: str) -> None:
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not HEAVY & set(loaded)


@pytest.mark.parametrize(
    "name", sorted(name for name in MODULES if (ROOT.parent / name.replace(".", "/")).is_dir())
)
def test_packages_themselves_import_nothing_heavy(name: str) -> None:
    """A package's `__init__` runs for each of its modules: what it imports, everybody pays."""
    tops: list[ast.stmt] = [
        node for node in parsed(name).body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    named = {other.split(".")[0] for _, other in imports(ast.Module(tops, []))}
    assert not HEAVY & named
