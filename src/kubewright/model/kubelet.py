"""The files that make a kubelet run: its unit, kubeadm's drop-in, and the flags that differ from node to node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kubewright.model.extra_args import ExtraArgs, merged
from kubewright.model.kubeconfig import BOOTSTRAP_KUBELET, KUBELET, KUBERNETES_DIR
from kubewright.model.objects import Object
from kubewright.model.versions import VersionFacts

KUBELET_DIR = "/var/lib/kubelet"
CONFIG_PATH = f"{KUBELET_DIR}/config.yaml"
INSTANCE_CONFIG_PATH = f"{KUBELET_DIR}/instance-config.yaml"
"""What of the configuration is this node's own, for `VersionFacts.instance_config`; kubeadm patches it in."""
FLAGS_PATH = f"{KUBELET_DIR}/kubeadm-flags.env"
UNIT_PATH = "/etc/systemd/system/kubelet.service"
"""Below /etc, where no package's unit is overwritten."""
DROP_IN_PATH = "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"

_FLAGS_VARIABLE = "KUBELET_KUBEADM_ARGS"


def kubelet_unit(binary: str) -> bytes:
    """`kubelet.service`, for a kubelet that no package brought.

    It starts again for as long as it fails, because a kubelet waits in this way for its configuration.
    """
    return _lines(
        "[Unit]",
        "Description=kubelet, the Kubernetes node agent",
        "Documentation=https://kubernetes.io/docs/reference/command-line-tools-reference/kubelet/",
        "Wants=network-online.target",
        "After=network-online.target containerd.service",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        f"ExecStart={binary}",
        "Restart=always",
        "RestartSec=3",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    )


def kubelet_drop_in(binary: str) -> bytes:
    """kubeadm's `10-kubeadm.conf`: where the kubelet finds its kubeconfigs, configuration and flags.

    `/etc/default/kubelet` belongs to the user, whose `KUBELET_EXTRA_ARGS` come last.
    """
    bootstrap, kubeconfig = f"{KUBERNETES_DIR}/{BOOTSTRAP_KUBELET}", f"{KUBERNETES_DIR}/{KUBELET}"
    variables = ("KUBELET_KUBECONFIG_ARGS", "KUBELET_CONFIG_ARGS", _FLAGS_VARIABLE, "KUBELET_EXTRA_ARGS")
    return _lines(
        "[Service]",
        f'Environment="{variables[0]}=--bootstrap-kubeconfig={bootstrap} --kubeconfig={kubeconfig}"',
        f'Environment="{variables[1]}=--config={CONFIG_PATH}"',
        f"EnvironmentFile=-{FLAGS_PATH}",
        "EnvironmentFile=-/etc/default/kubelet",
        "ExecStart=",
        f"ExecStart={binary} {' '.join(f'${name}' for name in variables)}",
    )


def kubelet_flags(
    facts: VersionFacts,
    *,
    node_name: str,
    hostname: str,
    cri_socket: str = CONTAINERD_SOCKET,
    node_ip: str = "",
    taints: Iterable[Mapping[str, str]] = (),
    pause_image: str = "",
    feature_gates: Mapping[str, bool] | None = None,
) -> dict[str, str]:
    """kubeadm's flags of this node's kubelet; `flags_file` lays the user's own over them.

    `taints` are those to register with; kubeadm gives a worker's in this way and patches a control plane's.
    `pause_image` is named, as long as the kubelet reads it, so that image garbage collection spares it.
    `feature_gates` are those of ClusterConfiguration.
    """
    flags = facts.kubelet_flags(cri_socket, feature_gates)
    if node_name != hostname.lower():
        flags["hostname-override"] = node_name
    if node_ip:
        flags["node-ip"] = node_ip
    registered = ",".join(taint_text(taint) for taint in taints)
    if registered:
        flags["register-with-taints"] = registered
    own = pause_image == f"{facts.image_repository}/pause:{facts.pause_tag}"
    if pause_image and (
        facts.pause_image_flag == "always" or (facts.pause_image_flag == "custom" and not own)
    ):
        flags["pod-infra-container-image"] = pause_image
    return flags


def instance_config(facts: VersionFacts, cri_socket: str = CONTAINERD_SOCKET) -> Object:
    """`instance-config.yaml`: the CRI socket, which goes over the cluster's KubeletConfiguration on this node."""
    return {
        "apiVersion": facts.kubelet_api_version,
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": facts.cri_endpoint(cri_socket),
    }


def flags_file(
    flags: Mapping[str, str], extra: ExtraArgs | None = None, *, extra_last: bool = False
) -> bytes:
    """`kubeadm-flags.env`: one variable with all flags, the user's over ours.

    `extra_last` is `VersionFacts.extra_args_last`: the user's come last and in their order, not sorted among ours.
    """
    text = " ".join(
        f"--{name}={value}" for name, value in merged(flags, ExtraArgs.of(extra), last=extra_last)
    )
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return _lines(f'{_FLAGS_VARIABLE}="{quoted}"')


def taint_text(taint: Mapping[str, str]) -> str:
    """A taint as kubectl and flags write it: `key=value:effect`, or `key:effect` without a value."""
    value = taint.get("value", "")
    return f"{taint['key']}={value}:{taint['effect']}" if value else f"{taint['key']}:{taint['effect']}"


def _lines(*lines: str) -> bytes:
    return ("\n".join(lines) + "\n").encode()
