"""What a host is: one shell script that collects it, and the pure function that reads the script's output."""

from __future__ import annotations

import ipaddress
import itertools
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping

from kubewright.model.facts import ARCHITECTURES, HostFacts
from kubewright.model.own_network import OWN_ROUTES
from kubewright.model.sections import sections

RESOLVED = "/run/systemd/resolve/resolv.conf"

FACTS = r"""
exec 2>/dev/null
LC_ALL=C; export LC_ALL
section() { printf '\n@@ %s\n' "$1"; }
section hostname; uname -n
section os; cat /etc/os-release || cat /usr/lib/os-release
section machine; uname -m
section kernel; uname -r
section cpus; nproc || grep -c ^processor /proc/cpuinfo
section memory; grep ^MemTotal: /proc/meminfo
section swaps; cat /proc/swaps
section uid; id -u
section init; cat /proc/1/comm
section cgroup
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then echo 2; elif [ -d /sys/fs/cgroup ]; then echo 1; fi
section capabilities; grep ^CapBnd: /proc/1/status
section addresses; ip -o addr show scope global
section routes; ip -o -4 route show table main; ip -o -6 route show table main
section procroutes; cat /proc/net/route
section fibtrie; cat /proc/net/fib_trie
section filesystems
for folder in /etc /var/lib /usr/local /tmp; do
  printf '%s ' "$folder"
  { df -Pk "$folder" || df -Pk /; } | tail -n 1
done
section resolv; cat /etc/resolv.conf
section resolved; cat /run/systemd/resolve/resolv.conf
section machineid; cat /etc/machine-id || cat /var/lib/dbus/machine-id
section product; cat /sys/class/dmi/id/product_uuid
section links
for link in /sys/class/net/*; do
  kind=virtual
  [ ! -e "$link/device" ] || kind=device
  [ ! -e "$link/bridge" ] || kind=bridge
  printf '%s %s %s\n' "${link##*/}" "$kind" "$(cat "$link/address")"
done
"""

# Links that runtimes and pod networks make; their hardware addresses repeat between hosts and mean nothing.
_MADE_LINK = re.compile(
    r"(lo|veth|cni|cbr|flannel|docker|br-|kube-|cali|vxlan|dummy|virbr|lxc|tunl|sit|ip6tnl)"
)

_POD_LINK = re.compile(r"(cni|cbr|flannel|cali|cilium|weave|kube-|tunl|vxlan\.calico|antrea|ovn)")


def parse_facts(text: str) -> HostFacts:
    """Facts out of what `FACTS` printed. Anything that a host lacks is empty or 0."""
    found = sections(text)
    release = _release(found.get("os", ""))
    addresses = list(_addresses(found.get("addresses", "")))
    if addresses:
        routes = list(_routes(found.get("routes", "")))
    else:  # no `ip` on the host
        routes = list(_proc_routes(found.get("procroutes", "")))
        addresses = [("", local) for local in _fib_locals(found.get("fibtrie", ""))]
    default = _default_address(addresses, routes)
    machine = found.get("machine", "").strip()
    return HostFacts(
        hostname=found.get("hostname", "").strip(),
        os_id=release.get("ID", ""),
        os_version=release.get("VERSION_ID", ""),
        os_name=release.get("PRETTY_NAME", "") or release.get("NAME", ""),
        arch=ARCHITECTURES.get(machine, machine),
        kernel=found.get("kernel", "").strip(),
        cpus=_number(found.get("cpus", "")),
        memory=_number(found.get("memory", "")) * 1024,
        swap=sum(
            int(row[2]) * 1024 for row in _rows(found.get("swaps", "")) if len(row) > 3 and row[2].isdigit()
        ),
        is_root=found.get("uid", "").strip() == "0",
        init=found.get("init", "").strip(),
        cgroup_version=_number(found.get("cgroup", "")),
        capabilities=int((found.get("capabilities", "").split() or ["", "0"])[1], 16),
        default_address=default,
        addresses=tuple(dict.fromkeys(str(interface.ip) for _, interface in addresses)),
        routes=tuple(dict.fromkeys(network for network, _ in routes if network != "default")),
        pod_routes=tuple(dict.fromkeys(network for network, how in routes if _of_pods(network, how))),
        filesystems=dict(_filesystems(found.get("filesystems", ""))),
        resolv_conf=_resolv_conf(found.get("resolv", ""), found.get("resolved", "")),
        machine_id=found.get("machineid", "").strip(),
        product_uuid=found.get("product", "").strip().lower(),
        macs=_macs(found.get("links", ""), _default_link(routes)),
    )


Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def _rows(text: str) -> Iterator[list[str]]:
    return (line.split() for line in text.splitlines() if line.strip())


def _number(text: str) -> int:
    match = re.search(r"\d+", text)
    return int(match[0]) if match else 0


def _release(text: str) -> dict[str, str]:
    """os-release(5): shell-like assignments, of which only quoting needs care."""
    values = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            try:
                values[key] = "".join(shlex.split(value))
            except ValueError:
                values[key] = value
    return values


def _addresses(text: str) -> Iterator[tuple[str, Interface]]:
    """Link and address of each line of `ip -o addr`; an address that is about to go (deprecated) is left out."""
    for row in _rows(text):
        if len(row) > 3 and row[2] in ("inet", "inet6") and "deprecated" not in row:
            # A point-to-point link shows `inet LOCAL peer PEER/len`.
            yield row[1].split("@")[0], ipaddress.ip_interface(row[3])


