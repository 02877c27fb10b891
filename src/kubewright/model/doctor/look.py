"""What `doctor` looks at on a host: one shell script, and the function that reads what it printed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from kubewright.model.doctor.logs import TELLING, logs_of
from kubewright.model.etcd_unit import UNIT as ETCD_UNIT
from kubewright.model.facts import ARCHITECTURES
from kubewright.model.go_stacks import STACKS, TAIL
from kubewright.model.kubeconfig import KUBELET, KUBELET_CLIENT_CURRENT, KUBERNETES_DIR
from kubewright.model.kubelet import CONFIG_PATH, FLAGS_PATH, INSTANCE_CONFIG_PATH, KUBELET_DIR
from kubewright.model.manifests import MANIFESTS_DIR
from kubewright.model.objects import Object, read_mapping
from kubewright.model.status import CONTROL_PLANE_PARTS

KUBELET_CONF = f"{KUBERNETES_DIR}/{KUBELET}"
SUBNET_ENV = "/run/flannel/subnet.env"
CNI_DIR = "/etc/cni/net.d"
CONTAINERD_CONFIG = "/etc/containerd/config.toml"
"""Not read as a whole: it may have the passwords of registries."""
FORWARD = "/proc/sys/net/ipv4/ip_forward"
BRIDGE_FILTER = "/proc/sys/net/bridge/bridge-nf-call-iptables"
SWAPS = "/proc/swaps"
SELINUX_ENFORCE = "/sys/fs/selinux/enforce"
UNITS = (
    "kubelet.service",
    "containerd.service",
    "crio.service",
    "cri-docker.service",
    "docker.service",
    ETCD_UNIT,
)
CONTAINERD_ROOT = "/var/lib/containerd"
PLACES = (KUBELET_DIR, CONTAINERD_ROOT, "/var/lib/etcd")
"""Whose file systems must have room: the kubelet's, the images', etcd's."""
RECENT = timedelta(seconds=90)
"""A kubelet tries again to start a Pod within this time."""
EXTRA_FLAGS = ("/etc/default/kubelet", "/etc/sysconfig/kubelet")
MANIFEST_NAMES = frozenset(CONTROL_PLANE_PARTS)
_FILES = (
    KUBELET_CONF,
    CONFIG_PATH,
    FLAGS_PATH,
    INSTANCE_CONFIG_PATH,
    SUBNET_ENV,
    FORWARD,
    BRIDGE_FILTER,
    SWAPS,
    SELINUX_ENFORCE,
    "/proc/uptime",
    *EXTRA_FLAGS,
)

