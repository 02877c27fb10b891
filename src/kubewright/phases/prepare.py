"""Preparing a host: the programs, kernel settings and container runtime that a node needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from kubewright.errors import ExitCode, HostError, WaitTimeoutError
from kubewright.events import Activity
from kubewright.hosts import FileWrite
from kubewright.model import hostfiles
from kubewright.model.containerd import containerd_config
from kubewright.phases.files import diff_lines, differing, file_changes, newer_than_unit
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.waiting import unit_evidence, wait_until

CONTAINERD_CONFIG = "/etc/containerd/config.toml"
CAP_SYS_RESOURCE = 24
CNI_DIRECTORIES = ("/usr/lib/cni", "/opt/cni/bin")
"""Debian's place of the plugins, and everybody else's."""

# What the kubelet, kube-proxy and containerd execute, and the Debian package that brings it. The CNI plugins
# stand in a directory instead of on PATH.
_PROGRAMS = {
    "containerd": "containerd",
    "runc": "runc",
    "conntrack": "conntrack",
    "iptables": "iptables",
    "ip": "iproute2",
    "mount": "mount",
    "nsenter": "util-linux",
    "ethtool": "ethtool",
}
_CNI_PACKAGE = "containernetworking-plugins"

_LOOK = """
for program; do command -v "$program" >/dev/null || echo "$program"; done
[ -x /usr/lib/cni/bridge ] || [ -x /opt/cni/bin/bridge ] || echo cni
"""


# What containerd's CRI plugin knows of registries that must not be shown (its docs/cri/registry.md).
_PASSWORD = re.compile(r"\b(password|auth|identity_?token|authorization)\b[\"']?\s*=.*", re.IGNORECASE)


def without_registry_secrets(diff: Sequence[str]) -> tuple[str, ...]:
    """Lines of a diff of containerd's configuration, without the secrets of registries."""
    return tuple(_PASSWORD.sub(r"\1 = <secret>", line) for line in diff)


