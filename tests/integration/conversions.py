"""A cluster that is converted while clients use it: killed, brought back, and looked at afterwards."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import kubeadm_machines as machines
from cluster_fixtures import Kubewright, on
from ha_cluster import LONGEST_GAP, HaCluster, Running
from init_configurations import SOCKET
from kubeadm_machines import KUBECTL, kubeadm
from tools.ha_probe import Book, Failure

from kubewright.lab.lab import Lab

PLANES, WORKERS = ["cp1", "cp2", "cp3"], ["w1", "w2"]
Load = Callable[[], None]


class Converting:
    """A cluster with the control plane cp1, and the file by which it is to have three behind an endpoint."""

    def __init__(
        self, lab: Lab, kubewright: Kubewright, file: Path, config: Path, endpoint: str,
        workers: Sequence[str] = WORKERS,
    ) -> None:  # fmt: skip
        """`config` leads to cp1's own API server; `endpoint` is `host:port`, as a worker reaches it."""
        self.lab, self.kubewright, self.file, self.config = lab, kubewright, file, config
        self.endpoint = endpoint
        self.workers = workers
        self.books: dict[str, Book] = {}
        """What clients saw, when there were any."""

    def address(self, machine: str) -> str:
        return str(self.lab.machine(machine).plan.address)

    def cluster(self, planes: Sequence[str], workers: Sequence[str] = ()) -> HaCluster:
        return HaCluster(self.lab, self.config, planes, workers or self.workers)

    def run(self, how: str = "--to-ha", *, serving: Load = lambda: None) -> int:
        """A conversion from beginning to end, or to the end of one that was killed; `serving` is called when there
        is an endpoint. How many lines of events it has written."""
        process = self.kubewright.start("convert", how, "-f", self.file, "--no-merge", "-o", "json")
        assert process.stdout is not None
        lines = list[str]()
        seconds, last = _until(_kept(process.stdout, lines), "", serving)
        assert process.wait(10) == 0, last
        stages = [f"{stage['name']} {stage['seconds']:.1f} s" for stage in last["data"]["stages"]]
        print(f"\nconverted in {seconds:.1f} s: {', '.join(stages)}")
        return len(lines)

    def killed(self, phase: str, how: str = "--to-ha", *, serving: Load = lambda: None) -> None:
        """A conversion that is killed some time after a phase has begun."""
        process = self.kubewright.start("convert", how, "-f", self.file, "--no-merge", "-o", "json")
        assert process.stdout is not None
        began, _ = _until(process.stdout, phase, serving)
        later = random.uniform(0, 2)
        time.sleep(later)
        assert process.poll() is None, f"the conversion ended before {phase}, or with it"
        process.kill()
        process.wait()
        print(f"\nkilled {began + later:.1f} s after its beginning, in {phase}")

    def killed_at(self, number: int) -> float:
        """A conversion that is killed when it has said so much, in lines of its events, which a slow computer says
        later. After how many seconds; 0 where it ended before that."""
        process = self.kubewright.start("convert", "--to-ha", "-f", self.file, "--no-merge", "-o", "json")
        assert process.stdout is not None
        started = time.monotonic()
        ended = sum(1 for _ in islice(process.stdout, number)) < number or process.poll() is not None
        process.kill()
        process.wait()
        return 0.0 if ended else time.monotonic() - started

    def restore(self) -> None:
        """By the command that was printed, whose id is also the name of the backup's folder. A conversion that was
        killed before it had a whole backup has changed nothing."""
        kept = on(
            self.lab, "cp1", "ls -d /var/lib/kubewright/backups/*/cluster.json 2>/dev/null || true"
        ).split()
        if kept:
            self.kubewright("convert", "--restore", kept[-1].split("/")[-2], "-f", self.file, "--yes")

    def state(self) -> dict[str, Any]:
        """What a restored cluster has again: its files, configuration, Nodes and members."""
        files = "cd /etc/kubernetes && find . -type f | sort | xargs sha256sum"
        kubelet = "cat /etc/kubernetes/kubelet.conf /var/lib/kubelet/config.yaml | sha256sum"
        get = f"{KUBECTL} -n kube-system get"
        configs = f"{get} cm kubeadm-config kube-proxy -o jsonpath='{{.items[*].data}}'"
        return {
            "files": on(self.lab, "cp1", files),
            "kubelets": [on(self.lab, name, kubelet) for name in ("cp1", *self.workers)],
            "nodes": on(self.lab, "cp1", f"{get} nodes -o name"),
            "config": on(self.lab, "cp1", configs),
            "members": re.sub("^[^,]*", "", machines.etcd_members(self.lab)),
        }

    @contextmanager
    def clients(self, directory: Path) -> Iterator[Load]:
        """Clients write and watch at the old address, and ask pods; what is yielded starts those of the endpoint.
        What they saw is in `books` afterwards."""
        cluster = self.cluster(["cp1"])
        urls = cluster.place_pods()
        loads: dict[str, Running] = {}
        with ExitStack() as stack:

            def load(name: str, what: str, server: str = "", **more: Any) -> None:
                cluster.endpoint = server or f"{self.address('cp1')}:6443"
                prefix = f"{name}-{directory.name}".replace("_", "-")  # names that are written are used once
                loads[name] = stack.enter_context(cluster.load(what, directory, prefix=prefix, **more))

            load("watch", "watch")
            load("old", "write")
            load("pods", "get", urls=urls)
            yield lambda: load("endpoint", "probe", self.endpoint)
            time.sleep(2)
        self.books = {name: running.book for name, running in loads.items()}
        for name, book in self.books.items():
            print(f"{name}: {book}")

    def nobody_noticed(self, planes: Sequence[str] = PLANES, *, restarted: bool = False) -> None:
        """No request failed through the endpoint or to the pods; at the old address, one restart of the API server
        at most. Every acknowledged write is there, and was told to whoever watched: where the API server was
        `restarted`, which knows nothing of what was before, by a new list."""
        for name in ("endpoint", "pods", *([] if restarted else ["watch"])):
            assert not self.books[name].failures, "\n".join(self.books[name].failures)
        old = self.books["old"]
        assert not not_of_one_gap(old), "\n".join(old.failures)
        self.cluster(planes).verify(old.acknowledged)
        told = set(self.books["watch"].acknowledged)
        assert [name for name in old.acknowledged if name not in told] == []

    def killed_plane(self, victim: str, directory: Path) -> None:
        """A control plane's machine is killed, and nobody waits for an answer for long."""
        cluster = self.cluster(PLANES)
        with cluster.load("probe", directory) as probe:
            self.kubewright("lab", "kill", self.lab.name, victim)
            time.sleep(8)
        self.kubewright("lab", "start", self.lab.name, victim)
        cluster.healed()
        print(f"\n{victim} killed: {probe.book}")
        assert probe.book.gap() <= LONGEST_GAP, "\n".join(probe.book.failures)

    def joined_by_kubeadm(self, plane: str, worker: str) -> None:
        """Real kubeadm joins a control plane with uploaded certificates, and a worker, at the endpoint."""
        key = kubeadm(self.lab, "cp1", "init", "phase", "upload-certs", "--upload-certs").split()[-1]
        join = on(self.lab, "cp1", _JOIN).split()[1:]
        assert self.endpoint in join
        options = ["--cri-socket", SOCKET, "--skip-phases=preflight"]
        kubeadm(self.lab, plane, *join, "--control-plane", "--certificate-key", key, *options)
        kubeadm(self.lab, worker, *join, *options)
        for name in (plane, worker):
            on(
                self.lab,
                "cp1",
                f"{KUBECTL} wait node {name} --for=condition=Ready --timeout=120s",
                seconds=150,
            )
        assert len(machines.etcd_members(self.lab).splitlines()) == len(PLANES) + 1


