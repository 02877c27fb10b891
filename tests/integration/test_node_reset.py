"""`kubewright reset` and `upgrade` on nodes that the real kubeadm made, and its `reset` on one of ours."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kubeadm_machines as machines
import pytest
from cluster_fixtures import ON_MACHINES, RESET, Kubewright, Run, lab_of, on, until_on, write
from host_items import differences, items
from init_configurations import KEY, SOCKET, TOKEN, joinable
from kubeadm_machines import KUBECTL, kubeadm, kubewright_on

from kubewright.errors import ExitCode
from kubewright.lab.lab import Lab

pytestmark = ON_MACHINES

FIRST, SECOND, WORKER = "cp1", "w1", "w2"
FILES = "find /etc/kubernetes /var/lib/kubelet /var/lib/etcd /var/lib/cni -type f -o -type l | sort"
KEPT = "find /etc/kubernetes /var/lib/kubelet/config.yaml /var/lib/kubelet/pki -type f | sort"
"""What of these no pod changes while the node runs."""
CONTAINERS = "ctr -n k8s.io containers ls -q"

# What belongs to the machine's owner before it is a node: containers, in another namespace and in Kubernetes' own
# without its labels, a bridge, rules in several tables and families, and a kubeconfig.
OWNERS = """
image=$(ctr -n k8s.io images ls -q | grep -m1 ^k8s.gcr.io/pause:)
ctr -n k8s.io images export - "$image" | ctr -n mine images import - >/dev/null
ctr -n mine run -d "$image" my-container
ctr -n k8s.io run -d "$image" by-hand
ip link add br-owner type bridge
ip address add 203.0.113.1/24 dev br-owner
ip link set br-owner up
iptables -N OWNER
iptables -A INPUT -s 198.51.100.7 -m comment --comment "kubernetes, but the owner's" -j DROP
iptables -A OWNER -j RETURN
iptables -t nat -A POSTROUTING -s 203.0.113.0/24 ! -o br-owner -j MASQUERADE
iptables -t mangle -A PREROUTING -i br-owner -j MARK --set-mark 7
ip6tables -A INPUT -s 2001:db8::7 -j DROP
ipset create owners hash:ip
nft add table inet owner
mkdir -p /etc/cni/net.d /root/.kube
printf 'apiVersion: v1\nkind: Config\ncurrent-context: own\ncontexts: [{name: own, context: {cluster: c}}]\n' \
  >/root/.kube/config
"""

# What the owner has put into Kubernetes' directories since: a file, a file system mounted there, a CNI network.
PLANT = """
echo mine >/etc/kubernetes/notes
mkdir -p /srv/owner /var/lib/kubelet/owner
mount --bind /srv/owner /var/lib/kubelet/owner
echo precious >/var/lib/kubelet/owner/file
echo '{"cniVersion": "0.3.1", "name": "lan", "type": "bridge", "bridge": "br-owner"}' >/etc/cni/net.d/90-lan.conf
"""
UPROOT = """
umount /var/lib/kubelet/owner
rmdir /var/lib/kubelet/owner
rm /etc/kubernetes/notes /etc/cni/net.d/90-lan.conf
"""

# What flannel and kube-proxy leave on a host whose containers somebody has removed by hand: with rules in the old
# iptables, too, and a rule of the owner's into one of the chains.
FLANNEL = """
ip link add cni0 type bridge
ip link add flannel.1 type vxlan id 1 dstport 8472
mkdir -p /run/flannel /var/lib/cni/networks/cbr0 /etc/cni/net.d
echo FLANNEL_MTU=1450 >/run/flannel/subnet.env
echo '{"name": "cbr0", "plugins": [{"type": "flannel", "delegate": {}}]}' >/etc/cni/net.d/10-flannel.conflist
printf '%064d\r\neth0' 7 >/var/lib/cni/networks/cbr0/10.244.0.7
iptables -N FLANNEL-FWD
iptables -A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
iptables-legacy -t nat -N KUBE-SERVICES
iptables-legacy -t nat -N KUBE-SVC-ABCDEFGHIJKLMN23
iptables-legacy -t nat -A KUBE-SERVICES -d 10.96.0.1 -j KUBE-SVC-ABCDEFGHIJKLMN23
iptables-legacy -t nat -A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
iptables -N KUBE-FORWARD
iptables -A FORWARD -i br-owner -j KUBE-FORWARD
"""
JUMP = "iptables -D FORWARD -i br-owner -j KUBE-FORWARD"

BEFORE: dict[str, set[str]] = {}
"""What each machine consisted of before it was a node."""


@pytest.fixture(scope="module")
async def made(kubewright: Kubewright) -> AsyncIterator[Lab]:
    """A cluster of kubeadm's: two control planes and a worker."""
    with lab_of(kubewright, RESET, workers=2) as lab:
        await machines.prepare(lab)
        on(lab, WORKER, OWNERS)
        BEFORE.update({machine: items(lab, machine) for machine in (SECOND, WORKER)})
        address = str(lab.machine(FIRST).plan.address)
        write(lab, FIRST, machines.CONFIG, joinable(address).encode())
        kubeadm(lab, FIRST, "init", "--config", machines.CONFIG, "--upload-certs", "--skip-phases=preflight")
        machines.until_signed(lab, FIRST)
        join = [
            "join", f"{address}:6443", "--token", TOKEN, "--cri-socket", SOCKET, "--skip-phases=preflight",
            "--discovery-token-ca-cert-hash", machines.ca_hash(lab),
        ]  # fmt: skip
        with ThreadPoolExecutor(1) as pool:
            worker = pool.submit(kubeadm, lab, WORKER, *join)
            kubeadm(lab, SECOND, *join, "--control-plane", "--certificate-key", KEY)
            worker.result()
        yield lab


