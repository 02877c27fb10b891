"""Faults that people make and meet, made for real on the machines of a cluster, each with what `doctor` is to say.

What this computer's kernel cannot show is provoked as near as it allows: swap by a file over the kernel's list,
and cgroups that are not unified by moving the kubelet.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

from cluster_fixtures import on, until_on

from kubewright.lab.lab import Lab

PLANES, WORKERS = ("cp1", "cp2", "cp3"), ("w1", "w2")
EVERY = (*PLANES, *WORKERS)
SEEN = 60
"""Seconds in which a fault shows itself."""
_TOOLS = """
set -e
export KUBECONFIG=/etc/kubernetes/admin.conf
manifests=/etc/kubernetes/manifests kept=/run/kept
keep() { mkdir -p -m 700 $kept; cp -a "$1" "$kept/$(echo "$1" | tr / _)"; }
# By a rename: who watches a manifest would read a half of it, and does not look at names with a dot before them.
new() { echo "$(dirname "$1")/.$(basename "$1").new"; }
back() { mv "$kept/$(echo "$1" | tr / _)" "$(new "$1")" && mv "$(new "$1")" "$1"; }
write() { cat >"$(new "$1")" && mv "$(new "$1")" "$1"; }
edit() { path=$1; shift; keep $path; sed "$@" $kept/$(echo $path | tr / _) | write $path; }
away() { mkdir -p -m 700 $kept; mv "$1" "$kept/$(echo "$1" | tr / _)"; }
over() { printf "$2" >/run/over && mount --bind /run/over "$(readlink -f "$1")"; }
bare() { umount "$(readlink -f "$1")" 2>/dev/null || true; rm -f /run/over; }
restarted() { systemctl reset-failed kubelet 2>/dev/null || true; systemctl restart kubelet; }
# Again where it fails: another fault may have just taken an API server away.
system() {
  for turn in 1 2 3 4 5 6 7 8; do
    if kubectl -n kube-system "$@"; then return 0; fi
    sleep 0.5
  done
  return 1
}
changed() { sed "$2" $kept/$1 >$kept/new && system replace -f $kept/new; }
map() { mkdir -p -m 700 $kept; system get configmap "$1" -o yaml >$kept/$1; changed "$1" "$2"; }
unmap() { changed "$1" '/resourceVersion:/d'; }
pod_of() { system get pods -l "$1" --field-selector "spec.nodeName=$(hostname)" -o name; }
dns_on() {
  system patch deployment coredns \
    -p '{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/hostname":'"$1"'}}}}}'
}
# Without grace: a kubelet of 1.20 may take a minute to let a Pod go whose containers have ended.
renew() { system delete --force --grace-period=0 $(pod_of "$1"); }
serves() {
  until [ "$(pod_of "$1")" ] && system wait --for=condition=Ready --timeout=60s $(pod_of "$1"); do sleep 0.2; done
}
"""


_POD_THERE = """
served() { system get pods -l k8s-app=kube-dns --field-selector "spec.nodeName=$1" | grep -q 1/1; }
if ! served "$1"; then
  dns_on "\\"$1\\""
  until served "$1"; do sleep 0.5; done
