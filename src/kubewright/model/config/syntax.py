"""What single values must look like. Each function returns the value, or raises `ValueError` with the reason."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from urllib.parse import urlsplit

from kubewright.errors import ConfigError
from kubewright.model.node import host_port, is_address, split_endpoint
from kubewright.model.versions import Version

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*", re.ASCII)
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9_.@\\]*", re.ASCII)
_NOT_YET_IPV6 = "IPv6 and dual-stack clusters are not supported yet: give an IPv4"


def is_subdomain(text: str) -> bool:
    """Whether `text` is an RFC 1123 subdomain: labels of a-z, 0-9 and -, at most 253 characters."""
    return len(text) <= 253 and _SUBDOMAIN.fullmatch(text) is not None


def node_name(text: str) -> str:
    """A name that a Kubernetes node can have (P14)."""
    if is_subdomain(text):
        return text
    lower = re.sub(r"[^-a-z0-9.]+", "-", text.lower()).strip("-.")
    better = f"; {lower!r} would do" if lower != text and is_subdomain(lower) else ""
    raise ValueError(
        f"{_short(text)} is not a valid node name: labels of a-z, 0-9 and '-', joined by dots, at most 253 "
        f"characters{better}"
    )


def cluster_name(text: str) -> str:
    """A cluster's name: it becomes a kubeconfig context and a flag of kube-controller-manager."""
    if len(text) <= 63 and _QUALIFIED.fullmatch(text):
        return text
    raise ValueError(
        f"{_short(text)} is not a valid name: letters, digits, '-', '_' and '.', at most 63 of them"
    )


def kubernetes_version(text: str) -> str:
    """A version with all three numbers, written with its v."""
    try:
        return str(Version.parse(text))
    except ConfigError as error:
        raise ValueError(f"{_short(text)} is not a version such as v1.20.2") from error


def host_address(text: str) -> str:
    """What SSH can connect to: an address, a DNS name, or `local`. A port belongs into `ssh.port`."""
    if is_address(text) or (is_subdomain(text.lower()) and not _looks_like_ipv4(text)):
        return text
    host, colon, port = text.rpartition(":")
    if colon and port.isdecimal() and host:
        raise ValueError(f"{_short(text)} has a port: write the port as ssh.port")
    if "@" in text:
        raise ValueError(f"{_short(text)} has a user: write the user as ssh.user")
    raise ValueError(f"{_short(text)} is not an IP address, a DNS name or 'local'")


def ipv4_address(text: str) -> str:
    """A node's IPv4 address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise ValueError(f"{_short(text)} is not an IP address") from error
    if address.version == 6:
        raise ValueError(f"{_NOT_YET_IPV6} address")
    if address.is_loopback or address.is_multicast or address.is_unspecified or address.is_link_local:
        raise ValueError(f"{text!r} cannot be a node's address: other nodes cannot reach it")
    return str(address)


def subnet(text: str) -> str:
    """One IPv4 network as a CIDR."""
    if "," in text:
        raise ValueError(f"{_NOT_YET_IPV6} network such as 10.244.0.0/16, and only one")
    if "/" not in text:
        raise ValueError(f"{_short(text)} is not a CIDR: the prefix length is missing, as in 10.244.0.0/16")
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ValueError(f"{_short(text)} is not a CIDR such as 10.244.0.0/16") from error
    if network.version == 6:
        raise ValueError(f"{_NOT_YET_IPV6} network such as 10.244.0.0/16")
    if text != str(network):
        raise ValueError(
            f"{_short(text)} is an address inside a network: write the network, {str(network)!r}"
        )
    if network.is_loopback or network.is_multicast or network.is_link_local:
        raise ValueError(f"{text!r} is a range of addresses that cannot be routed")
    return text


def dns_domain(text: str) -> str:
    """The domain of the cluster's names."""
    if is_subdomain(text):
        return text
    raise ValueError(f"{_short(text)} is not a DNS domain: labels of a-z, 0-9 and '-', joined by dots")


