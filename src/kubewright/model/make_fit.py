"""What `kubewright preflight --fix` changes on a host, as text: fstab, SELinux's file, rules of firewalls."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kubewright.model.fleet_ports import Opening

FSTAB, SELINUX_CONFIG = "/etc/fstab", "/etc/selinux/config"


def without_swap(fstab: str) -> str:
    """fstab(5) with its lines of swap made comments, so that they can be brought back."""
    return "".join(f"# {line}" if _is_swap(line) else line for line in fstab.splitlines(keepends=True))


def _is_swap(line: str) -> bool:
    fields = line.split()
    return len(fields) > 2 and not fields[0].startswith("#") and fields[2] == "swap"


def swap_units(text: str) -> list[str]:
    """Units that would turn swap on again and do not come from fstab, out of `systemctl show` with Id, SourcePath,
    FragmentPath and LoadState. Units without a file only mirror what is on (systemd.swap(5))."""
    found = []
    for block in text.split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.splitlines())
        if (
            values.get("FragmentPath")
            and values.get("LoadState") == "loaded"
            and values.get("SourcePath") != FSTAB
        ):
            found.append(values["Id"])
    return found


def permissive(config: str) -> str:
    """SELinux' configuration with its mode permissive, from the next start on."""
    return re.sub(r"^(\s*SELINUX=)\s*enforcing\b", r"\1permissive", config, flags=re.MULTILINE)


def ufw_rules(openings: Sequence[Opening]) -> list[list[str]]:
    """The commands that let other hosts through ufw (ufw(8)), one for each."""
    return [
        [
            "ufw", "allow", "proto", "tcp", "from", one.source, "to", "any", "port",
            ",".join(port.replace("-", ":") for port in one.ports), "comment", f"Kubernetes: {one.user}",
        ]
        for one in openings
        if one.ports
    ]  # fmt: skip


def firewalld_rules(openings: Sequence[Opening]) -> list[str]:
    """The rich rules that let other hosts through firewalld (firewalld.richlanguage(5)), one for each port."""
    return [
        f'rule family="ipv4" source address="{one.source}" port port="{port}" protocol="tcp" accept'
        for one in openings
        for port in one.ports
    ]