fi
"""
"""Those of cluster DNS move where they have to: at the beginning they are on the workers."""


@dataclass(frozen=True)
class Fault:
    """Something that is broken on one machine."""

    name: str
    pitfall: str
    kind: str
    """The kind of the one finding that `doctor` is to have."""
    breaks: str
    mends: str
    on: tuple[str, ...] = EVERY
    """Where it can be made."""
    seen: str = ""
    """A command on that machine that succeeds when the fault has shown itself."""
    cluster: bool = False
    """The finding is of the cluster, and names no host."""
    touches: frozenset[str] = frozenset()
    """What it is about: two faults with one of these in common are not made at once, for one may hide
    the other, and neither are two on one machine."""
    api: bool = False
    """It takes the API server of the machine away."""
    fix: bool = False
    """`doctor --fix` mends it."""

    asked: bool = False
    """It shows in packets to a Pod of the machine: there must be one."""

    def parts(self, machine: str) -> frozenset[str]:
        """What it is about, with the machine."""
        return self.touches | {machine}

    def prepare(self, lab: Lab, machine: str) -> None:
        """What it takes to be seen, while all is well."""
        if self.asked:
            on(lab, "cp1", _TOOLS + _POD_THERE, machine)

    def make(self, lab: Lab, machine: str) -> None:
        """Break it, and wait until that shows."""
        on(lab, machine, _TOOLS + self.breaks)
        if self.seen:
            until_on(lab, machine, f"{_TOOLS}\n{self.seen}", seconds=SEEN, every=0.2)

    def mend(self, lab: Lab, machine: str) -> None:
        """Bring back what was."""
        on(lab, machine, _TOOLS + self.mends)
        if self.asked:
            on(lab, "cp1", f"{_TOOLS} dns_on null")

    def named(self, machine: str) -> tuple[str, str, tuple[str, ...]]:
        """What the finding is to be: its kind, pitfall, and hosts."""
        return self.kind, self.pitfall, () if self.cluster else (machine,)


def _of(*names: str) -> frozenset[str]:
    return frozenset(names)


_DIES = '[ "$(systemctl show -P NRestarts kubelet)" -ge 2 ]'
"""The kubelet ends again and again; systemd starts it every 3 s."""
_KUBELET = "/var/lib/kubelet/config.yaml"
_CLIENT = "/etc/kubernetes/pki/apiserver-kubelet-client.crt"
_PEM = "/var/lib/kubelet/pki/kubelet-client-current.pem"
_SUBNET = "net=$(ip route | sed -n 's/^unreachable \\(10[.].*\\)[.]0[/]24.*/\\1/p')"
"""What the addresses of the machine's Pods begin with."""


def _container(name: str) -> str:
    """Succeeds when a static Pod's container does not run."""
    return f"! pgrep -f '^{name} ' >/dev/null"


def _manifest(part: str, kind: str, pitfall: str, *touches: str) -> tuple[Fault, Fault]:
    path, api = f"$manifests/{part}.yaml", part in ("kube-apiserver", "etcd")
    # It would wait half a minute for its watches to end.
    ends = "sleep 1; pkill -KILL -x kube-apiserver || true" if part == "kube-apiserver" else ":"
    return (
        Fault(
            f"{part}-flag", pitfall, f"{kind}-down",
            f"edit {path} '0,/^ *- --/s//&no-such-flag\\n&/'; {ends}",
            f"back {path}", PLANES, touches=_of(*touches), api=api,
            seen=f"{_container(part)} && ls /var/log/pods/kube-system_{part}-*/{part}/ | grep -q .",
        ),
        Fault(
            f"{part}-removed", pitfall, f"{kind.removesuffix('-member')}-removed", f"away {path}; {ends}",
            f"back {path}", PLANES, touches=_of(*touches), api=api, seen=_container(part),
        ),
    )  # fmt: skip


def _rule(name: str, pitfall: str, kind: str, rule: str, *touches: str, asked: bool = False) -> Fault:
    table, _, text = rule.partition(" ")
    return Fault(
        name, pitfall, kind, f"iptables -w -t {table} -I {text}", f"iptables -w -t {table} -D {text}",
        WORKERS, touches=_of("packets", *touches), asked=asked,
    )  # fmt: skip


def _foreign(path: str) -> str:
    """A program for another architecture than this one's in the place of a program."""
    machine = "076" if platform.machine() == "aarch64" else "267"  # e_machine of amd64, of arm64
    head = rf"\177ELF\002\001\001\000\000\000\000\000\000\000\000\000\002\000\{machine}\000\001\000\000\000"
    content = f"{{ printf '{head}'; head -c 4096 /dev/zero; }}"
    return f"[ ! -e {path} ] || away {path}; {content} >{path}; chmod 755 {path}"


def _signed(target: str, days: int) -> str:
    """Prints a certificate of the cluster's CA as another one is, which ends in some days from now."""
    return (
        f"openssl x509 -x509toreq -in {target} -signkey {target.replace('.crt', '.key')} "
        f"-copy_extensions copyall 2>/dev/null | openssl x509 -req -days {days} -copy_extensions copyall "
        "-CA /etc/kubernetes/pki/ca.crt -CAkey /etc/kubernetes/pki/ca.key 2>/dev/null"
    )


