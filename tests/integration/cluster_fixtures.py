"""Runs `kubewright` as a user would: the console script, with a home and a kubeconfig of the tests' own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
import yaml

from kubewright.clients import kubeconfig
from kubewright.clients.kube import KubeClient
from kubewright.clients.server import Server
from kubewright.components.cache import cache_root
from kubewright.errors import KubewrightError
from kubewright.lab import cgroups, snapshot
from kubewright.lab.lab import Lab, lab_names, open_lab
from kubewright.lab.machine import enter

_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
_PREFIX = os.environ.get("KUBEWRIGHT_TEST_LABS", "it") + _WORKER
"""What the labs' names begin with: two runs of these tests at once need two of them, and so do a run's workers."""
OURS = tuple(
    f"{_PREFIX}-{name}"
    for name in (
        "cluster", "bad", "other", "drill", "ten", "parity", "mixed", "init", "joined", "reset", "faults", "ha",
        "endpoint", "etcd", "three", "grown", "adopted", "converted", "own", "moved", "fit", "refused",
        "doctor",
    )
)  # fmt: skip
"""Every lab that these tests make; whatever is left of one is removed at their end."""
(
    CLUSTER, BAD, OTHER, DRILL, TEN, PARITY, MIXED, NODE_INIT, JOINED, RESET, FAULTS, HA, ENDPOINT, ETCD, THREE,
    GROWN, ADOPTED, CONVERTED, CONVERTED_OURS, MOVED, FIT, REFUSED, DOCTOR,
) = OURS  # fmt: skip

ON_MACHINES = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="machines are made as root"),
]
"""What a module of tests is marked with that makes machines."""

SCRIPT = Path(sys.executable).with_name("kubewright")


@dataclass(frozen=True)
class Run:
    """A command that has ended."""

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float

    @property
    def events(self) -> list[dict[str, Any]]:
        """What `-o json` printed, of a command that prints a stream."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def document(self) -> Any:
        """What `-o json` printed, of a command that prints one document."""
        return json.loads(self.out)

    def __str__(self) -> str:
        return f"kubewright {' '.join(self.arguments)}: {self.code}\n{self.out[-4000:]}\n{self.err[-4000:]}"


