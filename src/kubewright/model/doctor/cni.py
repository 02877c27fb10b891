"""What a node's CNI configuration says of its pod network: its name, its range, and its bridge."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from kubewright.model.doctor.look import CNI_DIR, SUBNET_ENV, Look

LEFT_BEHIND = ("cni0", "cbr0")
"""The bridges of the usual plugins."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def configurations(look: Look) -> list[tuple[str, dict[str, Any]]]:
    """The CNI configurations by path, in the order in which a runtime reads them."""
    found = []
    for path, text in sorted(look.files.items()):
        if path.startswith(f"{CNI_DIR}/"):
            try:
                document = json.loads(text)
            except ValueError:
                continue
            if isinstance(document, dict):
                found.append((path, document))
    return found


def plugins(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The plugins of a configuration, which is a list of them or one itself."""
    found = document.get("plugins", [document])
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def pod_network(look: Look) -> str:
    """The name under which the node's pod network reserves addresses; empty where host-local is not used."""
    for _, document in configurations(look)[:1]:
        for plugin in plugins(document):
            ipam = plugin.get("ipam")
            if isinstance(ipam, dict) and ipam.get("type") == "host-local":
                return str(document.get("name", ""))
            if plugin.get("type") == "flannel":  # it delegates to bridge, with host-local, under its own name
                delegate = plugin.get("delegate")
                return str(
                    (delegate.get("name") if isinstance(delegate, dict) else "") or document.get("name", "")
                )
    return ""


def _list(value: Any) -> list[Any]:
    """A list of a file that anybody may have written."""
    return value if isinstance(value, list) else []


def subnets(look: Look) -> list[Network]:
    """The node's own part of the pod network, by flannel's file or the CNI configuration."""
    texts = re.findall(r"^FLANNEL_SUBNET=(\S+)", look.files.get(SUBNET_ENV, ""), re.MULTILINE)
    for _, document in [] if texts else configurations(look)[:1]:
        for plugin in plugins(document):
            ipam = plugin.get("ipam")
            if isinstance(ipam, dict):
                texts += [str(ipam["subnet"])] if ipam.get("subnet") else []
                texts += [
                    str(one["subnet"])
                    for ranges in _list(ipam.get("ranges"))
                    for one in _list(ranges)
                    if isinstance(one, dict) and one.get("subnet")
                ]
    found = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            continue
    return found


def bridges(look: Look) -> list[str]:
    """The bridges of the pod network: bridge's and flannel's default is cni0."""
    names = []
    for _, document in configurations(look)[:1]:
        for plugin in plugins(document):
            if plugin.get("type") in ("bridge", "flannel"):
                delegate = plugin.get("delegate")
                inner = delegate if isinstance(delegate, dict) else plugin
                names.append(str(inner.get("bridge") or "cni0"))
    return names


def misplaced(look: Look) -> dict[str, tuple[str, ...]]:
    """Bridges of an older pod network, with their addresses (P38).

    The network's own bridge is one where it has no address of the node's range; where the network has no bridge,
    one that was left behind is, if its range covers a part of the node's.
    """
    ranges, own = subnets(look), bridges(look)
    found = {}
    for name in own or LEFT_BEHIND:
        have = tuple(one for one in look.addresses.get(name, ()) if not one.startswith("fe80"))
        if have and ranges and any(_inside(one, ranges) for one in have) != bool(own):
            found[name] = have
    return found


def _inside(address: str, ranges: Iterable[Network]) -> bool:
    """Whether an address lies in one of the ranges, or its own range covers a part of one."""
    one = ipaddress.ip_interface(address)
    return any(
        one.ip in subnet or (one.network.prefixlen < one.max_prefixlen and one.network.overlaps(subnet))
        for subnet in ranges
        if subnet.version == one.version
    )
