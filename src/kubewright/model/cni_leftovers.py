"""Which CNI configuration, links and CNI state of a host are its pod network's, and which are others'.

Known are Kubewright's own network and flannel. What the files of other networks say is theirs is left, and so is
what no file claims.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubewright.model.kept import Kept
from kubewright.model.own_network import OWN_CNI_FILE

CNI_DIR = "/etc/cni/net.d"
STATE_DIR = "/var/lib/cni"
FLANNEL_RUN = "/run/flannel"
RESULTS = (f"{STATE_DIR}/results", f"{STATE_DIR}/cache/results")
"""Where CNI's library keeps what plugins have answered; the second was dockershim's."""

_OWN_NETWORK = "kubewright"
_FLANNEL = "flannel"
_FLANNEL_FILES = re.compile(r"10-flannel\.conf(list)?")
_FLANNEL_NETWORK = "cbr0"
_FLANNEL_LINKS = {
    "vxlan": re.compile(r"flannel(-v6)?\.\d+"),
    "wireguard": re.compile(r"flannel-wg(-v6)?"),
    "tun": re.compile(r"flannel\d+"),
}
_DEFAULT_BRIDGE = "cni0"
_NOT_OURS = {"kube-bridge": "kube-router's", "weave": "Weave's", "cilium_host": "Cilium's"}
_POD_ID = re.compile(r"[0-9a-f]{64}")
"""The runtime's id of a Pod's sandbox. People's own containers in the same network have names of their own."""
_BOOKKEEPING = re.compile(r"lock|last_reserved_ip\.\d+")


@dataclass(frozen=True, slots=True)
class CniFile:
    """A file in /etc/cni/net.d."""

    path: str
    network: str
    """The network's name in it; empty where it cannot be read."""
    types: tuple[str, ...]
    """Its plugins."""
    bridge: str
    """The bridge that one of them makes; empty for none."""

    @property
    def is_own(self) -> bool:
        """Whether it is our network agent's."""
        return self.path == OWN_CNI_FILE

    @property
    def is_flannel(self) -> bool:
        """Whether flannel's DaemonSet has installed it."""
        return _FLANNEL in self.types and bool(_FLANNEL_FILES.fullmatch(posixpath.basename(self.path)))


@dataclass(frozen=True, slots=True)
class Link:
    """A network link, as `ip -d -j link` prints it."""

    name: str
    kind: str
    """bridge, veth, vxlan, …; empty for a device."""
    master: str


@dataclass(frozen=True, slots=True)
class CniSeen:
    """What is on a host."""

    files: Sequence[CniFile]
    links: Sequence[Link]
    flannel_run: bool
    """Whether /run/flannel is there."""
    reservations: Mapping[str, str]
    """For each file below /var/lib/cni/networks the id that it holds; empty for bookkeeping."""
    results: Mapping[str, bytes]
    """The content of each file in `RESULTS`."""
    flannel_state: Sequence[str]
    """The files in /var/lib/cni/flannel."""

    @property
    def flannel(self) -> bool:
        """Whether flannel was the pod network here."""
        return self.flannel_run or bool(self.flannel_state) or any(file.is_flannel for file in self.files)


@dataclass(frozen=True, slots=True)
class CniCut:
    """What goes, in the order in which it must, and what stays."""

    links: tuple[str, ...]
    state: tuple[str, ...]
    """Files of state."""
    files: tuple[str, ...]
    """Configuration, which is what shows whose the rest is and so goes last."""
    flannel_run: bool
    kept: tuple[Kept, ...]


def parse_cni_file(path: str, content: bytes) -> CniFile:
    """A configuration or a list of them; of what is neither, nothing is known but its path."""
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        return CniFile(path, "", (), "")
    plugins = [one for one in _list(document.get("plugins")) if isinstance(one, dict)] or [document]
    types = tuple(str(one["type"]) for one in plugins if one.get("type"))
    bridges = [_bridge(one) for one in plugins]
    return CniFile(path, str(document.get("name") or ""), types, next(filter(None, bridges), ""))


def _bridge(plugin: Mapping[str, Any]) -> str:
    if plugin.get("type") == "bridge":
        return str(plugin.get("bridge") or _DEFAULT_BRIDGE)
    if plugin.get("type") == _FLANNEL:
        delegate = plugin.get("delegate")
        return str((delegate if isinstance(delegate, dict) else {}).get("bridge") or _DEFAULT_BRIDGE)
    return ""


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def parse_links(text: str) -> list[Link]:
    """The links in the JSON of `ip -d -j link`."""
    try:
        rows = json.loads(text or "[]")
    except ValueError:
        return []
    return [
        Link(str(row["ifname"]), _kind(row), str(row.get("master") or ""))
        for row in _list(rows)
        if isinstance(row, dict) and row.get("ifname")
    ]


def _kind(row: Mapping[str, Any]) -> str:
    info = row.get("linkinfo")
    return str(info.get("info_kind") or "") if isinstance(info, dict) else ""


