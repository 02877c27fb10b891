"""What is stopped for a restore, and what is waited for after it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.phases.rooted_host import AS_ROOT, RootedHost, rooted, rooted_node

from kubewright.clients.cri import RuntimeContainer, Sandbox
from kubewright.errors import ApiError, HostError, WaitTimeoutError
from kubewright.events import Events
from kubewright.phases import restore_run
from kubewright.phases.node import Node
from kubewright.phases.restore_run import (
    KubeletStarted,
    KubeletStopped,
    NodesReport,
    StaticPodsRun,
    WatchersRestarted,
)

SYSTEMCTL = r"""
case $1 in
is-active) cat "$ROOT/state"; [ "$(cat "$ROOT/state")" = active ] ;;
daemon-reload) : >"$ROOT/read" ;;
stop) echo inactive >"$ROOT/state" ;;
start) [ -e "$ROOT/read" ] || exit 3; echo active >"$ROOT/state" ;;
esac
"""
# One that is asked to end does so, but for `deaf`.
CTR = r"""
shift 2
case "$1 $2" in
"tasks ls") echo "TASK PID STATUS"; for id in proxy deaf; do [ -e "$ROOT/$id" ] || echo "$id 7 RUNNING"; done ;;
"tasks kill") echo "$4 $5" >>"$ROOT/log"; [ "$4 $5" = "SIGTERM deaf" ] || : >"$ROOT/$5" ;;
esac
"""

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="hosts are run as root")


class Runtime:
    """Containers by id: the Pod's namespace and their name. One that has ended has a successor at once."""

    def __init__(self, host: RootedHost, containers: Mapping[str, tuple[str, str]]) -> None:
        self.host = host
        self.all = dict(containers)
        self.replaced = True
        self.gone: set[str] = set()
        """The ids whose Pods are stopped when they have ended."""

    async def sandboxes(self) -> list[Sandbox]:
        return [
            Sandbox(f"pod-{name}", name, space, "", 0, not (ident in self.gone and self._ended(ident)))
            for ident, (space, name) in self.all.items()
        ]

    def _ended(self, ident: str) -> bool:
        return self.host.at(f"/{ident}").exists()

    async def containers(self) -> list[RuntimeContainer]:
        found = []
        for ident, (_, name) in self.all.items():
            ended = self._ended(ident)
            if not ended or (self.replaced and ident not in self.gone):
                found.append(RuntimeContainer(f"{ident}{'-2' * ended}", f"pod-{name}", name, 0, True, ""))
        return found


def runtime(monkeypatch: pytest.MonkeyPatch, node: Node, **containers: tuple[str, str]) -> Runtime:
    made = Runtime(rooted(node), containers)

    @asynccontextmanager
    async def opened(*_: object) -> AsyncIterator[Runtime]:
        yield made

    monkeypatch.setattr(restore_run, "open_cri", opened)
    monkeypatch.setattr(restore_run, "_RUN_DEADLINE", 0.0)
    return made


async def test_a_kubelet_starts_by_the_unit_that_is_there_now(tmp_path: Path) -> None:
    node = rooted_node(tmp_path)
    rooted(node).program("systemctl", SYSTEMCTL)
    rooted(node).put("/state", "activating")
    assert len(await KubeletStopped(node).run(Events())) == 1
    assert await KubeletStopped(node).run(Events()) == []
    assert len(await KubeletStarted(node).run(Events())) == 1
    assert await KubeletStarted(node).run(Events()) == []


async def test_a_kubelet_that_does_not_start_is_told(tmp_path: Path) -> None:
    node = rooted_node(tmp_path)
    rooted(node).program("systemctl", 'case $1 in start) echo "bad unit" >&2; exit 1 ;; esac')
    with pytest.raises(HostError, match="the kubelet does not start") as caught:
        await KubeletStarted(node).run(Events())
    assert "bad unit" in caught.value.evidence


async def test_static_pods_must_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = rooted_node(tmp_path)
    runtime(monkeypatch, node, a=("kube-system", "etcd"), b=("users", "kube-apiserver"))
    await StaticPodsRun(node, "", ["etcd"]).run(Events())
    with pytest.raises(WaitTimeoutError) as caught:
        await StaticPodsRun(node, "", ["etcd", "kube-apiserver"]).run(Events())
    assert any("kube-apiserver does not run yet" in line for line in caught.value.evidence)


async def test_what_watches_runs_anew_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = rooted_node(tmp_path)
    host = rooted(node)
    host.program("ctr", CTR)
    host.program("sleep", "exit 0")
    made = runtime(
        monkeypatch, node, etcd1=("kube-system", "etcd"), proxy=("kube-system", "kube-proxy"),
        deaf=("kube-system", "dns"), own=("users", "web"),
    )  # fmt: skip
    changes = await WatchersRestarted(node, "", ["etcd"]).run(Events())
    assert [change.target for change in changes] == ["restart container kube-proxy", "restart container dns"]
    assert host.at("/log").read_text().splitlines() == [
        "SIGTERM proxy", "SIGTERM deaf", "SIGKILL proxy", "SIGKILL deaf",
    ]  # fmt: skip
    made.all = {"last": ("kube-system", "kube-proxy")}
    made.replaced = False
    host.program("ctr", 'shift 2; [ "$1 $2" != "tasks kill" ] || : >"$ROOT/last"')
    with pytest.raises(WaitTimeoutError) as caught:
        await WatchersRestarted(node, "", ["etcd"]).run(Events())
    assert any("kube-proxy does not run again yet" in line for line in caught.value.evidence)


async def test_a_pod_that_the_cluster_does_not_know_any_more_has_no_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A DaemonSet's Pods of a conversion are others than those of the backup."""
    node = rooted_node(tmp_path)
    rooted(node).program("ctr", CTR)
    made = runtime(monkeypatch, node, proxy=("kube-system", "kube-proxy"))
    made.gone = {"proxy"}
    assert len(await WatchersRestarted(node, "", ["etcd"]).run(Events())) == 1


class Leases:
    """Renewed with each look, but for those of `silent`; the first answer is none."""

    def __init__(self, *silent: str) -> None:
        self.silent = silent
        self.asked = 0

    async def get(self, _version: str, kind: str, name: str, namespace: str) -> dict[str, Any]:
        assert (kind, namespace) == ("Lease", "kube-node-lease")
        self.asked += 1
        if self.asked == 1:
            raise ApiError("it starts", status=503)
        return {"spec": {"renewTime": "then" if name in self.silent else str(self.asked)}}


async def test_all_nodes_must_report(monkeypatch: pytest.MonkeyPatch) -> None:
    await NodesReport(Leases(), ["cp1", "w1"]).run(Events())  # type: ignore[arg-type]
    monkeypatch.setattr(restore_run, "_REPORT_DEADLINE", 0.05)
    with pytest.raises(WaitTimeoutError) as caught:
        await NodesReport(Leases("w1"), ["cp1", "w1"]).run(Events())  # type: ignore[arg-type]
    assert "last seen: w1 does not report yet" in caught.value.evidence
