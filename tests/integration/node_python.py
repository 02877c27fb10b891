"""Kubewright on a machine itself: this Python, the packages that Kubewright needs, and a wheel of it."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

from cluster_fixtures import inside, write

from kubewright.lab.lab import Lab

PROGRAM = "/opt/kubewright/bin/kubewright"
_PACKAGES = "/opt/kubewright/packages"
_ROOT = Path(__file__).parents[2]


def install(lab: Lab, machine: str, work: Path) -> None:
    """Put it there; `PROGRAM` runs it. Machines are of the distribution of this computer, and have no Python."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", work, _ROOT], check=True, timeout=120)
    [wheel] = work.glob("kubewright-*.whl")
    packages = work / "packages"
    subprocess.run([*pip, "install", "--no-deps", "--target", packages, wheel], check=True, timeout=120)
    site = Path(sysconfig.get_path("purelib"))
    script = f"mkdir -p {_PACKAGES} && tar x -C {_PACKAGES}"
    _send(lab, machine, ["-C", str(packages), "."], script)
    _send(lab, machine, ["-C", str(site), *_files_of(_needed(packages))], script)
    binary = Path(sys.base_prefix, "bin", f"python{sysconfig.get_python_version()}")
    standard = Path(sysconfig.get_path("stdlib"))
    left_out = [
        "--exclude=site-packages",
        "--exclude=dist-packages",
        "--exclude=__pycache__",
        "--exclude=test",
    ]
    _send(
        lab, machine, ["-C", "/", *left_out, *(str(path)[1:] for path in [binary, standard, *_libraries(binary)])],
        "tar x --skip-old-files -C /",
    )  # fmt: skip
    run = f'#!/bin/sh\nPYTHONPATH={_PACKAGES} exec {binary} -m kubewright "$@"\n'
    write(lab, machine, PROGRAM, run.encode(), 0o755)


def _send(lab: Lab, machine: str, what: list[str], script: str) -> None:
    """Pack files here and run a script there that unpacks them."""
    with subprocess.Popen(["tar", "c", *what], stdout=subprocess.PIPE) as tar:
        subprocess.run([*inside(lab, machine), "sh", "-c", script], stdin=tar.stdout, check=True, timeout=120)
    assert tar.returncode == 0


def _needed(packages: Path) -> set[str]:
    """The packages that the installed wheel needs, and those that they need."""
    [info] = packages.glob("kubewright-*.dist-info")
    found: set[str] = set()
    rest = list(metadata.Distribution.at(info).requires or [])
    while rest:
        line = rest.pop()
        match = re.match(r"[A-Za-z0-9._-]+", line)
        if "extra ==" in line or match is None or match[0] in found:
            continue
        try:
            rest += metadata.requires(match[0]) or []
        except metadata.PackageNotFoundError:
            continue  # for another system or Python
        found.add(match[0])
    return found


def _files_of(names: set[str]) -> list[str]:
    """The top-level files and directories of packages."""
    tops = {
        file.parts[0]
        for name in names
        for file in metadata.files(name) or ()
        if file.parts[0] not in ("..", "/")
    }
    return sorted(tops)


def _libraries(binary: Path) -> list[Path]:
    """The shared libraries of a Python and of the modules that it was built with."""
    modules = Path(sysconfig.get_path("platstdlib"), "lib-dynload").glob("_*.so")
    wanted = [
        path for path in modules if re.match(r"_(ssl|hashlib|ctypes|socket|uuid|bz2|lzma)\.", path.name)
    ]
    done = subprocess.run(["ldd", binary, *wanted], capture_output=True, text=True, check=True, timeout=60)
    found = set(re.findall(r"=> (/\S+)", done.stdout))
    return sorted({Path(path).resolve() for path in found} | {Path(path) for path in found})