def _kubelets(days: int) -> str:
    """Gives the kubelet another client certificate, with its key, which ends in some days from now."""
    return (
        f"pem=$(readlink -f {_PEM}); keep $pem; echo $pem >$kept/pem; "
        "openssl x509 -in $pem >/run/old.crt; openssl pkey -in $pem >/run/old.key; "
        f"{_signed('/run/old.crt', days)} >/run/new.crt; cat /run/new.crt /run/old.key | write $pem; "
        "rm /run/old.* /run/new.crt; restarted"
    )


FAULTS = (
    # -- the host ----------------------------------------------------------------------------------------------
    Fault(
        "swap", "P16", "swap-on",
        r"over /proc/swaps 'Filename Type Size Used Priority\n/swapfile file 1048572 0 -2\n'; "
        r"printf '#!/bin/sh\numount /proc/swaps\n' >/usr/local/bin/swapoff; chmod 755 /usr/local/bin/swapoff; "
        "restarted",
        "bare /proc/swaps; rm -f /usr/local/bin/swapoff; restarted", seen=_DIES, fix=True,
    ),
    Fault(
        "forwarding", "P46", "ip-forward-off", "sysctl -qw net.ipv4.ip_forward=0",
        "sysctl -qw net.ipv4.ip_forward=1", WORKERS, fix=True, touches=_of("packets"),
    ),
    Fault(
        "bridge-filter", "P46", "bridge-filter-off", "sysctl -qw net.bridge.bridge-nf-call-iptables=0",
        "sysctl -qw net.bridge.bridge-nf-call-iptables=1", fix=True,
    ),
    Fault(
        "disk", "P20", "disk-full",
        f"edit {_KUBELET} -e '/^evictionPressureTransitionPeriod/d' "
        r"-e '$aevictionHard: {nodefs.available: 99%}\nevictionPressureTransitionPeriod: 5s'; restarted",
        f"back {_KUBELET}; restarted", WORKERS, touches=_of("dns"),
    ),
    Fault(
        "renamed", "P14", "host-renamed", "hostname renamed; restarted",
        "hostname $(cat /etc/hostname); restarted", touches=_of("packets"),
    ),
    Fault(
        "cgroups", "P49", "cgroup-accounting",
        "group=/sys/fs/cgroup/memory/system.slice/kubelet.service; mkdir -p $group; "
        "pidof kubelet >$group/cgroup.procs",
        "restarted; rm -rf /etc/systemd/system/kubelet.service.d/20-kubewright-accounting.conf; "
        "systemctl daemon-reload", fix=True,
    ),
    Fault(
        "cgroup-driver", "P48", "cgroup-driver", f"edit {_KUBELET} '$acgroupDriver: systemd'; restarted",
        # Pods are made anew, by what ConfigMaps say then.
        f"back {_KUBELET}; restarted", WORKERS, touches=_of("proxy"),
    ),
    Fault(
        "resolv", "P18", "resolv-loop", "keep /etc/resolv.conf; echo nameserver 127.0.0.53 >/etc/resolv.conf",
        "back /etc/resolv.conf", touches=_of("dns"),
    ),
    Fault(
        "resolv-dns", "P18", "resolv-loop",
        "keep /etc/resolv.conf; echo nameserver 10.96.0.10 >/etc/resolv.conf", "back /etc/resolv.conf",
        touches=_of("dns"),
    ),
    # -- the runtime -------------------------------------------------------------------------------------------
    Fault(
        "runtime", "P15", "runtime-dead", "systemctl stop containerd",
        # A kubelet that goes on tells the API for 10 s more what it has seen before.
        "systemctl start containerd; restarted",
        seen="! ctr version", touches=_of("packets"),
    ),
    Fault(
        "architecture", "P13", "kubelet-dead", f"{_foreign('/usr/local/bin/kubelet')}; restarted || true",
        "back /usr/local/bin/kubelet; restarted", seen=_DIES,
    ),
    Fault(
        "program", "P13", "exec-format",
        f"mkdir -p /run/foreign; {_foreign('/run/foreign/it')}; write /etc/kubernetes/manifests/foreign.yaml <<.\n"
        "apiVersion: v1\nkind: Pod\nmetadata: {name: foreign, namespace: kube-system}\nspec:\n"
        "  hostNetwork: true\n  containers:\n  - name: foreign\n    command: [/run/foreign/it]\n"
        "    image: $(ctr -n k8s.io images ls -q | grep -m1 /pause:)\n"
        "    volumeMounts: [{name: it, mountPath: /run/foreign}]\n"
        "  volumes: [{name: it, hostPath: {path: /run/foreign}}]\n.\n",
        "rm -rf /etc/kubernetes/manifests/foreign.yaml /run/foreign", WORKERS,
        seen="grep -rqs 'exec format error' /var/log/pods/kube-system_foreign-*/",
    ),
    # -- the kubelet -------------------------------------------------------------------------------------------
    Fault("stopped", "P53", "kubelet-stopped", "systemctl stop kubelet", "systemctl start kubelet", fix=True),
    Fault(
        "disabled", "P53", "kubelet-disabled", "systemctl disable -q kubelet", "systemctl enable -q kubelet",
        fix=True,
    ),
    Fault(
        "port", "P44", "kubelet-dead",
        "systemctl stop kubelet; systemd-run -q --unit squatter perl -MIO::Socket::INET -e "
        "'my $s = IO::Socket::INET->new(Listen => 1, LocalPort => 10250) or die; sleep'; "
        "until ss -Hltn | grep -q ':10250 '; do sleep 0.1; done; systemctl start kubelet",
        "systemctl stop squatter; restarted", seen=_DIES,
    ),
    Fault(
        "expired", "P22", "kubelet-certificate", _kubelets(-1), "back $(cat $kept/pem); restarted", PLANES,
        seen=_DIES,
    ),
    Fault(
        "rotation", "P23", "kubelet-rotation",
        f"edit {_KUBELET} 's/^rotateCertificates.*/rotateCertificates: false/'; {_kubelets(9)}",
        f"back {_KUBELET}; back $(cat $kept/pem); restarted", PLANES,
    ),
    Fault(
        "pinned", "P30", "kubelet-server",
        "edit /etc/kubernetes/kubelet.conf 's,server: .*,server: https://cp1:6443,'; restarted",
        "back /etc/kubernetes/kubelet.conf; restarted", WORKERS, touches=_of("cp1"),
    ),
    # -- the control plane -------------------------------------------------------------------------------------
    *_manifest("kube-apiserver", "apiserver", "P21"),
    *_manifest("kube-controller-manager", "controller-manager", "P21"),
    *_manifest("kube-scheduler", "scheduler", "P21"),
    *_manifest("etcd", "etcd-member", "P01", "etcd"),
    Fault(
        "frozen", "P21", "api-silent", "pkill -STOP kube-apiserver", "pkill -CONT kube-apiserver || true",
        PLANES, api=True, seen="! curl -skm 1 https://127.0.0.1:6443/livez",
    ),
    Fault(
        "ending", "P22", "certificates-ending",
        f"keep {_CLIENT}; {_signed(_CLIENT, 9)} >/run/new.crt; cat /run/new.crt >{_CLIENT}",
        f"back {_CLIENT}", PLANES,
    ),
    Fault(
        "names", "P26", "api-certificate",
        "cd /etc/kubernetes/pki; keep $PWD/apiserver.crt; "
        "openssl x509 -x509toreq -in apiserver.crt -signkey apiserver.key 2>/dev/null"
        " | openssl x509 -req -days 300 -CA ca.crt -CAkey ca.key 2>/dev/null >/run/new.crt; "
        "cat /run/new.crt >apiserver.crt",
        "back /etc/kubernetes/pki/apiserver.crt; until curl -sm 1 --cacert /etc/kubernetes/pki/ca.crt "
        "https://$(hostname):6443/livez; do sleep 0.5; done", PLANES, api=True,
    ),
    Fault(
        "loud", "P03", "loud", "edit $manifests/kube-scheduler.yaml '0,/^ *- --/s//&v=5\\n&/'",
        "back $manifests/kube-scheduler.yaml", PLANES, seen="pgrep -f 'kube-scheduler.*--v=5'",
    ),
    Fault(
        "balancer", "P31", "balancer-down", "systemctl stop kubewright-haproxy",
        "systemctl start kubewright-haproxy", touches=_of("packets"),
    ),
    # -- services ----------------------------------------------------------------------------------------------
    Fault(
        "proxy-pinned", "P30", "proxy-server", "map kube-proxy 's,server: https.*,server: https://cp1:6443,'",
        "unmap kube-proxy", PLANES, cluster=True, touches=_of("proxy", "cp1"),
    ),
    Fault(
        "no-cidr", "P11", "proxy-no-cidr", "map kube-proxy 's/clusterCIDR: .*/clusterCIDR: \"\"/'",
        "unmap kube-proxy", PLANES, cluster=True, touches=_of("proxy"),
    ),
    Fault(
        "proxy", "P11", "proxy-down",
        "map kube-proxy 's/  bindAddress: .*/  bindAddress: nonsense/'; renew k8s-app=kube-proxy",
        "unmap kube-proxy; renew k8s-app=kube-proxy; serves k8s-app=kube-proxy", PLANES,
        touches=_of("proxy"), seen="system get pods --field-selector spec.nodeName=$(hostname) | "
        "awk '/kube-proxy.*BackOff/ && $4 >= 2 {n = 1} END {exit !n}'",
    ),
    Fault(
        "kept-off", "P12", "daemon-pod-kept-off",
        "mkdir -p $kept; system get daemonset kube-proxy -o yaml >$kept/ds; system patch daemonset kube-proxy "
        '-p \'{"spec":{"updateStrategy":{"type":"OnDelete"},"template":{"spec":{"tolerations":null}}}}\'; '
        "system delete $(pod_of k8s-app=kube-proxy)",
        "unmap ds; serves k8s-app=kube-proxy", PLANES,
        touches=_of("proxy"), seen='[ -z "$(pod_of k8s-app=kube-proxy)" ]',
    ),
    _rule("api-service", "P11", "service-silent", "raw OUTPUT -d 10.96.0.1 -j DROP"),
    # -- the pod network ---------------------------------------------------------------------------------------
    Fault(
        "leaked", "P37", "addresses-leaked",
        f"{_SUBNET}; cd /var/lib/cni/networks/kubewright; "
        "for n in $(seq 20 254); do echo dead$n >$net.$n; done; touch -d '10 minutes ago' $net.*",
        "cd /var/lib/cni/networks/kubewright; grep -l ^dead * | xargs -r rm", WORKERS, fix=True,
        touches=_of("dns"),
    ),
    Fault(
        "bridge", "P38", "bridge-address",
        f"{_SUBNET}; ip link add cni0 type bridge; "
        "ip addr add $net.1/24 dev cni0; ip link set cni0 up",
        "ip link del cni0 2>/dev/null || true", WORKERS, fix=True, touches=_of("packets"),
    ),
    Fault(
        "flannel", "P36", "subnet-env",
        "echo '{\"name\": \"cbr0\", \"cniVersion\": \"0.3.1\", \"plugins\": [{\"type\": \"flannel\"}]}' "
        ">/etc/cni/net.d/05-flannel.conflist",
        "rm /etc/cni/net.d/05-flannel.conflist", touches=_of("dns"),
    ),
    _rule(
        "packets", "P39", "packets-dropped", "filter FORWARD -i eth0 -d 10.244.0.0/16 -j DROP", "dns", asked=True
    ),
    _rule(
        "mtu", "P39", "packets-too-large",
        "filter FORWARD -i eth0 -d 10.244.0.0/16 -m length --length 1400:65535 -j DROP", "dns", asked=True,
    ),
    # -- DNS ---------------------------------------------------------------------------------------------------
    _rule("dns-port", "P04", "dns-silent", "raw OUTPUT -p udp -d 10.96.0.10 --dport 53 -j DROP", "dns"),
    Fault(
        "dns-pending", "P19", "dns-down",
        # Of a rolling update old Pods would stay until the new ones are ready.
        "mkdir -p -m 700 $kept; system get deployment coredns -o yaml >$kept/dns; system patch deployment coredns "
        '-p \'{"spec":{"strategy":{"type":"Recreate","rollingUpdate":null}}}\'; dns_on \'"nowhere"\'',
        "unmap dns", PLANES, cluster=True, touches=_of("dns", "packets"),
        seen="system delete pods -l k8s-app=kube-dns --field-selector status.phase=Running --force "
        '--grace-period=0; [ "$(system get deployment coredns '
        "-o jsonpath='{.status.updatedReplicas} {.status.readyReplicas}')\" = '2 ' ]",
    ),
)  # fmt: skip
BY_NAME = {fault.name: fault for fault in FAULTS}