def reset(kubewright: Kubewright, lab: Lab, machine: str, *options: str, code: int = 0) -> Run:
    return kubewright_on(kubewright, lab, machine, "reset", *options, code=code)


# -- upgrades, while the cluster is whole -------------------------------------------------------------------


def test_kubeadms_manifests_are_what_we_would_write(kubewright: Kubewright, made: Lab) -> None:
    """On the first control plane and on the one that joined it, whose etcd names the others."""
    for machine in (FIRST, SECOND):
        run = kubewright_on(kubewright, made, machine, "upgrade", "diff")
        assert run.out == "", run.out
    patch = kubewright_on(kubewright, made, FIRST, "upgrade", "diff", "v1.20.7").out
    assert "+    image: k8s.gcr.io/kube-apiserver:v1.20.7" in patch.splitlines()


def test_a_plan_of_kubeadms_cluster(kubewright: Kubewright, made: Lab) -> None:
    plan = kubewright_on(kubewright, made, FIRST, "upgrade", "plan", "v1.20.7", "-o", "json").document
    assert plan["clusterVersion"] == "v1.20.2"
    assert plan["kubelets"] == dict.fromkeys((FIRST, SECOND, WORKER), "v1.20.2")
    [upgrade] = plan["availableUpgrades"]
    rows = {row["name"]: row for row in upgrade["components"]}
    assert rows["kubelet"]["currentVersion"] == "3 x v1.20.2"
    assert (rows["kube-apiserver"]["newVersion"], rows["kube-apiserver"]["present"]) == ("v1.20.7", False)
    assert (rows["etcd"]["currentVersion"], rows["etcd"]["present"]) == ("3.4.13-0", True)
    assert [row["manualUpgradeRequired"] for row in plan["configVersions"]] == [False, False]


def test_another_minor_version_is_refused_before_anything_is_done(kubewright: Kubewright, made: Lab) -> None:
    run = kubewright_on(
        kubewright, made, FIRST, "upgrade", "apply", "v1.21.0", "--yes", code=ExitCode.VERSION_UNAVAILABLE
    )
    assert "another minor version" in run.err


def test_what_was_changed_by_hand_is_brought_back(kubewright: Kubewright, made: Lab) -> None:
    """`apply` of the same version, with kubeadm's flags: one Pod is replaced, and serves again."""
    path = "/etc/kubernetes/manifests/kube-scheduler.yaml"
    on(made, SECOND, f"sed -i 's/^    - kube-scheduler$/&\\n    - --v=1/' {path}")
    run = kubewright_on(
        kubewright,
        made,
        SECOND,
        "upgrade",
        "node",
        "--etcd-upgrade=false",
        "--certificate-renewal=false",
        "--ignore-preflight-errors=ImagePull",
    )
    assert "upgrade/kube-scheduler" in run.err
    assert kubewright_on(kubewright, made, SECOND, "upgrade", "diff").out == ""
    copies = on(made, SECOND, "grep -l -e --v=1 /etc/kubernetes/tmp/kubeadm-backup-manifests-*/*.yaml")
    assert copies.rpartition("/")[2].strip() == "kube-scheduler.yaml"


