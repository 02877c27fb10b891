"""The files on a node: the kubelet's, containerd's and the kernel's."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from kubewright.errors import ConfigError
from kubewright.model import hostfiles, kubelet
from kubewright.model.containerd import cni_bin_dir, containerd_config
from kubewright.model.extra_args import ExtraArgs
from kubewright.model.versions import facts_for

FACTS = facts_for("v1.20.2")
CRI = "io.containerd.grpc.v1.cri"
DEBIAN = b"""# comment
version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd"
"""


def test_flags_as_kubeadm_writes_them() -> None:
    flags = kubelet.kubelet_flags(FACTS, node_name="n1", hostname="n1")
    assert kubelet.flags_file(flags) == (
        b'KUBELET_KUBEADM_ARGS="--container-runtime=remote '
        b'--container-runtime-endpoint=/run/containerd/containerd.sock"\n'
    )


def test_flags_of_one_node() -> None:
    flags = kubelet.kubelet_flags(
        FACTS,
        node_name="n1",
        hostname="machine",
        node_ip="192.0.2.5",
        taints=[{"key": "a", "value": "b", "effect": "NoSchedule"}, {"key": "c", "effect": "NoExecute"}],
        pause_image="registry.test/pause:3.2",
    )
    assert flags["hostname-override"] == "n1"
    assert flags["node-ip"] == "192.0.2.5"
    assert flags["register-with-taints"] == "a=b:NoSchedule,c:NoExecute"
    assert flags["pod-infra-container-image"] == "registry.test/pause:3.2"
    assert "pod-infra-container-image" not in kubelet.kubelet_flags(
        FACTS, node_name="n1", hostname="N1", pause_image="k8s.gcr.io/pause:3.2"
    )


def test_the_users_flags_go_over_ours() -> None:
    flags = {"node-ip": "192.0.2.5", "zone": "a"}
    extra = ExtraArgs.of({"node-labels": "x=y", "node-ip": "192.0.2.6"})
    assert kubelet.flags_file(flags, extra) == (
        b'KUBELET_KUBEADM_ARGS="--node-ip=192.0.2.6 --node-labels=x=y --zone=a"\n'
    )
    twice = ExtraArgs.of([("v", "4"), ("feature", "b"), ("feature", "a")])
    assert kubelet.flags_file(flags, twice, extra_last=True) == (
        b'KUBELET_KUBEADM_ARGS="--node-ip=192.0.2.5 --zone=a --v=4 --feature=b --feature=a"\n'
    )


def test_quotes_in_flags_stay_inside_the_variable() -> None:
    assert kubelet.flags_file({"a": 'x"y\\'}) == b'KUBELET_KUBEADM_ARGS="--a=x\\"y\\\\"\n'


def test_the_drop_in_replaces_the_units_command() -> None:
    lines = kubelet.kubelet_drop_in("/opt/kubelet").decode().splitlines()
    assert lines[-2:] == [
        "ExecStart=",
        "ExecStart=/opt/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS "
        "$KUBELET_EXTRA_ARGS",
    ]
    assert "ExecStart=/opt/kubelet" in kubelet.kubelet_unit("/opt/kubelet").decode().splitlines()


def test_the_kernels_settings() -> None:
    assert hostfiles.modules_file() == b"overlay\nbr_netfilter\n"
    assert b"net.ipv4.ip_forward = 1\n" in hostfiles.sysctl_file()
    assert hostfiles.sysctl_path("net.ipv4.ip_forward") == "/proc/sys/net/ipv4/ip_forward"


def configure(existing: bytes | None, **changes: Any) -> bytes:
    options: dict[str, Any] = {"sandbox_image": "k8s.gcr.io/pause:3.2", "systemd_cgroup": False, **changes}
    return containerd_config(existing, **options)


def test_containerd_from_nothing() -> None:
    made = tomllib.loads(
        configure(None, systemd_cgroup=True, cni_bin_dir="/usr/lib/cni", restrict_oom_score_adj=True).decode()
    )
    assert made == {
        "version": 2,
        "plugins": {
            CRI: {
                "sandbox_image": "k8s.gcr.io/pause:3.2",
                "restrict_oom_score_adj": True,
                "cni": {"bin_dir": "/usr/lib/cni", "conf_dir": "/etc/cni/net.d"},
                "containerd": {
                    "runtimes": {
                        "runc": {"runtime_type": "io.containerd.runc.v2", "options": {"SystemdCgroup": True}}
                    }
                },
            }
        },
    }


def test_containerd_keeps_what_the_user_has() -> None:
    text = DEBIAN.decode() + (
        '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.own]\n'
        'runtime_type = "io.containerd.runc.v2"\n'
        '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.vm]\n'
        'runtime_type = "io.containerd.kata.v2"\n'
    )
    made = tomllib.loads(configure(text.encode(), cni_bin_dir="/opt/cni/bin").decode())
    cri = made["plugins"][CRI]
    assert cri["cni"]["bin_dir"] == "/usr/lib/cni"
    assert made["plugins"]["io.containerd.internal.v1.opt"] == {"path": "/var/lib/containerd"}
    assert cri["containerd"]["runtimes"]["own"]["options"] == {"SystemdCgroup": False}
    assert cri["containerd"]["runtimes"]["vm"] == {"runtime_type": "io.containerd.kata.v2"}


def test_containerd_is_written_once() -> None:
    made = configure(DEBIAN)
    assert made != DEBIAN
    commented = b"# the user's own words\n" + made
    assert configure(commented) == commented
    assert configure(commented, systemd_cgroup=True) != commented


def test_a_restricted_score_is_not_taken_back() -> None:
    made = configure(DEBIAN, restrict_oom_score_adj=True)
    assert configure(made) == made


@pytest.mark.parametrize(
    "text", [b'disabled_plugins = ["cri", "aufs"]\n', b'version = 2\ndisabled_plugins = ["cri"]\n']
)
def test_the_cri_plugin_is_turned_on(text: bytes) -> None:
    made = tomllib.loads(configure(text).decode())
    assert "cri" not in made["disabled_plugins"]
    assert made["version"] == 2
    assert made["plugins"][CRI]["sandbox_image"] == "k8s.gcr.io/pause:3.2"


def test_the_first_version_of_the_format_names_plugins_shortly() -> None:
    made = tomllib.loads(configure(b'[plugins.cri.cni]\nbin_dir = "/x"\n').decode())
    assert "version" not in made
    assert made["plugins"]["cri"]["sandbox_image"] == "k8s.gcr.io/pause:3.2"
    assert made["plugins"]["cri"]["cni"]["bin_dir"] == "/x"


@pytest.mark.parametrize("text", [b"version = 3\n", b"a = \n", b"\xff", b"plugins = 1\nversion = 2\n"])
def test_what_cannot_be_used_is_refused_by_name(text: bytes) -> None:
    with pytest.raises(ConfigError, match=r"/etc/containerd/config\.toml"):
        configure(text)


def test_where_cni_plugins_are() -> None:
    assert cni_bin_dir(DEBIAN) == "/usr/lib/cni"
    assert cni_bin_dir(None) == "/opt/cni/bin"


def test_what_the_kernels_files_have_besides_stays() -> None:
    assert hostfiles.more_modules("# mine\noverlay\n\nip_vs\n; x\nbr_netfilter\n") == ["ip_vs"]
    old = "# mine\nvm.max_map_count = 262144\nnet.ipv4.ip_forward=0\n-net/bridge/bridge-nf-call-iptables = 0"
    text = hostfiles.sysctl_file(old).decode()
    assert text == "# mine\nvm.max_map_count = 262144\n" + hostfiles.sysctl_file().decode()
    assert hostfiles.sysctl_file(text).decode() == text