class Kubewright:
    """The console script, with HOME and the kubeconfig in `home`, and the cache of whoever runs the tests."""

    def __init__(self, home: Path) -> None:
        self.home = home
        outside = ("KUBECONFIG", "SSH_AUTH_SOCK", "XDG_CACHE_HOME", "KUBEWRIGHT_DEBUG")
        env = {name: value for name, value in os.environ.items() if name not in outside}
        self.env = env | {"HOME": str(home), "KUBEWRIGHT_CACHE": str(cache_root()), "NO_COLOR": "1"}

    @property
    def kubeconfig(self) -> Path:
        """The file that kubectl would read."""
        return self.home / ".kube/config"

    def __call__(self, *arguments: str | Path, code: int | None = 0, timeout: float = 400) -> Run:
        """Run it to its end and expect the exit code `code`; `timeout` is in seconds."""
        words = tuple(map(str, arguments))
        started = time.monotonic()
        done = subprocess.run(
            [SCRIPT, *words], env=self.env, capture_output=True, text=True, timeout=timeout, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        run = Run(words, done.returncode, done.stdout, done.stderr, time.monotonic() - started)
        assert code is None or run.code == code, str(run)
        assert not self.crashes(), self.crashes()
        return run

    def start(self, *arguments: str | Path, out: IO[str] | int = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start it; it is for the caller to read its output and to end it."""
        return subprocess.Popen(
            [SCRIPT, *map(str, arguments)], env=self.env, stdout=out, text=True,
            stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def crashes(self) -> list[str]:
        """The tracebacks of errors that should not happen."""
        return [path.read_text() for path in (self.home / ".cache/kubewright/crash").glob("*")]


def on(lab: Lab, machine: str, script: str, *arguments: str, code: int = 0, seconds: float = 120) -> str:
    """Run a shell script in a machine, whatever state its network is in; what it printed."""
    try:
        done = subprocess.run(
            [*inside(lab, machine), "sh", "-c", script, "sh", *arguments],
            capture_output=True, text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        said = ((late.stdout or b"") + (late.stderr or b"")).decode()  # bytes, whatever was asked for
        raise AssertionError(f"{machine}: {script} {arguments}: not within {seconds} s\n{said}") from None
    assert done.returncode == code, f"{machine}: {script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def until_on(lab: Lab, machine: str, condition: str, *, seconds: int = 60, every: float = 0.05) -> None:
    """Wait in a machine until a shell command succeeds; where it never does, what it said last is in the error."""
    on(lab, machine, _UNTIL.format(condition=condition, seconds=seconds, every=every))


_UNTIL = """
condition() {{ {condition}; }}
read -r now rest </proc/uptime
end=$((${{now%.*}} + {seconds}))
until condition >/dev/null 2>&1; do
  read -r now rest </proc/uptime
  [ "${{now%.*}}" -lt "$end" ] || {{ condition; exit; }}
  sleep {every}
done
"""
"""By a clock that no test sets."""


@contextmanager
def start_on(lab: Lab, machine: str, script: str, *arguments: str) -> Iterator[list[str]]:
    """Run a shell script in a machine until the context ends; the lines that it wrote are in the list then."""
    lines: list[str] = []
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            [*inside(lab, machine), "sh", "-c", script, "sh", *arguments],
            stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True, text=True,
        )  # fmt: skip
        try:
            yield lines
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            out.seek(0)
            lines += out.read().splitlines()


def write(lab: Lab, machine: str, path: str, content: bytes, mode: int = 0o600) -> None:
    """Put a file on a machine."""
    script = f'umask 077; mkdir -p "$(dirname "$1")" && cat >"$1" && chmod {mode:o} "$1"'
    command = [*inside(lab, machine), "sh", "-c", script, "sh", path]
    subprocess.run(command, input=content, check=True, timeout=120)


def put(lab: Lab, machine: str, local: Path, remote: str) -> None:
    """Copy a program into a machine."""
    write(lab, machine, remote, local.read_bytes(), 0o755)


def inside(lab: Lab, machine: str) -> list[str]:
    """What makes a command run in a machine."""
    pid = lab.machine(machine).pid()
    assert pid is not None, f"{machine} does not run"
    return enter(pid)


@contextmanager
def lab_of(kubewright: Kubewright, name: str, *, workers: int) -> Iterator[Lab]:
    """A lab of machines without a cluster, removed at the end."""
    kubewright("lab", "down", name)
    try:
        kubewright("lab", "up", "--name", name, "--workers", str(workers), "--machines-only")
        yield open_lab(name)
    finally:
        kubewright("lab", "down", name, code=None)


def remove_labs(kubewright: Kubewright) -> None:
    """Remove all that is left of our labs."""
    for name in OURS:
        if name in lab_names():
            kubewright("lab", "down", name)


def copied(lab: Lab, target: Path, **changes: Any) -> tuple[Path, dict[str, Any]]:
    """A lab's cluster.yaml in another place, with other top-level fields; the file, and the document in it."""
    document = yaml.safe_load(lab.places.cluster_yaml.read_text()) | changes
    return written(target, document), document


def written(target: Path, document: dict[str, Any]) -> Path:
    """A document as a cluster.yaml."""
    target.write_text(yaml.safe_dump(document, sort_keys=False))
    return target


def client(lab: Lab, *, timeout: float = 30) -> KubeClient:
    """A client of a lab's cluster, from this computer."""
    return KubeClient(Server.from_kubeconfig(kubeconfig.load([lab.places.kubeconfig])), timeout=timeout)


def check_is_green(kubewright: Kubewright, lab: Lab, nodes: int) -> dict[str, Any]:
    """Run `check` and insist on it; returns its document."""
    document: dict[str, Any] = kubewright("check", "-f", lab.places.cluster_yaml, "-o", "json").document
    assert document["ok"]
    assert len(document["nodes"]) == nodes
    assert document["checks"] == len(document["results"])
    return document


def no_changes(kubewright: Kubewright, file: Path) -> None:
    """A further run would find nothing to do."""
    assert kubewright("plan", "-f", file, "-o", "json").document["changes"] == []


SHARED = (
    "/kubewright-lab", "/run/kubewright", "/run/kubewright/lab", "/run/kubewright/lab/.inotify.json",
    "/var/lib/kubewright", "/var/lib/kubewright/lab", "/kubewright-test",
)  # fmt: skip
"""What there is as long as there is any lab, and the images that test_components.py loads."""


class Leftovers:
    """What there is on this computer after labs that was not there before them, but for other people's doings."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._others: set[str] = set()
        self._looked = 0.0
        self._before: snapshot.Snapshot = {}

    async def begin(self) -> None:
        """Look at this computer before the labs."""
        self.elsewhere(snapshot.Difference("", True, ""))  # to know the labs that are there now and may go
        self._before = await snapshot.take()

    async def found(self, seconds: float = 10) -> list[snapshot.Difference]:
        """What differs, still, after that many seconds."""
        return await snapshot.settle(self._before, deadline=seconds, ignore=self.elsewhere)

    def elsewhere(self, difference: snapshot.Difference) -> bool:
        """Whether a difference is about other labs, or about programs that have nothing to do with ours."""
        if time.monotonic() - self._looked > 0.5:
            self._looked = time.monotonic()
            for name in lab_names():
                if name not in self._names:
                    self._others.update(_words_of(name))
        if any(word in f"{difference.line}/" for word in self._others):
            return True
        if self._others and difference.line.endswith(SHARED):
            return True
        if difference.kind == "kernel setting" and self._others:
            return "inotify" in difference.line  # raised for each lab, and set back when the last one goes
        if difference.kind in ("process", "network namespace") or not difference.added:
            return not any(name in difference.line for name in self._names)
        return difference.kind in ("cgroup", "file", "mount") and not any(
            word in difference.line for word in ("kubewright", "nspawn", "netns", *self._names)
        )


def _words_of(name: str) -> set[str]:
    """What a line has in it that is about a lab."""
    words = {f"/{name}/", f"/{name}.", f"lab {name}", f"lab:{name}"}
    try:
        return words | {f'"{open_lab(name).plan.link}"'}
    except KubewrightError:
        return words


def kill_machine(lab: Lab, name: str) -> None:
    """Pull a machine's plug."""
    assert cgroups.kill(lab.name, name)


async def dns_servers(kube: KubeClient) -> list[dict[str, Any]]:
    """The Pods that serve cluster DNS, without those that end."""
    pods = await kube.list("v1", "Pod", "kube-system", labels="k8s-app=kube-dns")
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