class Packages(Phase):
    """The programs that nodes need, from the host's own distribution."""

    name: ClassVar[str] = "packages"
    title: ClassVar[str] = "install what a node needs"

    def __init__(self, node: Node) -> None:
        self._node = node
        self.host_name = node.name

    async def look(self) -> list[Change]:
        """Which programs are missing."""
        found = await self._node.host.shell(_LOOK, *_PROGRAMS)
        names = found.text.split()
        return [
            Change(Action.CREATE, f"package {_PROGRAMS.get(name, _CNI_PACKAGE)}", self.host_name)
            for name in names
        ]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Install them with apt-get. Its lock is waited for: a fresh host often updates itself just then."""
        packages = sorted({change.target.removeprefix("package ") for change in changes})
        activity.progress(f"apt-get install {' '.join(packages)}")
        await install(self._node, packages)


async def install(node: Node, packages: Sequence[str]) -> None:
    """Install packages with apt-get. Raises `HostError` where it cannot."""
    command = (
        "export DEBIAN_FRONTEND=noninteractive; "
        'apt-get -q -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@" >/dev/null || '
        "{ apt-get -q -o DPkg::Lock::Timeout=120 update >/dev/null && "
        'apt-get -q -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@" >/dev/null; }'
    )
    result = await node.host.shell(command, *packages, timeout=600, check=False)
    if not result.ok:
        raise HostError(
            f"{node.name}: could not install {', '.join(packages)}",
            host=node.name, evidence=result.err.splitlines()[-5:],
            hint=f"install them on the host by hand: apt-get install {' '.join(packages)}",
            exit_code=ExitCode.HOST_NOT_FIT,
        )  # fmt: skip


class Kernel(Phase):
    """Modules and sysctls that pod traffic needs, now and after a reboot (P46)."""

    name: ClassVar[str] = "kernel"
    title: ClassVar[str] = "set kernel modules and sysctls"

    def __init__(self, node: Node, modules: Sequence[str] = (), *, keep: bool = False) -> None:
        """`modules` are those that the cluster needs besides: IPVS' (P17), which nobody else loads.

        With `keep`, what the files have besides stays in them: where nobody knows what the cluster needs.
        """
        self._node = node
        self.host_name = node.name
        self._modules = modules
        self._keep = keep
        self._files: list[FileWrite] = []

    async def look(self) -> list[Change]:
        """Which files differ, and which values are not in force."""
        host = self._node.host
        old = await host.read_files([hostfiles.MODULES_PATH, hostfiles.SYSCTL_PATH]) if self._keep else {}
        texts = {path: data.decode(errors="surrogateescape") for path, data in old.items()}
        more = [*self._modules, *hostfiles.more_modules(texts.get(hostfiles.MODULES_PATH, ""))]
        wanted = hostfiles.sysctl_file(texts.get(hostfiles.SYSCTL_PATH, ""))
        self._files = await differing(
            host,
            [
                FileWrite(hostfiles.MODULES_PATH, hostfiles.modules_file(more)),
                FileWrite(hostfiles.SYSCTL_PATH, wanted),
            ],
        )
        changes = await file_changes(host, self._files)
        values = hostfiles.SYSCTLS
        result = await host.shell(
            'for key; do printf "%s=%s\\n" "$key" "$(cat "/proc/sys/$(echo "$key" | tr . /)" 2>/dev/null)"; done',
            *values,
        )
        live = dict(line.partition("=")[::2] for line in result.text.splitlines())
        changes += [
            Change(Action.UPDATE, f"sysctl {key}", self.host_name, (f"-{live.get(key, '')}", f"+{value}"))
            for key, value in values.items()
            if live.get(key) != value
        ]
        return changes + await self._not_loaded()

    async def _not_loaded(self) -> list[Change]:
        """Which of the cluster's own modules are files that nobody has loaded."""
        if not self._modules:
            return []
        script = (
            'for module; do [ -d "/sys/module/$module" ] || '
            'case $(modinfo -F filename "$module" 2>/dev/null) in /*) echo "$module" ;; esac; done'
        )
        found = (await self._node.host.shell(script, *self._modules)).text.split()
        return [Change(Action.RUN, f"modprobe {module}", self.host_name) for module in found]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write the files, load the modules, set the values."""
        host = self._node.host
        await host.write_files(self._files)
        # A module that is built into the kernel cannot be loaded and need not be: the sysctls tell.
        script = 'for module in $1; do modprobe "$module" 2>/dev/null || true; done; shift; sysctl -q -w "$@"'
        pairs = [f"{key}={value}" for key, value in hostfiles.SYSCTLS.items()]
        if own := [one.target.removeprefix("modprobe ") for one in changes if one.action is Action.RUN]:
            await host.run(["modprobe", "-a", *own])
        result = await host.shell(script, " ".join(hostfiles.KERNEL_MODULES), *pairs, check=False)
        if not result.ok:
            raise HostError(
                f"{self.host_name}: cannot set {' '.join(pairs)}",
                host=self.host_name, evidence=result.err.splitlines()[-5:],
                hint="the kernel needs br_netfilter and IPv4 forwarding for pods to reach services (P46)",
                exit_code=ExitCode.HOST_NOT_FIT,
            )  # fmt: skip


class Runtime(Phase):
    """containerd with what Kubernetes needs in its configuration, running (P15, P48)."""

    name: ClassVar[str] = "runtime"
    title: ClassVar[str] = "configure containerd"

    def __init__(self, node: Node, *, pause_image: str, cgroup_driver: str) -> None:
        self._node = node
        self.host_name = node.name
        self._pause = pause_image
        self._cgroup_driver = cgroup_driver
        self._config: bytes | None = None
        self._mode = 0o644

    async def look(self) -> list[Change]:
        """Whether the configuration differs, and whether the unit runs."""
        host = self._node.host
        live = await host.read_file(CONTAINERD_CONFIG)
        found = await host.stat_files(
            [CONTAINERD_CONFIG, *(f"{path}/bridge" for path in CNI_DIRECTORIES)], digest=False
        )
        if (stat := found.get(CONTAINERD_CONFIG)) is not None:
            # It may hold the passwords of registries, and then not everybody may read it.
            self._mode = stat.mode
        wanted = containerd_config(
            live,
            sandbox_image=self._pause,
            systemd_cgroup=self._cgroup_driver == "systemd",
            restrict_oom_score_adj=not self._node.facts.has_capability(CAP_SYS_RESOURCE),
            cni_bin_dir=next((path for path in CNI_DIRECTORIES if f"{path}/bridge" in found), ""),
        )
        changes = []
        self._config = None
        if wanted != live:
            self._config = wanted
            action = Action.CREATE if live is None else Action.UPDATE
            changes.append(
                Change(
                    action, CONTAINERD_CONFIG, self.host_name,
                    without_registry_secrets(diff_lines("", live or b"", wanted)),
                )
            )  # fmt: skip
        state = await host.run(["systemctl", "is-active", "containerd"], check=False)
        if (
            changes
            or state.text != "active"
            or await newer_than_unit(host, "containerd", [CONTAINERD_CONFIG])
        ):
            changes.append(Change(Action.RUN, "restart containerd.service", self.host_name))
        return changes

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write the configuration and restart containerd; running containers survive that."""
        host = self._node.host
        if self._config is not None:
            await host.write_file(CONTAINERD_CONFIG, self._config, mode=self._mode)
        result = await host.shell(
            "systemctl enable -q containerd && systemctl restart containerd", timeout=90, check=False
        )
        if not result.ok:
            raise HostError(
                f"{self.host_name}: containerd does not start",
                host=self.host_name, evidence=await unit_evidence(host, "containerd"),
                hint=f"look at {CONTAINERD_CONFIG}, then: systemctl restart containerd",
                exit_code=ExitCode.HOST_NOT_FIT,
            )  # fmt: skip

    async def verify(self, activity: Activity) -> None:
        """Wait until containerd answers on its socket."""
        host = self._node.host

        async def answers() -> str | None:
            result = await host.run(["ctr", "version"], check=False, timeout=10)
            return None if result.ok else result.err

        try:
            await wait_until(answers, f"{self.host_name}: containerd to answer", deadline=30)
        except WaitTimeoutError as error:
            raise WaitTimeoutError(
                error.message, host=self.host_name, evidence=await unit_evidence(host, "containerd")
            ) from error
