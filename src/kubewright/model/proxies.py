"""Whether a connection goes through an HTTP proxy, by the environment variables as Go's net/http reads them."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit


def proxy_for(host: str, environment: Mapping[str, str]) -> str:
    """The proxy for HTTPS to `host`, as `scheme://host:port` without its user and password; empty for none.

    See golang.org/x/net/http/httpproxy: upper case before lower, a proxy without a scheme is http, localhost and
    loopback addresses never go through one, and NO_PROXY lists `*`, names, domains, addresses and CIDRs.
    """
    proxy = environment.get("HTTPS_PROXY") or environment.get("https_proxy", "")
    if not proxy or _direct(host, environment.get("NO_PROXY") or environment.get("no_proxy", "")):
        return ""
    url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}"


def _direct(host: str, no_proxy: str) -> bool:
    name = host.strip("[]").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        address = None
    if name == "localhost" or (address is not None and address.is_loopback):
        return True
    for entry in (part.strip().lower() for part in no_proxy.split(",")):
        if entry == "*":
            return True
        if not entry:
            continue
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            domain = entry.rpartition(":")[0] if entry.rpartition(":")[2].isdigit() else entry
            domain = domain.removeprefix("*")
            # With a dot before it, a domain stands for the names below it alone.
            if name == domain or name.endswith(f".{domain.lstrip('.')}"):
                return True
        else:
            if address is not None and address.version == network.version and address in network:
                return True
    return False