# $1 are files, a line each, $2 units, $3 places, $4 the directory of certificates, $5 patterns of more files, $6
# files of which the certificates alone are printed, $7 what tells in a log why a program ended, $8 and $9
# how many lines of the kubelet's are looked through, and which of them tell nothing. Each line of a content has a
# blank before it, so that none is taken for a heading. Keys and tokens of a kubeconfig do not leave the host.
LOOK = r"""
exec 2>/dev/null
LC_ALL=C; export LC_ALL
section() { printf '\n@@ %s\n' "$1"; }
show() { sed -e '/client-key-data:/d' -e '/token:/d' -e 's/^/ /'; }
section time; date +%s | show
section name; hostname | show
section machine; uname -m | show
section units
systemctl show -p Id -p LoadState -p UnitFileState -p ActiveState -p SubState -p Result -p MainPID \
  -p NRestarts -p ActiveEnterTimestampMonotonic -p ExecMainStatus $2 | show
printf '%s\n' "$1" | while IFS= read -r path; do
  [ ! -r "$path" ] || { section "file:$path"; show <"$path"; }
done
for path in $5; do [ ! -r "$path" ] || { section "file:$path"; show <"$path"; }; done
for path in "$4/apiserver.crt" $6; do
  [ ! -r "$path" ] || { section "cert:$path"; sed -n '/-----BEGIN CERT/,/-----END CERT/p' "$path" | show; }
done
room() {
  for place in $2; do [ ! -d "$place" ] || printf ' %s %s\n' "$place" "$(df "$1" "$place" | tail -n 1)"; done
}
section disks; room -Pk "$3"
section inodes; room -Pi "$3"
section sockets; [ ! -S /var/run/dockershim.sock ] || echo /var/run/dockershim.sock | show
section addresses; ip -o addr show | show
section links; ip -o link show | show
pid=$(systemctl show -p MainPID --value kubelet)
if [ "${pid:-0}" != 0 ]; then
  section cgroup; show <"/proc/$pid/cgroup"
  section command; tr '\0' '\n' <"/proc/$pid/cmdline" | show
fi
resolv=$(sed -n 's/^resolvConf: *//p' /var/lib/kubelet/config.yaml | tr -d '"')
resolv=${resolv:-/etc/resolv.conf}
section containerd; grep -E '^ *(SystemdCgroup|systemd_cgroup) *=' /etc/containerd/config.toml | show
section resolv; printf ' %s\n' "$resolv"; grep '^nameserver' "$resolv" | show
section journal
timeout 5 journalctl -u kubelet -n "$8" --no-pager -o short-unix --no-hostname | grep -vE -e "$9" | tail -n 60 |
  cut -c 1-600 | show
for folder in /var/log/pods/kube-system_*/*/; do
  newest=$(ls -t "$folder" | grep '\.log$' | head -n 1)
  [ -n "$newest" ] || continue
  section "log:$folder"; tail -n 1000 "$folder$newest" | grep -vE -e "$9" | tail -n 6 | cut -c 1-600 | show
  section "told:$folder"; head -c 65536 "$folder$newest" | grep -m 8 -iE "$7" | cut -c 1-600 | show
done
section end
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit as `systemctl show` has it."""

    load: str
    """`not-found` where there is none."""
    file: str
    """`enabled`, `disabled`, `masked`…; empty where it has no file."""
    active: str
    sub: str
    result: str
    pid: int = 0
    restarts: int = 0
    status: int = 0
    """The exit status of its main process, when it last ended."""
    up: timedelta | None = None
    """For how long it has been active; None where it is not."""

    @property
    def exists(self) -> bool:
        """Whether there is such a unit."""
        return self.load not in ("", "not-found")

    @property
    def words(self) -> str:
        """Its state as `systemctl status` writes it."""
        state = f"{self.active} ({self.sub})" if self.sub and self.sub != self.active else self.active
        return f"{state}, result {self.result}" if self.result not in ("", "success") else state


class Disk(NamedTuple):
    """A file system."""

    mount: str
    size: int
    """In KiB, or inodes."""
    free: int

    @property
    def percent_free(self) -> float:
        """What is left, of a hundred."""
        return 100.0 * self.free / self.size if self.size else 100.0