def endpoint(text: str) -> str:
    """`host[:port]` of the API."""
    try:
        host, _ = split_endpoint(text)
    except ConfigError as error:
        raise ValueError(f"{_short(text)} is not host[:port], such as api.example.com:6443") from error
    if is_address(host) or (is_subdomain(host) and not _looks_like_ipv4(host)):
        return text
    raise ValueError(f"{_short(text)}: its host is neither an IP address nor a DNS name in lower case")


def endpoint_with_port(text: str) -> str:
    """`host[:port]` of the API, written with its port."""
    return host_port(*split_endpoint(endpoint(text)))


def interface(text: str) -> str:
    """The name of a network interface."""
    if 0 < len(text) <= 15 and not re.search(r"[/\\s]", text, re.ASCII) and text not in (".", ".."):
        return text
    raise ValueError(f"{_short(text)} is not an interface's name, such as eth0")


def https_url(text: str) -> str:
    """`https://host[:port]`, without a path; kept as it is written."""
    try:
        parts = urlsplit(text)
        fit = parts.scheme == "https" and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none
        fit = False
    if not fit or parts.path not in ("", "/") or parts.query or parts.username:
        raise ValueError(f"{_short(text)} is not a URL such as https://192.0.2.10:2379")
    return text.rstrip("/")


def jump(text: str) -> str:
    """`[user@]host[:port]` of a jump host."""
    user, at, where = text.rpartition("@")
    if at:
        user_name(user)
    try:
        host, _ = split_endpoint(where, 22)
        host_address(host)
    except (ConfigError, ValueError) as error:
        raise ValueError(f"{_short(text)} is not [user@]host[:port]") from error
    return text


def user_name(text: str) -> str:
    """A user to log in as."""
    if len(text) <= 256 and _USER.fullmatch(text):
        return text
    raise ValueError(f"{_short(text)} is not a user's name")


def path(text: str) -> str:
    """A file's path; whether it is there is not known here."""
    if not text or "\0" in text or "\n" in text:
        raise ValueError(f"{_short(text)} is not a path")
    return text


def absolute_path(text: str) -> str:
    """A path that begins with a slash."""
    if not path(text).startswith("/"):
        raise ValueError(f"{_short(text)} is not an absolute path")
    return text


def qualified_name(text: str) -> str:
    """A label's or taint's key: `[prefix/]name`."""
    prefix, slash, name = text.rpartition("/")
    if (not slash or is_subdomain(prefix)) and len(name) <= 63 and _QUALIFIED.fullmatch(name):
        return text
    raise ValueError(
        f"{_short(text)} is not [prefix/]name: the prefix a DNS name, the name at most 63 letters, digits, '-', "
        "'_' and '.'"
    )


def label_value(text: str) -> str:
    """A label's or taint's value."""
    if not text or (len(text) <= 63 and _QUALIFIED.fullmatch(text)):
        return text
    raise ValueError(f"{_short(text)} is not a valid value: at most 63 letters, digits, '-', '_' and '.'")


def alternative_name(text: str) -> str:
    """A name for a certificate: an address, a DNS name in lower case, or one with a wildcard in front."""
    if is_address(text) or (is_subdomain(text.removeprefix("*.")) and not _looks_like_ipv4(text)):
        return text
    raise ValueError(f"{_short(text)} is neither an IP address nor a DNS name in lower case")


def flag_name(text: str) -> str:
    """A flag's name, without the dashes in front."""
    if text.startswith("-"):
        raise ValueError(f"{_short(text)}: write the flag without its dashes, {text.lstrip('-')!r}")
    if not _QUALIFIED.fullmatch(text):
        raise ValueError(f"{_short(text)} is not a flag's name")
    return text


def or_empty(check: Callable[[str], str]) -> Callable[[str], str]:
    """A check that lets the empty text pass, where that means "not said"."""
    return lambda text: check(text) if text else text


def _looks_like_ipv4(text: str) -> bool:
    """Whether a name is made like an address: `192.168.1.300` is a slip, never a host's name."""
    return re.fullmatch(r"[0-9.]+", text) is not None


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "…")