def _routes(text: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Destination (a CIDR, or `default`) and attributes of each line of `ip -o route`."""
    for row in _rows(text):
        if row[0].isalpha() and row[0] != "default":  # unreachable, blackhole, local…
            row = row[1:]
        if not row:
            continue
        attributes = dict(_pairs(row[1:]))
        if row[0] == "default":
            yield "default", attributes
            continue
        network = _network(row[0])
        if network is None or network.is_multicast or (network.version == 6 and network.is_link_local):
            continue
        yield str(network), attributes


def _of_pods(network: str, attributes: Mapping[str, str]) -> bool:
    """Whether a pod network made the route: on one of its links, or our own, which carries a number of ours."""
    return network != "default" and (
        attributes.get("proto") == OWN_ROUTES or _POD_LINK.match(attributes.get("dev", "")) is not None
    )


def _pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    """The first value of each of the attributes that we use; of several next hops, the first counts."""
    seen: set[str] = set()
    for key, value in itertools.pairwise(words):
        if key in ("via", "dev", "src", "metric", "proto") and key not in seen:
            seen.add(key)
            yield key, value


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _proc_routes(text: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The same out of /proc/net/route, whose addresses are little-endian hexadecimal (proc(5))."""
    for row in _rows(text):
        if len(row) < 8 or row[0] == "Iface":
            continue
        target, gateway, mask = (bytes.fromhex(row[index])[::-1] for index in (1, 2, 7))
        attributes = {"dev": row[0], "metric": row[6]}
        if any(gateway):
            attributes["via"] = str(ipaddress.IPv4Address(gateway))
        if not any(target) and not any(mask):
            yield "default", attributes
        else:
            length = int.from_bytes(mask).bit_count()
            yield f"{ipaddress.IPv4Address(target)}/{length}", attributes


def _fib_locals(text: str) -> Iterator[Interface]:
    """The host's own IPv4 addresses out of /proc/net/fib_trie."""
    address = ""
    for line in text.splitlines():
        if match := re.search(r"\|-- (\S+)", line):
            address = match[1]
        elif "host LOCAL" in line and not ipaddress.ip_address(address).is_loopback:
            yield ipaddress.ip_interface(address)


def _default_routes(routes: Iterable[tuple[str, Mapping[str, str]]]) -> list[Mapping[str, str]]:
    """Default routes, the one that the kernel prefers first: IPv4 before IPv6, then by metric."""
    return sorted(
        (attributes for target, attributes in routes if target == "default"),
        key=lambda found: (":" in found.get("via", ""), int(found.get("metric", "0"))),
    )


def _default_link(routes: Iterable[tuple[str, Mapping[str, str]]]) -> str:
    ordered = _default_routes(routes)
    return ordered[0].get("dev", "") if ordered else ""


def _default_address(
    addresses: list[tuple[str, Interface]], routes: list[tuple[str, Mapping[str, str]]]
) -> str:
    """The address that packets through the default route carry: the route's `src`, else the link's address in the
    gateway's network, else the link's first."""
    for route in _default_routes(routes):
        if source := route.get("src"):
            return source
        version = 6 if ":" in route.get("via", "") else 4
        own = [
            found for link, found in addresses if link in ("", route.get("dev")) and found.version == version
        ]
        # Where the link of an address is unknown, the networks that lead to the link tell.
        networks = [_network(target) for target, found in routes if found.get("dev") == route.get("dev")]
        gateway = ipaddress.ip_address(route["via"]) if "via" in route else None
        for interface in own:
            near = [
                interface.network,
                *(network for network in networks if network and interface.ip in network),
            ]
            if gateway is not None and any(gateway in network for network in near):
                return str(interface.ip)
        if own:
            return str(own[0].ip)
    return ""


def _filesystems(text: str) -> Iterator[tuple[str, int]]:
    for line in text.splitlines():
        folder, _, rest = line.partition(" ")
        # POSIX's df -P: device, size, used, available, capacity, mount point.
        if match := re.search(r"\s\d+\s+\d+\s+(-?\d+)\s+\S+\s+/", " " + rest):
            yield folder, int(match[1]) * 1024


def _has_loopback(text: str) -> bool | None:
    """Whether a resolv.conf has a name server on a loopback address; None where it has no name server."""
    servers = re.findall(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE)
    if not servers:
        return None
    return any(server.startswith("127.") or server == "::1" for server in servers)


def _resolv_conf(etc: str, resolved: str) -> str:
    """The file for the kubelet: systemd-resolved's own where /etc/resolv.conf points at its stub (P18)."""
    if _has_loopback(etc) and _has_loopback(resolved) is False:
        return RESOLVED
    return "/etc/resolv.conf"


def _macs(text: str, default_link: str) -> tuple[str, ...]:
    """Hardware addresses of links with hardware behind them and of the default route's link; in a container,
    which has no hardware, of links that no runtime made (P43)."""
    links = [row for row in _rows(text) if len(row) == 3 and row[2].strip("0:")]
    real = [row[2] for row in links if row[1] == "device" or row[0] == default_link]
    return tuple(real or [row[2] for row in links if row[1] == "virtual" and not _MADE_LINK.match(row[0])])