@dataclass(frozen=True, slots=True)
class Look:
    """What `LOOK` found. What the host does not say is empty."""

    now: datetime | None = None
    """The host's clock."""
    hostname: str = ""
    machine: str = ""
    """Its architecture, by the name that Go and images have for it."""
    units: Mapping[str, Unit] = field(default_factory=dict)
    """By name without `.service`; those that do not exist, too."""
    files: Mapping[str, str] = field(default_factory=dict)
    """By path; without keys and tokens."""
    certs: Mapping[str, bytes] = field(default_factory=dict)
    """Certificates by path, as PEM without a key."""
    disks: Mapping[str, Disk] = field(default_factory=dict)
    """By the place asked for."""
    inodes: Mapping[str, Disk] = field(default_factory=dict)
    sockets: tuple[str, ...] = ()
    """dockershim's, where it is: a kubelet until 1.23 that has docker for its runtime serves CRI itself."""
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The addresses of links, with their prefixes."""
    mtu: int = 0
    """The smallest of the links that are up; 0 where it is not known."""
    cgroups: Mapping[str, str] = field(default_factory=dict)
    """The kubelet's, by controller; version 2's one has the empty name."""
    command: tuple[str, ...] = ()
    """The words by which the kubelet that runs was started."""
    systemd_cgroup: bool | None = None
    """Whether containerd's configuration has runc use systemd's cgroups; None where it does not say."""
    resolv_path: str = ""
    nameservers: tuple[str, ...] = ()
    """Of the resolv.conf that the kubelet gives to pods."""
    journal: tuple[str, ...] = ()
    """The kubelet's last lines."""
    recent: tuple[str, ...] = ()
    """Those of them that are younger than `RECENT`: what they complain of is likely to be so still."""
    logs: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """The last lines of containers in kube-system, by Pod and container."""
    told: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """Of their first lines those that may tell why they have ended."""
    complete: bool = False
    """Whether the script came to its end."""

    @property
    def joined(self) -> bool:
        """Whether it has a kubelet of a cluster."""
        return KUBELET_CONF in self.files

    @property
    def manifests(self) -> dict[str, str]:
        """The static Pods' manifests by the names of their files."""
        return {
            path.removeprefix(f"{MANIFESTS_DIR}/").removesuffix(".yaml"): text
            for path, text in self.files.items()
            if path.startswith(f"{MANIFESTS_DIR}/")
        }

    @property
    def has_plane(self) -> bool:
        """Whether it is, or was made, a control plane: workers have no API server's certificate."""
        return bool(MANIFEST_NAMES & set(self.manifests)) or any(
            path.endswith("/apiserver.crt") for path in self.certs
        )

    @property
    def kubelet_config(self) -> Object:
        """The KubeletConfiguration; empty where it cannot be read."""
        return read_mapping(self.files.get(CONFIG_PATH, "")) or {}

    @property
    def kubelet(self) -> Unit | None:
        """The kubelet's unit."""
        return self.units.get("kubelet")

    @property
    def kubelet_flags(self) -> dict[str, str]:
        """The kubelet's flags: those of the process, else those of the files that it is started with."""
        words = list(self.command)
        if not words:
            for path in (FLAGS_PATH, *EXTRA_FLAGS):
                words += re.findall(r"--[^\s\"']+", self.files.get(path, ""))
        pairs = (word.removeprefix("--").partition("=") for word in words if word.startswith("--"))
        return {name: value for name, _, value in pairs}

    def kubelet_up(self, at_least: timedelta) -> bool:
        """Whether the kubelet has run for so long that what it has not done is not to come."""
        unit = self.kubelet
        return unit is not None and unit.up is not None and unit.up >= at_least

    def log(self, container: str, pod: str = "") -> tuple[str, ...]:
        """The last lines of a container, of any Pod of kube-system or one whose name begins so."""
        return next(
            (lines for (name, one), lines in self.logs.items() if one == container and name.startswith(pod)),
            (),
        )


def arguments(pki: str) -> tuple[str, ...]:
    """What `LOOK` is given, for a node whose certificates are in `pki`."""
    return (
        "\n".join(_FILES),
        " ".join(UNITS),
        " ".join(PLACES),
        pki,
        f"{MANIFESTS_DIR}/*.yaml {CNI_DIR}/*.conf {CNI_DIR}/*.conflist",
        KUBELET_CLIENT_CURRENT,
        TELLING,
        str(TAIL),
        STACKS,
    )


