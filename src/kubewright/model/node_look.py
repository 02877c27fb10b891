"""What preflight looks at on a host: one shell script, and the pure function that reads what it printed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from kubewright.model.sections import sections

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")

# $1 are paths, a line each, because a user's may have blanks. $2 to $5 are lists with a space between: programs,
# units, files to read, and kernel options with a bar between; $6 is the node's name. $7 are modules, each with the
# kernel's option for it (ip_vs:IP_VS). The kernel ends /sys/fs/selinux/enforce without a newline.
LOOK = r"""
exec 2>/dev/null
LC_ALL=C; export LC_ALL
section() { printf '\n@@ %s\n' "$1"; }
section listening; ss -Hltnp || cat /proc/net/tcp /proc/net/tcp6
section paths
printf '%s\n' "$1" | while IFS= read -r path; do
  [ ! -e "$path" ] || echo "exists $path"
  [ ! -d "$path" ] || [ -z "$(ls -A "$path" | head -n 1)" ] || echo "filled $path"
done
section programs; for program in $2; do ! command -v "$program" >/dev/null || echo "$program"; done
section units
for unit in $3; do
  printf '%s %s %s\n' "$unit" "$(systemctl is-enabled "$unit" || true)" "$(systemctl is-active "$unit" || true)"
done
section contents; for path in $4; do printf '%s %s\n' "$path" "$(head -c 64 "$path" | head -n 1)"; done
section name; getent ahosts "$6" | cut -d' ' -f1 | sort -u
section kubelet; timeout 10 kubelet --version
section proxies; env | grep -iE '^(https?|no)_proxy='
section cgroups
cat /sys/fs/cgroup/cgroup.controllers || \
  while read -r name _ _ on; do [ "$on" != 1 ] || echo "$name"; done </proc/cgroups
section kernel
release=$(uname -r)
for file in /proc/config.gz "/boot/config-$release" "/usr/lib/modules/$release/config" \
  "/usr/src/linux-headers-$release/.config" "/lib/modules/$release/build/.config"; do
  if [ -r "$file" ]; then
    echo found
    case $file in *.gz) zcat "$file" ;; *) cat "$file" ;; esac | grep -E "^CONFIG_($5)="
    break
  fi
done
section modules
for pair in $7; do
  name=${pair%%:*}; option=CONFIG_${pair#*:}; file=$(echo "$name" | sed 's/_/[_-]/g')
  if [ -d "/sys/module/$name" ] || grep -q "^$name " /proc/modules; then echo "$name loaded"
  elif grep -qE "/$file\.ko$" "/lib/modules/$release/modules.builtin"; then echo "$name builtin"
  elif [ -n "$(find -L "/lib/modules/$release" -type f -name "$file.ko*" | head -n 1)" ]; then echo "$name module"
  elif { zcat /proc/config.gz || cat "/boot/config-$release"; } | grep -q "^$option=y"; then echo "$name builtin"
  fi
done
section selinux; cat /sys/fs/selinux/enforce; echo; grep -E '^[[:space:]]*SELINUX=' /etc/selinux/config
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit as systemd sees it: `systemctl is-enabled` and `is-active`; `enabled` is empty for no such unit."""

    enabled: str
    active: str


@dataclass(frozen=True, slots=True)
class NodeLook:
    """What `LOOK` found. What could not be found out is empty."""

    listening: Mapping[int, str]
    """TCP ports that are listened on, and the process that does it (empty where that is not known)."""
    existing: frozenset[str]
    """Of the paths asked for, those that exist."""
    filled: frozenset[str]
    """Of the paths asked for, the directories that are not empty."""
    programs: frozenset[str]
    """Of the programs asked for, those in PATH."""
    units: Mapping[str, Unit]
    contents: Mapping[str, str]
    """The first lines of the files asked for; empty for one that does not exist."""
    name_addresses: tuple[str, ...]
    """What the node's name resolves to on the host."""
    kubelet_version: str
    """As in `v1.20.2`; empty where there is no kubelet in PATH."""
    proxies: Mapping[str, str]
    """Environment variables of PROXY_VARIABLES. Their values may hold passwords."""
    cgroups: frozenset[str]
    kernel_config: Mapping[str, str] | None
    """The kernel options asked for, without CONFIG_, with `y` or `m`; None where the host does not say."""
    modules: Mapping[str, str] = field(default_factory=dict)
    """Of the modules asked for, those that the kernel has: `loaded`, `builtin`, or `module` for a file."""
    selinux_enforcing: bool = False
    selinux_config: str = ""
    """What /etc/selinux/config says: `enforcing`, `permissive`, `disabled`, or nothing."""


def parse_look(text: str) -> NodeLook:
    """What `LOOK` printed."""
    found = sections(text)
    paths = [line.split(" ", 1) for line in found.get("paths", "").splitlines() if " " in line]
    units = [line.split() for line in found.get("units", "").splitlines() if line]
    version = re.search(r"v\d+\.\d+\.\d+\S*", found.get("kubelet", ""))
    kernel = found.get("kernel", "").split()
    proxies = [line.partition("=") for line in found.get("proxies", "").splitlines()]
    modules = [line.partition(" ") for line in found.get("modules", "").splitlines()]
    selinux = found.get("selinux", "")
    mode = re.search(r"^\s*SELINUX=(\w+)", selinux, re.MULTILINE)
    return NodeLook(
        listening=parse_listening(found.get("listening", "")),
        existing=frozenset(path for kind, path in paths if kind == "exists"),
        filled=frozenset(path for kind, path in paths if kind == "filled"),
        programs=frozenset(found.get("programs", "").split()),
        # is-enabled prints nothing for a unit that does not exist, "not-found" from systemd 250 on.
        units={
            row[0]: Unit(row[1] if len(row) == 3 and row[1] != "not-found" else "", row[-1])
            for row in units
            if len(row) > 1
        },
        contents={
            path: content.strip()
            for path, _, content in (line.partition(" ") for line in found.get("contents", "").splitlines())
            if path
        },
        name_addresses=tuple(found.get("name", "").split()),
        kubelet_version=version[0] if version else "",
        proxies={name: value for name, _, value in proxies if name in PROXY_VARIABLES and value},
        cgroups=frozenset(found.get("cgroups", "").split()),
        kernel_config={
            name.removeprefix("CONFIG_"): value[:1]
            for name, equals, value in (word.partition("=") for word in kernel)
            if equals
        }
        if kernel[:1] == ["found"]
        else None,
        modules={name: state for name, _, state in modules if name},
        selinux_enforcing=selinux.lstrip().startswith("1"),
        selinux_config=mode[1].lower() if mode else "",
    )  # fmt: skip


def parse_listening(text: str) -> dict[int, str]:
    """TCP ports that are listened on, and by what, out of `ss -Hltnp` or, where there is no ss, /proc/net/tcp
    (proc(5): state 0A listens, ports in hex)."""
    ports: dict[int, str] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) > 3 and words[0] == "LISTEN":
            port = words[3].rpartition(":")[2]
            process = re.search(r'users:\(\("([^"]+)"', line)
            if port.isdigit() and not ports.get(int(port)):
                ports[int(port)] = process[1] if process else ""
        elif len(words) > 3 and words[3] == "0A" and ":" in words[1]:
            ports.setdefault(int(words[1].rpartition(":")[2], 16), "")
    return ports
