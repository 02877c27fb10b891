"""What apt prints and what it is configured with, as pure functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kubewright.errors import ComponentError

SUITE = "bookworm"
SUITES = (SUITE, f"{SUITE}-updates", f"{SUITE}-security")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

_INST = re.compile(r"^Inst (?P<name>\S+) (?:\[[^\]]*\] )?\((?P<version>\S+) .*\[(?P<arch>\S+)\]\)")


class Mirror(NamedTuple):
    """Where a suite is served from."""

    uri: str
    suite: str


def parse_targets(text: str) -> list[Mirror]:
    """The first mirror of each of `SUITES`, from lines of `URI codename release component`.

    The codename comes out of the Release file; before the first `apt-get update` there is none, and the name
    in the source list is all there is.
    """
    found: dict[str, Mirror] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 3 and words[-1] == "main":
            for name in words[1:-1]:
                if name in SUITES:
                    found.setdefault(name, Mirror(words[0], name))
                    break
    return [found[suite] for suite in SUITES if suite in found]


def source_list(mirrors: Sequence[Mirror]) -> str:
    """A source list of packages and source packages; signatures are checked against Debian's own keys."""
    return "".join(
        f"{kind} [signed-by={KEYRING}] {mirror.uri} {mirror.suite} main\n"
        for kind in ("deb", "deb-src")
        for mirror in mirrors
    )


def configuration(root: Path, dump: str) -> str:
    """A private apt.conf. `dump` is `apt-config dump`: its Acquire settings (proxies, retries) are kept.

    This file is read first of all (apt.conf(5)) and leaves the user's out, whose hooks must not run for us.
    An empty dpkg status makes dependencies resolve as for an empty root, whatever is installed here.
    """
    own = {
        "Dir::Etc::parts": "/dev/null",
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::Etc::sourcelist": f"{root}/sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State": f"{root}/state",
        "Dir::State::lists": f"{root}/lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": f"{root}/cache",
        "Dir::Log": f"{root}/log",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
    }
    kept = [
        line
        for line in dump.splitlines()
        if line.startswith("Acquire::")
        and not line.startswith(("Acquire::Languages", "Acquire::IndexTargets"))
    ]
    return "".join(f'{name} "{value}";\n' for name, value in own.items()) + "\n".join(kept) + "\n"


def parse_simulation(text: str) -> dict[str, str]:
    """Names and versions out of `apt-get install --simulate`, sorted by name."""
    rows = (match for line in text.splitlines() if (match := _INST.match(line)))
    versions = dict(sorted((row["name"], row["version"]) for row in rows))
    if not versions:
        raise ComponentError("resolving packages: apt named no package to install")
    return versions


def parse_source_uris(text: str, name: str) -> dict[str, str]:
    """Version and digest of a source package out of `apt-get source --print-uris`."""
    match = re.search(rf"^'\S+' {re.escape(name)}_(\S+)\.dsc \d+ SHA256:([0-9a-f]{{64}})", text, re.MULTILINE)
    if match is None:
        raise ComponentError(f"apt knows no source package {name} in Debian {SUITE}")
    return {"version": match[1], "sha256": match[2]}
