"""Machines on which kubeadm and we can make nodes: runtime, programs, kubelet unit and images are there."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from cluster_fixtures import Kubewright, Run, inside, on, write
from tools import kubeadm_hosts

from kubewright.clients.kube import KubeClient
from kubewright.clients.server import Server
from kubewright.components.open import open_source
from kubewright.hosts.open import open_host
from kubewright.lab.lab import Lab
from kubewright.model import kubeconfig, pki, x509
from kubewright.model.config.load import load_cluster
from kubewright.model.objects import Object
from kubewright.phases.node import Node
from kubewright.workflows.desired import Desired

KUBECTL = "kubectl --kubeconfig /etc/kubernetes/admin.conf"
CONFIG = "/root/kubeadm.yaml"
EXTERNAL_ETCD = "/root/external-etcd"
"""Where the external etcd's authority and the client's certificate are: `ca.crt`, `client.crt`, `client.key`."""

SHARED = "pki/ca.crt pki/ca.key pki/sa.key pki/sa.pub pki/front-proxy-ca.* pki/etcd/ca.*"
"""What kubeadm's reference says to copy to a further control plane; see `copy_tree`."""


# -- making them ----------------------------------------------------------------------------------------------


async def prepare(lab: Lab, *, control_planes: Sequence[str] = ()) -> None:
    """Make all machines of a lab hosts on which kubeadm works: tools.kubeadm_hosts says how."""
    await kubeadm_hosts.prepare(load_cluster(lab.places.cluster_yaml), control_planes=control_planes)


_WIPE = r"""
systemctl stop kubelet
ctr -n k8s.io tasks ls -q | xargs -r -n1 ctr -n k8s.io tasks rm -f >/dev/null 2>&1
ctr -n k8s.io containers ls -q | xargs -r ctr -n k8s.io containers rm >/dev/null 2>&1
grep -o ' /var/lib/kubelet/[^ ]*' /proc/mounts | sort -r | xargs -r umount
rm -rf /etc/kubernetes /var/lib/etcd /var/lib/kubelet "$1" "$1-data"
systemctl restart containerd
[ -z "$(ctr -n k8s.io containers ls -q)" ]
"""


def wipe(lab: Lab, machine: str) -> None:
    """Make a machine what it was after `prepare`, whoever made it a node."""
    on(lab, machine, _WIPE, EXTERNAL_ETCD)


# -- an etcd that is not kubeadm's ----------------------------------------------------------------------------


def start_external_etcd(lab: Lab, machine: str) -> None:
    """Run an etcd on a machine, at https://127.0.0.1:2379, which asks for certificates of its own authority."""
    now = datetime.now(UTC)
    authority_spec, *others = _etcd_certificates()
    authority = x509.self_signed_ca(authority_spec, x509.new_key(), now)
    write(lab, machine, f"{EXTERNAL_ETCD}/ca.crt", authority.cert)
    for spec in others:
        pair = x509.sign(spec, x509.new_key(), authority, now)
        write(lab, machine, f"{EXTERNAL_ETCD}/{spec.base}.crt", pair.cert)
        write(lab, machine, f"{EXTERNAL_ETCD}/{spec.base}.key", pair.key.reveal())
    on(lab, machine, _EXTERNAL_ETCD, EXTERNAL_ETCD)


_EXTERNAL_ETCD = """
mkdir -m 700 "$1-data"
exec ctr -n k8s.io run -d --net-host --mount "type=bind,src=$1,dst=$1,options=rbind:ro" \\
  --mount "type=bind,src=$1-data,dst=$1-data,options=rbind:rw" \\
  "$(ctr -n k8s.io images ls -q | grep -m1 ^k8s.gcr.io/etcd:)" external-etcd etcd "--data-dir=$1-data" \\
  --listen-client-urls=https://127.0.0.1:2379 --advertise-client-urls=https://127.0.0.1:2379 \\
  --client-cert-auth "--trusted-ca-file=$1/ca.crt" "--cert-file=$1/server.crt" "--key-file=$1/server.key"
"""


def _etcd_certificates() -> list[pki.CertSpec]:
    """The authority, the server's and the client's."""
    both = (pki.Usage.SERVER, pki.Usage.CLIENT)
    return [
        pki.CertSpec("ca", "ca", "etcd outside", validity=pki.CA_VALIDITY),
        pki.CertSpec("server", "server", "etcd", usages=both, addresses=("127.0.0.1",), ca="ca"),
        pki.CertSpec("client", "client", "apiserver", usages=(pki.Usage.CLIENT,), ca="ca"),
    ]


# -- using them -----------------------------------------------------------------------------------------------


def kubeadm(lab: Lab, machine: str, *arguments: str) -> str:
    """Run the real kubeadm; what it printed, its warnings included.

    It waits for 5 minutes at most for anything, and then says what it waited for.
    """
    script = 'KUBECONFIG=/etc/kubernetes/admin.conf kubeadm "$@" 2>&1'
    return on(lab, machine, script, *arguments, seconds=320)