def test_a_program_that_an_interrupted_upgrade_left_is_waited_for(kubewright: Kubewright, made: Lab) -> None:
    """A run that is killed in between leaves a new manifest, and a kubelet that has not read it yet."""
    path, options = (
        "/etc/kubernetes/manifests/kube-scheduler.yaml",
        ("upgrade", "node", "--etcd-upgrade=false"),
    )
    by_hand = "pgrep -f '^kube-scheduler .*--v=1'"
    shown = f"{KUBECTL} -n kube-system get pod kube-scheduler-{SECOND} -o yaml"
    on(
        made,
        SECOND,
        f"cp {path} /root/wanted.yaml; sed -i 's/^    - kube-scheduler$/&\\n    - --v=1/' {path}",
    )
    until_on(made, SECOND, f"{by_hand} && {shown} | grep -e '- --v=1'")
    on(made, SECOND, f"systemctl stop kubelet; cp /root/wanted.yaml {path}")
    assert "wait for kube-scheduler" in kubewright_on(kubewright, made, SECOND, *options, "--dry-run").out
    on(
        made,
        SECOND,
        "systemd-run -q --on-active=8 --timer-property=AccuracySec=100ms systemctl start kubelet",
    )
    run = kubewright_on(kubewright, made, SECOND, *options, "--ignore-preflight-errors=ImagePull")
    assert "upgrade/kube-scheduler" in run.err
    on(made, SECOND, by_hand, code=1)
    again = kubewright_on(kubewright, made, SECOND, *options, "--ignore-preflight-errors=ImagePull")
    assert "upgrade/kube-scheduler" not in again.err


# -- resets, from the worker to the first control plane -----------------------------------------------------


def test_a_reset_shows_first_and_needs_a_yes(kubewright: Kubewright, made: Lab) -> None:
    before = on(made, WORKER, KEPT)
    shown = reset(kubewright, made, WORKER, "--dry-run").out
    assert "stop kubelet.service" in shown
    assert re.search(r"delete Pod kube-system/kube-proxy-\w+", shown)
    assert "what is in /var/lib/kubelet" in shown
    assert "rule -A INPUT -j KUBE-FIREWALL in table filter" in shown
    _, _, kept = shown.partition("What it leaves alone, and why:")
    for one in (
        "container my-container in containerd's namespace mine", "/root/.kube/config",
        "container by-hand in containerd's namespace k8s.io", f"kubectl delete node {WORKER}",
    ):  # fmt: skip
        assert one in kept, shown
    plan = reset(kubewright, made, WORKER, "--dry-run", "-o", "json").document
    assert {"what", "why"} <= set(plan["kept"][0])
    refused = reset(kubewright, made, WORKER, code=ExitCode.USAGE)
    assert "--force" in refused.err
    assert on(made, WORKER, KEPT) == before


def test_a_worker_keeps_what_is_its_owners(kubewright: Kubewright, made: Lab) -> None:
    """P07, P41: other containers, files and mounts stay; nothing is deleted through a mount point. Without what
    the owner has put there since, the host equals the host before the join."""
    on(made, WORKER, PLANT)
    run = reset(kubewright, made, WORKER, "--force")
    assert on(made, WORKER, FILES).split() == ["/etc/kubernetes/notes", "/var/lib/kubelet/owner/file"]
    assert on(made, WORKER, "cat /srv/owner/file /etc/kubernetes/notes").split() == ["precious", "mine"]
    assert on(made, WORKER, CONTAINERS).split() == ["by-hand"]
    assert on(made, WORKER, "ctr -n mine tasks ls | grep -c RUNNING").strip() == "1"
    assert on(made, WORKER, "ctr -n k8s.io tasks ls | grep -c RUNNING").strip() == "1"
    assert on(made, WORKER, "systemctl is-active kubelet", code=3).strip() == "inactive"
    assert "/var/lib/kubelet keeps what is mounted there: /var/lib/kubelet/owner" in run.err
    for kept in (f"kubectl delete node {WORKER}", "/etc/kubernetes/notes: ", "/etc/cni/net.d/90-lan.conf: "):
        assert kept in run.out
    on(made, WORKER, "test -e /etc/cni/net.d/90-lan.conf")
    on(made, WORKER, UPROOT)
    assert "nothing to remove" in reset(kubewright, made, WORKER, "--dry-run").out
    assert differences(BEFORE[WORKER], items(made, WORKER)) == []


def test_init_works_at_once_and_its_reset_leaves_nothing(
    kubewright: Kubewright, made: Lab, tmp_path: Path
) -> None:
    """P35, P41: ours on the host that was a worker of kubeadm's."""
    config = tmp_path / "kubeadm.yaml"
    config.write_text(joinable(str(made.machine(WORKER).plan.address)))
    ignored = ("--ignore-preflight-errors", "ImagePull")
    kubewright_on(kubewright, made, WORKER, "init", "--config", config, *ignored)
    until_on(made, WORKER, "iptables-save | grep -q KUBE-SERVICES", seconds=100, every=0.2)
    run = reset(kubewright, made, WORKER, "--force")
    assert "kubectl delete node" not in run.out
    assert differences(BEFORE[WORKER], items(made, WORKER)) == []


