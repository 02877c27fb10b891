"""The phase that ends a node's kubelet, Pods and files: what it touches, and what it names (P07)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.phases.rooted_host import AS_ROOT, rooted, rooted_node

from kubewright.clients.cri import CONTAINERD_SOCKET, CRIO_SOCKET, CriError, Sandbox
from kubewright.events import Events
from kubewright.phases import reset
from kubewright.phases.node import Node
from kubewright.phases.others import containers_of_others
from kubewright.phases.reset import CleanUp
from kubewright.phases.reset_cgroups import pod_cgroups, remove_cgroups

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="the shell reads what root owns")

PKI = "/etc/kubernetes/pki"
SYSTEMCTL = 'echo "$*" >>"$ROOT/systemctl"; [ "$1" != is-active ] || cat "$ROOT/kubelet"'
UMOUNT = """
echo "umount $*" >>"$ROOT/systemctl"; cd "$ROOT/proc/self"
grep -v /pods/ mountinfo >rest; mv rest mountinfo
"""
CTR = """
case "$*" in
  *namespaces*) printf 'default\\nk8s.io\\nmine\\n' ;;
  *"-n k8s.io containers ls -q labels"*) printf 'aaa\\nbbb\\n' ;;
  *"-n k8s.io containers ls -q"*) printf 'aaa\\nbbb\\nby-hand\\n' ;;
  *"-n mine containers ls -q"*) printf 'm1\\nm2\\nm3\\nm4\\n' ;;
esac
"""


class Runtime:
    """What a runtime lists, and what has been removed of it."""

    def __init__(self) -> None:
        self.pods = [
            Sandbox("a", "etcd-n1", "kube-system", "u", 0, True), Sandbox("b", "web", "default", "v", 0, True),
            Sandbox("c", "by-crictl", "default", "w", 0, True, by_kubelet=False),
        ]  # fmt: skip
        self.removed: list[str] = []
        self.away = False

    async def sandboxes(self) -> list[Sandbox]:
        return self.pods

    async def remove_sandbox(self, identity: str) -> None:
        self.removed.append(identity)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    found = Runtime()

    @asynccontextmanager
    async def opened(*_: Any) -> AsyncIterator[Runtime]:
        if found.away:
            raise CriError("no runtime listens")
        yield found

    monkeypatch.setattr(reset, "open_cri", opened)
    return found


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A worker with an owner's mount, file and containers."""
    found = rooted_node(tmp_path, "n1", worker=True)
    host = rooted(found)
    host.program("systemctl", SYSTEMCTL)
    host.program("ctr", CTR)
    host.program("umount", UMOUNT)
    host.put("/kubelet", "active\n")
    mounts = ("/", "/var/lib/kubelet/pods/u/volumes/x", "/var/lib/kubelet/mine")
    host.put("/proc/self/mountinfo", "".join(f"1 1 8:1 / {at} rw - ext4 /dev/sda1 rw\n" for at in mounts))
    for path in (
        "/var/lib/kubelet/config.yaml", "/var/lib/kubelet/pods/u/etc-hosts", "/var/lib/kubelet/mine/precious",
        "/etc/kubernetes/kubelet.conf", "/etc/kubernetes/notes", f"{PKI}/ca.crt",
        "/var/log/pods/default_web_v/web/0.log", "/var/lib/kubewright/conversion.json",
    ):  # fmt: skip
        host.put(path, "")
    links = host.at("/var/log/containers")
    links.mkdir(parents=True)
    (links / "web.log").symlink_to(host.at("/var/log/pods/default_web_v/web/0.log"))
    (links / "mine.log").symlink_to(host.at("/etc/kubernetes/notes"))
    return found


def clean_up(node: Node, **more: Any) -> CleanUp:
    return CleanUp(node, certificates_dir=PKI, cri_socket=CONTAINERD_SOCKET, **more)


async def test_the_plan_names_what_goes_and_what_stays(node: Node, runtime: Runtime) -> None:
    phase = clean_up(node, files=["/var/lib/kubewright/conversion.json"])
    before = rooted(node).tree("/var/lib"), rooted(node).tree("/etc")
    assert [change.target for change in await phase.look()] == [
        "stop kubelet.service", "Pod kube-system/etcd-n1", "Pod default/web",
        "unmount /var/lib/kubelet/pods/u/volumes/x", "what is in /var/lib/kubelet", "what is in /var/log/pods",
        f"what is in {PKI}", "links to Pods' logs in /var/log/containers", "/etc/kubernetes/kubelet.conf",
        "/var/lib/kubewright/conversion.json",
    ]  # fmt: skip
    assert [kept.what for kept in phase.kept] == [
        "Pod default/by-crictl", "container by-hand in containerd's namespace k8s.io",
        "containers m1, m2, m3 and 1 more in containerd's namespace mine", "/var/lib/kubelet/mine",
        "/etc/kubernetes/notes",
    ]  # fmt: skip
    assert (rooted(node).tree("/var/lib"), rooted(node).tree("/etc")) == before
    assert runtime.removed == []