def not_of_one_gap(book: Book) -> list[Failure]:
    """The writes that failed, but for those of the longest time without an answer: of one restart."""
    stream = book.streams["create"]
    gap = stream.gap
    return [row for row in stream.failures if not gap.at - 1 < row.at < gap.at + gap.seconds]


_JOIN = "kubeadm token create --kubeconfig /etc/kubernetes/admin.conf --print-join-command 2>/dev/null"


def _kept(lines: Iterable[str], kept: list[str]) -> Iterator[str]:
    for line in lines:
        kept.append(line)
        yield line


def _until(events: Iterable[str], phase: str, serving: Load) -> tuple[float, dict[str, Any]]:
    """Read a run's events until a phase begins, or without one to their end; the seconds from the first event to
    that, and the event."""
    first, now, begun = 0.0, 0.0, set[str]()
    event: dict[str, Any] = {}
    for line in events:
        event = json.loads(line)
        now = event["at"]
        first = first or now
        if event["kind"] == "phase.done" and event["elapsedSeconds"] > 5:
            print(
                f"{now - first:5.1f} s: {event['name']} {event.get('host', '')}: {event['elapsedSeconds']:.1f} s"
            )
        if event["kind"] != "phase.started" or event["name"] in begun:
            continue
        begun.add(event["name"])
        if event["name"] == "endpoint-answers":
            serving()
        if event["name"] == phase:
            break
    else:
        assert not phase, f"no phase {phase} began"
    return now - first, event