def test_leftovers_of_flannel_go_and_an_owners_rule_keeps_its_chain(
    kubewright: Kubewright, made: Lab
) -> None:
    """P38, P41: also what another tool's reset has left, in both kinds of iptables."""
    on(made, WORKER, FLANNEL)
    run = reset(kubewright, made, WORKER, "--force")
    assert "-A FORWARD -i br-owner -j KUBE-FORWARD" in run.out
    left = [line for line in differences(BEFORE[WORKER], items(made, WORKER)) if "filter" in line]
    assert len(left) == 2 and all("KUBE-FORWARD" in line for line in left), left
    on(made, WORKER, JUMP)
    reset(kubewright, made, WORKER, "--force")
    assert differences(BEFORE[WORKER], items(made, WORKER)) == []


def test_a_bridge_that_nothing_shows_to_be_a_pod_networks_stays(kubewright: Kubewright, made: Lab) -> None:
    on(made, WORKER, "ip link add cni0 type bridge")
    run = reset(kubewright, made, WORKER, "--force")
    assert "link cni0: no file here shows that it was a pod network's (ip link delete cni0)" in run.out
    on(made, WORKER, "ip link delete cni0")


def test_no_member_of_etcd_leaves_that_the_others_need(kubewright: Kubewright, made: Lab) -> None:
    """Of two members one is down: the other is all that is left of the majority, and nothing is removed."""
    before = on(made, SECOND, KEPT)
    on(made, FIRST, "mv /etc/kubernetes/manifests/etcd.yaml /root/")
    until_on(made, FIRST, "! pidof etcd")
    refused = reset(kubewright, made, SECOND, "--force", code=ExitCode.HOST_NOT_FIT)
    assert "its member cannot leave etcd" in refused.err
    assert "--skip-phases=remove-etcd-member" in refused.err
    # An API server without its etcd ends again and again; a kubelet waits longer each time, a new one does not.
    on(made, FIRST, "mv /root/etcd.yaml /etc/kubernetes/manifests/ && systemctl restart kubelet")
    assert on(made, SECOND, KEPT) == before
    until_on(made, FIRST, f"{KUBECTL} get --raw /readyz", seconds=100, every=0.2)


def test_a_control_plane_leaves_its_cluster(kubewright: Kubewright, made: Lab) -> None:
    run = reset(kubewright, made, SECOND, "--force", "--cleanup-tmp-dir")
    assert "kubectl delete node" not in run.out
    nodes = on(made, FIRST, f"{KUBECTL} get nodes -o name").split()
    assert f"node/{SECOND}" not in nodes and f"node/{FIRST}" in nodes
    assert on(made, SECOND, FILES) == ""
    assert on(made, SECOND, CONTAINERS) == ""
    assert re.findall(r"started, (\w+)", machines.etcd_members(made)) == [FIRST]
    assert list(machines.api_endpoints(made)) == [FIRST]
    on(made, SECOND, "rm -f /root/wanted.yaml")
    assert differences(BEFORE[SECOND], items(made, SECOND)) == []


def test_the_last_control_plane_goes_with_its_data(kubewright: Kubewright, made: Lab) -> None:
    reset(kubewright, made, FIRST, "--force")
    assert on(made, FIRST, FILES) == ""
    assert on(made, FIRST, CONTAINERS) == ""
    assert (
        on(made, FIRST, "ls -A /etc/kubernetes/pki /etc/kubernetes/manifests | grep -v :", code=0).split()
        == []
    )


# -- the other way round ------------------------------------------------------------------------------------


def test_kubeadm_resets_a_node_of_ours(kubewright: Kubewright, made: Lab) -> None:
    """On the host that our reset has left: `init` finds nothing in its way, and kubeadm undoes it."""
    kubewright_on(kubewright, made, FIRST, "init", "--ignore-preflight-errors", "ImagePull")
    # kubeadm looks for etcd's Pod, which a kubelet shows within a minute, or when it starts.
    on(made, FIRST, "systemctl restart kubelet")
    until_on(made, FIRST, f"{KUBECTL} -n kube-system get pod etcd-{FIRST}", seconds=100, every=0.2)
    said = kubeadm(made, FIRST, "reset", "--force", "--cri-socket", SOCKET)
    # Without crictl it cannot remove containers, on a cluster of its own either.
    warnings = [line for line in said.splitlines() if re.match(r"W\d{4}", line) and "crictl" not in line]
    assert warnings == []
    assert on(made, FIRST, FILES) == ""
    # Ours finishes what it had to leave.
    reset(kubewright, made, FIRST, "--force")
    assert on(made, FIRST, CONTAINERS) == ""
