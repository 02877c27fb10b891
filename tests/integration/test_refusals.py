"""What `init` refuses on a host, provoked on a machine, before anything is changed: the pitfalls' rows of a node.

What this computer cannot be without is provoked as near as it allows: memory by a file over the kernel's,
processors by a `nproc` that counts fewer, SELinux by the file in which its mode stands.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import kubeadm_machines as machines
import pytest
import yaml
from cluster_fixtures import ON_MACHINES, REFUSED, Kubewright, Run, lab_of, on, start_on, until_on, write
from kubeadm_machines import EXTERNAL_ETCD, host_options
from test_preflight_fleet import mounted

from kubewright.errors import ExitCode
from kubewright.lab.lab import Lab

pytestmark = ON_MACHINES

FIRST = "cp1"
STATE = """
for path in /etc/kubernetes /etc/systemd /var/lib/kubelet /var/lib/etcd /usr/local/bin; do
  find $path -printf '%p %m %T@\\n' 2>/dev/null
done | sort
systemctl is-active kubelet; sysctl net.ipv4.ip_forward; true
"""


@pytest.fixture(scope="module")
async def lab(kubewright: Kubewright) -> AsyncIterator[Lab]:
    """A machine on which kubeadm would work."""
    with lab_of(kubewright, REFUSED, workers=0) as found:
        await machines.prepare(found)
        yield found


class Node:
    """The machine, and what `init` says of it."""

    def __init__(self, kubewright: Kubewright, lab: Lab, directory: Path) -> None:
        self.kubewright, self.lab, self.directory = kubewright, lab, directory
        self.host = host_options(lab, FIRST)

    def init(self, *words: str | Path, code: ExitCode) -> Run:
        """CoreDNS has no image here."""
        ignored = ("--ignore-preflight-errors", "ImagePull")
        return self.kubewright("init", *words, *ignored, *self.host, code=int(code))

    def fit(self, *words: str | Path) -> None:
        """A dry run, which checks as a real one does, finds nothing."""
        self.init("--dry-run", *words, code=ExitCode.OK)

    def refused(self, *words: str | Path, code: ExitCode = ExitCode.HOST_NOT_FIT) -> str:
        """What a real run says, which changes nothing."""
        before = on(self.lab, FIRST, STATE)
        run = self.init(*words, code=code)
        assert on(self.lab, FIRST, STATE) == before
        return run.err

    def errors(self, *words: str | Path) -> dict[str, str]:
        """The checks that fail, by kubeadm's names, with what they say."""
        said = self.refused(*words)
        found = dict(re.findall(r"\[ERROR (\S+)\]: (.*)", said))
        assert f"--ignore-preflight-errors={','.join(found)}" in said
        return found

    def error(self, name: str, *words: str | Path) -> str:
        """What the one check says that fails."""
        found = self.errors(*words)
        assert [*found] == [name]
        return found[name]


@pytest.fixture
def node(kubewright: Kubewright, lab: Lab, tmp_path: Path) -> Node:
    return Node(kubewright, lab, tmp_path)


@contextmanager
def changed(lab: Lab, how: str, back: str) -> Iterator[None]:
    """The machine changed by one command, and brought back by another."""
    on(lab, FIRST, how)
    try:
        yield
    finally:
        on(lab, FIRST, back)


def test_the_host_is_fit(node: Node) -> None:
    """All that is refused below is refused for what was done to it."""
    node.fit()


# -- etcd, versions -----------------------------------------------------------------------------------------------


def test_p02_an_external_etcd_needs_neither_port_nor_directory(node: Node) -> None:
    """A real one listens on port 2379 of this very host; a local one's leftovers are checked still."""
    machines.start_external_etcd(node.lab, FIRST)
    try:
        until_on(node.lab, FIRST, "ss -Hltn | grep -q ':2379 '")
        on(node.lab, FIRST, "mkdir -p /var/lib/etcd/member")
        files = {"ca": "ca.crt", "cert": "client.crt", "key": "client.key"}
        external = {f"{name}File": f"{EXTERNAL_ETCD}/{file}" for name, file in files.items()}
        path = node.directory / "kubeadm.yaml"
        path.write_text(
            yaml.safe_dump({
                "apiVersion": "kubeadm.k8s.io/v1beta2", "kind": "ClusterConfiguration",
                "kubernetesVersion": "v1.20.2",
                "etcd": {"external": {"endpoints": ["https://127.0.0.1:2379"], **external}},
            })
        )  # fmt: skip
        node.fit("--config", path)
        found = node.errors()
        assert {*found} == {"Port-2379", "Port-2380", "DirAvailable--var-lib-etcd"}
        assert found["Port-2379"].startswith("port 2379 is in use by etcd (P44)")
        assert found["DirAvailable--var-lib-etcd"].startswith("/var/lib/etcd is not empty")
    finally:
        machines.wipe(node.lab, FIRST)


