"""What hosts say over SSH when they are asked: whether they answer, and the static Pods' containers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from kubewright.model.status import CONTROL_PLANE_PARTS, PartStatus


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """The newest container of a static Pod, as the runtime knows it."""

    name: str
    running: bool
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class HostStatus:
    """A host that was asked over SSH."""

    name: str
    answers: bool
    control_plane: bool = False
    """Whether it should run one."""
    joined: bool = False
    """Whether there is anything of a cluster's on it."""
    containers: tuple[ContainerStatus, ...] | None = None
    """Of the control plane's static Pods; None where the runtime could not be asked."""
    problems: tuple[str, ...] = ()

    def runs(self, container: str) -> bool | None:
        """Whether a static Pod's container runs; None where nobody knows."""
        if self.containers is None:
            return None
        return any(one.running for one in self.containers if one.name == container)


def host_problems(hosts: Sequence[HostStatus]) -> list[str]:
    """A line for each problem of each host."""
    return [f"host {host.name}: {problem}" for host in hosts for problem in host.problems]


def container_words(host: HostStatus, container: str) -> str:
    """What its runtime says of a static Pod's container, for somebody whom what should run in it does not answer;
    empty where nothing is known."""
    if host.containers is None:
        return ""
    found = [one for one in host.containers if one.name == container]
    if not found:
        return "there is no container of it"
    restarts = f", restarted {found[0].restarts} times" if found[0].restarts else ""
    return f"its container {'runs' if found[0].running else 'has ended'}{restarts}"


def container_parts(
    hosts: Sequence[HostStatus], answering: Collection[str], *, without: Collection[str] = ()
) -> tuple[PartStatus, ...]:
    """The control plane's parts as its hosts' container runtimes know them, for when no API can be asked.

    `answering` are the hosts whose API servers answer, and yet cannot be asked; `without` are containers that no
    host should have: etcd where it is external.
    """
    wanted = [host for host in hosts if host.control_plane and (host.joined or not host.answers)]
    parts = []
    for container, title in CONTROL_PLANE_PARTS.items():
        if container in without or not wanted:
            continue
        details = {
            host.name: _missing(host, container, answers=container != _API_SERVER or host.name in answering)
            for host in wanted
        }
        bad = {name: detail for name, detail in details.items() if detail}
        parts.append(
            PartStatus(
                title, len(wanted) - len(bad), len(wanted),
                "; ".join(f"{name}: {detail}" for name, detail in bad.items()),
            )
        )  # fmt: skip
    return tuple(parts)


_API_SERVER = "kube-apiserver"


def _missing(host: HostStatus, container: str, *, answers: bool) -> str:
    """Why a container counts as one that does not run; empty where it does, and answers if anybody asked it."""
    if not host.answers:
        return "the host does not answer"
    words = container_words(host, container)
    if not words:
        return "its container runtime does not answer"
    return "" if host.runs(container) and answers else words