def parse_look(text: str) -> Look:
    """What `LOOK` printed."""
    parts = re.split(r"(?:\A|\n)@@ (\S+)\n", text)
    found = {name: _lines(body) for name, body in zip(parts[1::2], parts[2::2], strict=True)}
    seconds = _first(found.get("time", ()))
    uptime = _first(found.get("file:/proc/uptime", ())).split()
    units = _units(found.get("units", ()), float(uptime[0]) if uptime else 0.0)
    resolv = found.get("resolv", ())
    machine = _first(found.get("machine", ()))
    now = int(seconds) if seconds.isdecimal() else 0
    journal = [_entry(line) for line in found.get("journal", ()) if line.strip()]
    return Look(
        now=datetime.fromtimestamp(int(seconds), UTC) if seconds.isdecimal() else None,
        hostname=_first(found.get("name", ())),
        machine=ARCHITECTURES.get(machine, machine),
        units=units,
        files={name[5:]: "\n".join(lines) for name, lines in found.items() if name.startswith("file:")},
        certs={
            name[5:]: "\n".join(lines).encode() for name, lines in found.items() if name.startswith("cert:")
        },
        disks=_disks(found.get("disks", ())),
        inodes=_disks(found.get("inodes", ())),
        sockets=tuple(found.get("sockets", ())),
        addresses=_addresses(found.get("addresses", ())),
        mtu=_mtu(found.get("links", ())),
        cgroups=_cgroups(found.get("cgroup", ())),
        command=tuple(found.get("command", ())),
        systemd_cgroup=_systemd_cgroup(found.get("containerd", ())),
        resolv_path=_first(resolv),
        nameservers=tuple(words[1] for line in resolv[1:] if len(words := line.split()) > 1),
        journal=tuple(text for _, text in journal),
        recent=tuple(text for at, text in journal if at and now - at <= RECENT.total_seconds()),
        logs=logs_of(found, "log:"),
        told=logs_of(found, "told:"),
        complete="end" in found,
    )


def _lines(body: str) -> list[str]:
    """The lines of a section without the blank before each."""
    return [line[1:] for line in body.splitlines() if line.startswith(" ")]


def _first(lines: Sequence[str]) -> str:
    return lines[0].strip() if lines else ""


def _units(lines: Sequence[str], uptime: float) -> dict[str, Unit]:
    units: dict[str, Unit] = {}
    values: dict[str, str] = {}
    for line in (*lines, ""):  # an empty line is between two units
        if line:
            key, _, value = line.partition("=")
            values[key] = value
            continue
        if name := values.get("Id", "").removesuffix(".service"):
            units[name] = _unit(values, uptime)
        values = {}
    return units


def _unit(values: Mapping[str, str], uptime: float) -> Unit:
    since = int(values.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
    active = values.get("ActiveState", "")
    return Unit(
        values.get("LoadState", ""),
        values.get("UnitFileState", ""),
        active,
        values.get("SubState", ""),
        values.get("Result", ""),
        int(values.get("MainPID") or 0),
        int(values.get("NRestarts") or 0),
        int(values.get("ExecMainStatus") or 0),
        timedelta(seconds=max(uptime - since, 0)) if active == "active" and uptime and since else None,
    )


def _disks(lines: Sequence[str]) -> dict[str, Disk]:
    """Rows of POSIX's df -P after the place that was asked for: size, used, available, capacity, mount point."""
    found = {}
    for line in lines:
        match = re.match(r"(\S+) .*?\s(\d+)\s+\d+\s+(-?\d+)\s+\S+\s+(/.*)$", line)
        if match:
            found[match[1]] = Disk(match[4], int(match[2]), max(int(match[3]), 0))
    return found


def _addresses(lines: Sequence[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for line in lines:
        words = line.split()
        if len(words) > 3 and words[2] in ("inet", "inet6"):
            link = words[1].partition("@")[0]
            found[link] = (*found.get(link, ()), words[3])
    return found


def _cgroups(lines: Sequence[str]) -> dict[str, str]:
    """/proc/PID/cgroup (cgroups(7)): number, controllers with commas between, path."""
    found = {}
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def _entry(line: str) -> tuple[float, str]:
    """The time and the text of a line in journalctl's form `short-unix`; 0 where it is in none."""
    match = re.match(r"(\d+\.\d+) [^\s:]+: (.*)$", line)
    return (float(match[1]), match[2]) if match else (0.0, line)


def _mtu(lines: Sequence[str]) -> int:
    """`ip -o link` has a link a line, its flags in angle brackets."""
    up = [line for line in lines if re.search(r"[<,]UP[,>]", line) and "LOOPBACK" not in line]
    found = (re.search(r" mtu (\d+)", line) for line in up)
    return min((int(one[1]) for one in found if one), default=0)


def _systemd_cgroup(lines: Sequence[str]) -> bool | None:
    """`SystemdCgroup` is of runc's options, `systemd_cgroup` the older field of the whole plugin."""
    values = [line.partition("=")[2].strip() for line in lines]
    return None if not values else "true" in values