def test_p06_a_kubelet_that_is_newer_than_the_control_plane(node: Node) -> None:
    kubelet = "/usr/local/bin/kubelet"
    on(node.lab, FIRST, f"command -v kubelet && [ ! -e {kubelet} ] || mv {kubelet} /run/kubelet.kept")
    write(node.lab, FIRST, kubelet, b"#!/bin/sh\necho Kubernetes v1.21.0\n", 0o755)
    try:
        said = node.error("KubeletVersion", "--kubernetes-version", "v1.20.2")
        assert "v1.21.0" in said
        assert "v1.20.2" in said
        assert "(P06)" in said
        unknown = node.refused("--kubernetes-version", "v1.19.16", code=ExitCode.VERSION_UNAVAILABLE)
        assert "Kubernetes v1.19.16 is not supported" in unknown
    finally:
        on(node.lab, FIRST, f"rm {kubelet}; [ ! -e /run/kubelet.kept ] || mv /run/kubelet.kept {kubelet}")


# -- addresses, names ---------------------------------------------------------------------------------------------


def test_p08_an_address_that_the_host_has_not(node: Node) -> None:
    said = node.error("AdvertiseAddress", "--apiserver-advertise-address", "192.0.2.9")
    own = node.lab.machine(FIRST).plan.address
    assert said == f"192.0.2.9 is none of the host's addresses (P08) (choose one of {own})"


def test_p09_two_addresses_belong_into_the_certificate(node: Node) -> None:
    both = f"{node.lab.machine(FIRST).plan.address},192.0.2.9"
    said = node.refused("--apiserver-advertise-address", both, code=ExitCode.CONFIG_INVALID)
    assert f"error: --apiserver-advertise-address: '{both}' is not an IP address" in said
    assert "--apiserver-cert-extra-sans (P09)" in said


def test_p14_a_hostname_that_no_node_can_have(node: Node) -> None:
    name = "bad_name"
    rename = "perl -e 'my $name = \"{0}\"; exit(syscall(170, $name, length $name) ? 1 : 0)'"  # sethostname
    if on(node.lab, FIRST, "uname -m").strip() != "x86_64":
        rename = rename.replace("170", "161")
    with changed(node.lab, rename.format(name), rename.format(FIRST)):
        said = node.refused()
    assert f"'{name}' cannot be the name of a node (P14)" in said
    assert "--node-name" in said
    assert "'bad-name' would do" in node.refused("--node-name", "Bad_Name", code=ExitCode.CONFIG_INVALID)


# -- the runtime, images ------------------------------------------------------------------------------------------


def test_p15_a_runtime_that_does_not_run_is_refused_with_its_last_words(node: Node) -> None:
    config = "/etc/containerd/config.toml"
    broken = f"cp {config} /run/containerd.kept; echo }}{{ >{config}; systemctl restart containerd || true"
    mended = (
        f"mv /run/containerd.kept {config}; systemctl reset-failed containerd; systemctl restart containerd"
    )
    with changed(node.lab, "systemctl stop containerd", "systemctl start containerd"):
        said = node.error("CRI")
        assert "no container runtime listens at /run/containerd/containerd.sock" in said
        assert "containerd: inactive (dead) (install one, or start it" in said
    with changed(node.lab, broken, mended):
        said = node.refused()
        assert "(P15); containerd: activating (auto-restart) (Result: exit-code)" in said
        assert f"containerd: failed to load TOML: {config}: (1, 1): unexpected token }}" in said