def cni_cut(seen: CniSeen) -> CniCut:
    """What of it goes with the cluster."""
    files = [file for file in seen.files if file.is_own or file.is_flannel]
    networks = {_OWN_NETWORK, *(file.network for file in files)} | (
        {_FLANNEL_NETWORK} if seen.flannel else set()
    )
    links, kept_links = _links(seen, files)
    state, kept_state = _state(seen, networks)
    kept_files = [
        Kept(file.path, _why(file), f"rm {file.path}, if no program but the kubelet's runtime used it")
        for file in seen.files
        if file not in files
    ]
    return CniCut(
        tuple(links), tuple(state), tuple(file.path for file in files), seen.flannel_run,
        (*kept_files, *kept_links, *kept_state),
    )  # fmt: skip


def emptied(state: Iterable[str]) -> list[str]:
    """The directories below /var/lib/cni that may be empty without these files, each after those in it."""
    found = set()
    for path in state:
        directory = posixpath.dirname(path)
        while directory.startswith(f"{STATE_DIR}/"):
            found.add(directory)
            directory = posixpath.dirname(directory)
    return sorted(found, key=lambda directory: (-directory.count("/"), directory))


def _why(file: CniFile) -> str:
    if not file.network:
        return "it is no CNI configuration that can be read, and nothing shows who made it"
    return f"it is the network {file.network}'s ({', '.join(file.types)}), neither Kubewright's nor flannel's"


def _links(seen: CniSeen, files: Iterable[CniFile]) -> tuple[list[str], list[Kept]]:
    claimed = {
        file.bridge: file for file in seen.files if file.bridge and not (file.is_own or file.is_flannel)
    }
    bridges = {file.bridge for file in files if file.is_flannel} or {_DEFAULT_BRIDGE}
    holders = _holders(seen.results)
    gone: list[str] = []
    kept: list[Kept] = []
    for link in seen.links:
        mend = f"ip link delete {link.name}"
        if _is_flannel_link(link):
            if seen.flannel:
                gone.append(link.name)
            else:
                kept.append(Kept(f"link {link.name}", "no file here shows that flannel made it", mend))
        elif link.kind == "bridge" and link.name in bridges:
            if link.name in claimed:
                why = f"it is the bridge of {claimed[link.name].path}, too"
                kept.append(Kept(f"link {link.name}", why, mend))
            elif not seen.flannel:
                why = "no file here shows that it was a pod network's"
                kept.append(Kept(f"link {link.name}", why, mend))
            else:
                ports = [port for port in seen.links if port.master == link.name]
                strange = [port.name for port in ports if not _is_pods(port, holders)]
                gone += [port.name for port in ports if port.name not in strange]
                if strange:
                    why = f"{', '.join(strange)} on it is no Pod's, as far as {RESULTS[0]} tells"
                    kept.append(Kept(f"link {link.name}", why, mend))
                else:
                    gone.append(link.name)
        elif owner := _NOT_OURS.get(link.name):
            kept.append(Kept(f"link {link.name}", f"it is {owner}", mend))
    return gone, kept


def _is_flannel_link(link: Link) -> bool:
    pattern = _FLANNEL_LINKS.get(link.kind)
    return bool(pattern and pattern.fullmatch(link.name))


def _is_pods(link: Link, holders: Mapping[str, str]) -> bool:
    return link.kind == "veth" and bool(_POD_ID.fullmatch(holders.get(link.name, "")))


def _holders(results: Mapping[str, bytes]) -> dict[str, str]:
    """Whose container each link is, by what the plugins have answered."""
    found = {}
    for content in results.values():
        cached = _cached(content)
        result = cached.get("result")
        for interface in _list(result.get("interfaces")) if isinstance(result, dict) else []:
            if isinstance(interface, dict) and interface.get("name") and not interface.get("sandbox"):
                found[str(interface["name"])] = str(cached.get("containerId") or "")
    return found


def _cached(content: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _state(seen: CniSeen, networks: set[str]) -> tuple[list[str], list[Kept]]:
    """Reservations that sandboxes hold (leaked ones as well, P37), answers for them, and bookkeeping."""
    gone: list[str] = []
    kept: list[Kept] = []
    directories: dict[str, list[str]] = {}
    for path in seen.reservations:
        directories.setdefault(posixpath.dirname(path), []).append(path)
    for directory, paths in sorted(directories.items()):
        network = posixpath.basename(directory)
        if network not in networks:
            kept.append(
                Kept(directory, f"it has the addresses of the network {network}, which is not the cluster's")
            )
            continue
        held = [path for path in paths if not _BOOKKEEPING.fullmatch(posixpath.basename(path))]
        pods = [path for path in held if _POD_ID.fullmatch(seen.reservations[path])]
        gone += pods
        if len(pods) == len(held):
            gone += [path for path in paths if path not in held]
        else:
            others = sorted({seen.reservations[path] for path in held if path not in pods})
            kept.append(
                Kept(directory, f"it has the addresses of containers that are no Pods': {', '.join(others)}")
            )
    for path, content in seen.results.items():
        cached = _cached(content)
        if cached.get("networkName") in networks and _POD_ID.fullmatch(str(cached.get("containerId") or "")):
            gone.append(path)
    gone += [path for path in seen.flannel_state if _POD_ID.fullmatch(posixpath.basename(path))]
    return gone, kept