def host_options(lab: Lab, machine: str) -> list[str | Path]:
    """What makes a node command of ours act on a machine."""
    return [
        "--host", f"root@{lab.machine(machine).plan.address}", "--ssh-key", lab.places.key,
        "--ssh-known-hosts", lab.places.known_hosts,
    ]  # fmt: skip


def kubewright_on(
    kubewright: Kubewright, lab: Lab, machine: str, *arguments: str | Path, code: int | None = 0
) -> Run:
    """Run a node command of ours on a machine."""
    return kubewright(*arguments, *host_options(lab, machine), code=code)


def until_signed(lab: Lab, machine: str) -> None:
    """Wait until the controller manager has signed cluster-info: before that nobody can join."""
    on(lab, machine, kubeadm_hosts.UNTIL_SIGNED)


def ca_hash(lab: Lab) -> str:
    """What a join knows the cluster's CA by."""
    digest = on(
        lab, "cp1",
        "openssl x509 -pubkey -in /etc/kubernetes/pki/ca.crt -noout | openssl pkey -pubin -outform DER "
        "| sha256sum | cut -d' ' -f1",
    )  # fmt: skip
    return f"sha256:{digest.strip()}"


ETCDCTL = """
etcdctl() {
  for id in $(ctr -n k8s.io tasks ls | awk '$3 == "RUNNING" {print $1}'); do
    ctr -n k8s.io containers info "$id" | grep -q '"io.kubernetes.container.name": "etcd"' && break
  done
  p=/etc/kubernetes/pki/etcd
  url=$(sed -n 's/.*--listen-client-urls=\\([^,]*\\).*/\\1/p' /etc/kubernetes/manifests/etcd.yaml)
  ctr -n k8s.io task exec --exec-id "test-$$-$(date +%N)" "$id" etcdctl --endpoints="$url" \\
    --cacert=$p/ca.crt --cert=$p/server.crt --key=$p/server.key "$@"
}
"""
"""A shell function: etcdctl in the container of a control plane's etcd, whether or not the API knows its Pod, of
which it is told up to a minute after the manifest was changed."""


def etcd_members(lab: Lab) -> str:
    """What etcdctl says of the members, by the etcd of cp1."""
    script = f"{ETCDCTL} for n in $(seq 30); do etcdctl member list && exit; sleep 1; done; exit 1"
    return on(lab, "cp1", script)


def api_endpoints(lab: Lab) -> dict[str, Any]:
    """The control planes that kubeadm knows, by their names."""
    script = f"{KUBECTL} -n kube-system get cm kubeadm-config -o 'jsonpath={{.data.ClusterStatus}}'"
    found: dict[str, Any] = yaml.safe_load(on(lab, "cp1", script))["apiEndpoints"]
    return found


def copy_tree(lab: Lab, source: str, target: str, directory: str, names: str) -> None:
    """Copy files (shell patterns, below a directory) from one machine to another."""
    read = [*inside(lab, source), "sh", "-c", f'cd "$1" && tar -cf - {names}', "sh", directory]
    unpack = [*inside(lab, target), "tar", "-C", directory, "-xf", "-"]
    on(lab, target, 'mkdir -p "$1"', directory)
    done = subprocess.run(read, capture_output=True, check=True, timeout=60)
    subprocess.run(unpack, input=done.stdout, check=True, timeout=60)


async def apply_network(lab: Lab, *, dns: bool = True) -> None:
    """Give a cluster that `init` made on cp1 the pod network, and a DNS server whose image needs no registry."""
    await _apply(lab, lambda want, first: want.network_objects(first))
    if dns:
        await apply_dns(lab)


async def apply_dns(lab: Lab) -> None:
    """Put the built-in DNS server, whose image is there, in the place of CoreDNS, whose image is in a registry."""
    on(lab, "cp1", f"{KUBECTL} -n kube-system delete deployment,configmap coredns --ignore-not-found")
    await _apply(lab, lambda want, _first: want.dns_objects())


async def _apply(lab: Lab, objects: Callable[[Desired, Node], list[Object]]) -> None:
    spec = load_cluster(lab.places.cluster_yaml)
    want = await Desired.of(spec, open_source(spec.source))
    text = on(lab, "cp1", "cat /etc/kubernetes/admin.conf")
    server = Server.from_kubeconfig(kubeconfig.load(text.encode(), "admin.conf"))
    # `open_fleet` would not do: the cluster is another's than that of cluster.yaml, by its name.
    async with open_host(spec.hosts[0], spec.ssh) as host, KubeClient(server, timeout=30) as kube:
        first = Node(spec.hosts[0], host, await host.facts(), str(lab.machine("cp1").plan.address))
        for obj in objects(want, first):
            await kube.apply(obj)