def test_p47_several_runtimes_without_a_choice(node: Node) -> None:
    script = (
        "mkdir -p /run/crio && exec perl -MIO::Socket::UNIX -e "
        "'my $s = IO::Socket::UNIX->new(Local => \"/run/crio/crio.sock\", Listen => 1) or die; sleep'"
    )
    try:
        with start_on(node.lab, FIRST, script):
            until_on(node.lab, FIRST, "[ -S /run/crio/crio.sock ]")
            said = node.refused()
            node.fit("--cri-socket", "/run/containerd/containerd.sock")
    finally:
        on(node.lab, FIRST, "rm -rf /run/crio")
    sockets = "/run/containerd/containerd.sock, /var/run/crio/crio.sock"
    assert f"has several container runtimes (P47): {sockets}" in said
    assert "say which one with --cri-socket" in said


def test_p33_an_image_that_cannot_be_pulled(node: Node) -> None:
    """Where nobody listens: which image, which registry, and what was answered."""
    words = ("config", "images", "pull", "--image-repository", "127.0.0.1:5999/x")
    run = node.kubewright(*words, *node.host, code=int(ExitCode.HOST_NOT_FIT))
    assert "image 127.0.0.1:5999/x/kube-apiserver:v1.20.2 could not be pulled" in run.err
    assert "dial tcp 127.0.0.1:5999: connect: connection refused" in run.err
    assert "imageRepository names another" in run.err


# -- the machine --------------------------------------------------------------------------------------------------


def test_p45_too_little_memory(node: Node) -> None:
    with mounted(node.lab, FIRST, "/proc/meminfo", "MemTotal: 900000 kB\n"):
        said = node.error("Mem")
    assert said == "878 MiB of memory; a control plane needs 1700 (P45) (give it more)"


def test_p45_too_few_processors(node: Node) -> None:
    write(node.lab, FIRST, "/usr/local/bin/nproc", b"#!/bin/sh\necho 1\n", 0o755)
    try:
        assert node.error("NumCPU") == "1 CPU; a control plane needs 2 (P45) (add one)"
        node.fit("--ignore-preflight-errors", "NumCPU,ImagePull")
    finally:
        on(node.lab, FIRST, "rm /usr/local/bin/nproc")


def test_p50_selinux_that_enforces(node: Node) -> None:
    how = (
        "mount -o remount,rw /sys && mkdir -p /sys/fs/selinux /etc/selinux && "
        "mount -t tmpfs tmpfs /sys/fs/selinux && "
        "echo 1 >/sys/fs/selinux/enforce && echo SELINUX=enforcing >/etc/selinux/config"
    )
    back = "umount /sys/fs/selinux; rmdir /sys/fs/selinux; mount -o remount,ro /sys; rm -r /etc/selinux"
    with changed(node.lab, how, back):
        said = node.error("SELinux")
    assert "SELinux is enforcing (P50)" in said


def test_p17_ipvs_where_the_kernel_lacks_it(node: Node) -> None:
    if on(node.lab, FIRST, "[ ! -e /proc/net/ip_vs ] || echo there"):
        pytest.skip("this kernel has IPVS")
    kinds = (
        {
            "apiVersion": "kubeadm.k8s.io/v1beta2",
            "kind": "ClusterConfiguration",
            "kubernetesVersion": "v1.20.2",
        },
        {"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "ipvs"},
    )
    path = node.directory / "kubeadm.yaml"
    path.write_text(yaml.safe_dump_all(kinds))
    said = node.error("RequiredIPVSKernelModulesAvailable", "--config", path)
    assert "the kernel has no ip_vs" in said


# -- leftovers ----------------------------------------------------------------------------------------------------


def test_p35_leftovers_of_another_cluster_are_each_named(node: Node) -> None:
    how = (
        "mkdir -p /etc/kubernetes/manifests /var/lib/etcd/member; echo x >/etc/kubernetes/manifests/etcd.yaml"
    )
    with changed(node.lab, how, "rm -rf /etc/kubernetes /var/lib/etcd"):
        found = node.errors()
    assert {*found} == {
        "FileAvailable--etc-kubernetes-manifests-etcd.yaml", "DirAvailable--var-lib-etcd"
    }  # fmt: skip
    for said in found.values():
        assert "(P35): `kubewright reset` takes it away" in said