async def test_all_but_what_is_the_owners_goes(node: Node, runtime: Runtime) -> None:
    host = rooted(node)
    phase = clean_up(node, files=["/var/lib/kubewright/conversion.json"])
    await phase.run(Events())
    assert sorted(runtime.removed) == ["a", "b"]
    there = {path for path in host.tree("/") if not host.at(path).is_dir() and not path.startswith("/proc/")}
    assert there - {"/kubelet", "/systemctl"} == {
        "/var/lib/kubelet/mine/precious", "/etc/kubernetes/notes", "/var/log/containers/mine.log",
    }  # fmt: skip
    assert not host.at("/var/lib/kubewright").exists()
    said = host.at("/systemctl").read_text().replace(str(host.root), "").splitlines()
    assert said == ["is-active kubelet", "stop kubelet", "umount -- /var/lib/kubelet/pods/u/volumes/x"]


async def test_a_runtime_that_is_away_is_said_when_the_rest_is_done(node: Node, runtime: Runtime) -> None:
    runtime.away = True
    phase = clean_up(node)
    await phase.run(Events())
    assert "no Pods are removed: no runtime listens" in phase.warnings
    assert not rooted(node).at("/etc/kubernetes/kubelet.conf").exists()


async def test_a_second_run_has_nothing_to_do(node: Node, runtime: Runtime) -> None:
    host = rooted(node)
    await clean_up(node).run(Events())
    host.put("/kubelet", "inactive\n")
    host.at("/var/lib/kubelet/mine/precious").unlink()
    host.at("/var/lib/kubelet/mine").rmdir()
    runtime.pods = runtime.pods[2:]
    assert await clean_up(node).look() == []


# -- containers of others -----------------------------------------------------------------------------------


async def test_other_runtimes_are_not_asked_for_them(node: Node) -> None:
    assert await containers_of_others(node.host, CRIO_SOCKET) == []


async def test_a_filter_that_ctr_does_not_know_hides_kubernetes_namespace(node: Node) -> None:
    """Rather than to call Pods somebody else's."""
    rooted(node).program("ctr", CTR.replace("printf 'aaa\\nbbb\\n' ;;", "exit 1 ;;", 1))
    said = [kept.what for kept in await containers_of_others(node.host, f"unix://{CONTAINERD_SOCKET}")]
    assert len(said) == 1 and said[0].endswith("namespace mine")


# -- control groups -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", ["", "/lab"])
async def test_empty_control_groups_of_pods_go(node: Node, root: str) -> None:
    host = rooted(node)
    if root:
        host.put("/var/lib/kubelet/config.yaml", f"cgroupRoot: {root}\n")
    for controller in ("cpu,cpuacct", "memory"):
        (host.at(f"/sys/fs/cgroup/{controller}{root}/kubepods/burstable/pod1")).mkdir(parents=True)
        (host.at(f"/sys/fs/cgroup/{controller}{root}/other")).mkdir(parents=True)
    (host.at("/sys/fs/cgroup/cpu")).symlink_to("cpu,cpuacct")
    assert len(await pod_cgroups(host)) == 2
    assert await remove_cgroups(host) == []
    assert await pod_cgroups(host) == []
    assert host.at(f"/sys/fs/cgroup/memory{root}/other").is_dir()


async def test_control_groups_with_processes_stay(node: Node) -> None:
    host = rooted(node)
    host.put("/sys/fs/cgroup/cgroup.controllers", "cpu")
    host.put("/sys/fs/cgroup/kubepods.slice/x.slice/cgroup.procs", "4711\n")
    (host.at("/sys/fs/cgroup/user.slice/kubepods")).mkdir(parents=True)
    assert await pod_cgroups(host) == ["/sys/fs/cgroup/kubepods.slice"]
    assert await remove_cgroups(host) == [
        "a control group stays: /sys/fs/cgroup/kubepods.slice: it has processes"
    ]
    assert not host.at("/systemctl").exists()
