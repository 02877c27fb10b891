"""What a node's own files say of it."""

from __future__ import annotations

import pytest
from tests.unit.phases.memory_host import MemoryHost

from kubewright.phases.installed import parse_flags, read_installed


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (
            'KUBELET_KUBEADM_ARGS="--container-runtime=remote --container-runtime-endpoint=/run/a.sock"\n',
            {"container-runtime": "remote", "container-runtime-endpoint": "/run/a.sock"},
        ),
        ('KUBELET_KUBEADM_ARGS="--node-labels=a=b --v"', {"node-labels": "a=b", "v": ""}),
        ("", {}),
        ("KUBELET_KUBEADM_ARGS=\"--x='\n", {}),
    ],
)
def test_flags(text: str, flags: dict[str, str]) -> None:
    assert parse_flags(text) == flags


async def test_a_host_that_is_no_node() -> None:
    found = await read_installed(MemoryHost())
    assert (found.node_name, found.cri_socket, found.is_control_plane) == ("", "", False)


async def test_the_socket_is_that_of_the_kubelet() -> None:
    host = MemoryHost()
    await host.write_file(
        "/var/lib/kubelet/kubeadm-flags.env",
        b'KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix:///run/crio/crio.sock"',
    )
    await host.write_file("/etc/kubernetes/manifests/kube-apiserver.yaml", b"{}")
    found = await read_installed(host)
    assert (found.cri_socket, found.is_control_plane) == ("/run/crio/crio.sock", True)


async def test_the_socket_in_a_file_of_the_node() -> None:
    """From Kubernetes 1.34 on."""
    host = MemoryHost()
    await host.write_file(
        "/var/lib/kubelet/instance-config.yaml",
        b"containerRuntimeEndpoint: unix:///run/containerd/containerd.sock",
    )
    assert (await read_installed(host)).cri_socket == "/run/containerd/containerd.sock"
