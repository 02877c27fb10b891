"""What a host's own files say of the node that it is."""

from __future__ import annotations

import base64
import binascii
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from kubewright.clients.cri import find_socket, socket_path
from kubewright.errors import ConfigError
from kubewright.hosts import Host
from kubewright.model import kubeconfig, x509
from kubewright.model.kubelet import FLAGS_PATH, INSTANCE_CONFIG_PATH
from kubewright.model.manifests import API_SERVER, manifest_path
from kubewright.model.objects import read_mapping

_KUBELET_CONF = f"{kubeconfig.KUBERNETES_DIR}/{kubeconfig.KUBELET}"
_NODE_USER = "system:node:"


@dataclass(frozen=True, slots=True)
class Installed:
    """A node by its files; what they do not say is empty."""

    node_name: str
    """Whom its kubelet's certificate names."""
    cri_socket: str
    """Where its kubelet finds the runtime, as a path."""
    is_control_plane: bool
    """Whether it has an API server's static Pod."""
    kubelet_flags: Mapping[str, str]
    """The flags of `kubeadm-flags.env`."""


async def read_installed(host: Host) -> Installed:
    """Look at the files that kubeadm leaves on a node; a host that is none gives an empty answer."""
    api_server = manifest_path(API_SERVER)
    found = await host.read_files(
        [kubeconfig.KUBELET_CLIENT_CURRENT, _KUBELET_CONF, FLAGS_PATH, INSTANCE_CONFIG_PATH, api_server]
    )
    flags = parse_flags(found.get(FLAGS_PATH, b"").decode(errors="replace"))
    instance = read_mapping(found.get(INSTANCE_CONFIG_PATH, b"")) or {}
    socket = flags.get("container-runtime-endpoint") or str(instance.get("containerRuntimeEndpoint") or "")
    pem = found.get(kubeconfig.KUBELET_CLIENT_CURRENT) or _embedded(found.get(_KUBELET_CONF, b""))
    user = x509.common_name(pem)
    return Installed(
        node_name=user.removeprefix(_NODE_USER) if user.startswith(_NODE_USER) else "",
        cri_socket=socket_path(socket),
        is_control_plane=api_server in found,
        kubelet_flags=flags,
    )


async def runtime_socket(host: Host, chosen: str, installed: Installed) -> str:
    """The runtime's socket: as the user chose, else the kubelet's, else the one that is there (P47)."""
    return socket_path(chosen) or installed.cri_socket or await find_socket(host)


def parse_flags(text: str) -> dict[str, str]:
    """The flags in `kubeadm-flags.env`, without their dashes; a flag without a value has an empty one."""
    match = re.search(r'^KUBELET_KUBEADM_ARGS="?(.*?)"?\s*$', text, re.MULTILINE)
    try:
        words = shlex.split(match[1]) if match else []
    except ValueError:
        words = []
    pairs = (word.removeprefix("--").partition("=") for word in words if word.startswith("--"))
    return {name: value for name, _, value in pairs}


def _embedded(content: bytes) -> bytes:
    """The certificate in a kubeconfig; empty where it has none."""
    try:
        config = kubeconfig.load(content, _KUBELET_CONF)
        for user in config.get("users") or ():
            data = (user.get("user") or {}).get("client-certificate-data")
            if data:
                return base64.b64decode(data)
    except (ConfigError, AttributeError, binascii.Error):
        pass
    return b""
