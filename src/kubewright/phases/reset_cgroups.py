"""The kubelet's control groups for Pods, which stay behind empty when their Pods have been removed."""

from __future__ import annotations

from kubewright.hosts import Host
from kubewright.model.kubelet import CONFIG_PATH
from kubewright.model.objects import read_mapping

_CGROUPS = "/sys/fs/cgroup"

# Prints the kubelet's topmost control groups below $1, where its cgroupRoot is $2 without slashes around it: in
# one hierarchy, or with version 1 in each.
_TOPS = r"""
tops() {
  root=${2:+/$2}
  for top in "$1$root/kubepods" "$1$root/kubepods.slice"; do [ ! -d "$top" ] || echo "$top"; done
  [ ! -e "$1/cgroup.controllers" ] || return 0
  for top in "$1"/*"$root/kubepods" "$1"/*"$root/kubepods.slice"; do
    [ -h "${top%"$root"/kubepods*}" ] || [ ! -d "$top" ] || echo "$top"
  done
}
"""
_LOOK = _TOPS + 'tops "$1" "$2"\n'
# rmdir(2), as find calls it here, refuses a control group that has processes. To stop a slice would end them, so
# that one must have none.
_REMOVE = (
    _TOPS
    + r"""
tops "$1" "$2" | while read -r top; do
  if [ -n "$(find "$top" -name cgroup.procs -exec cat {} +)" ]; then
    echo "$top: it has processes"
  else
    case $top in *.slice) systemctl stop kubepods.slice </dev/null >/dev/null 2>&1;; esac
    [ ! -d "$top" ] || find "$top" -depth -type d -delete 2>/dev/null
    [ ! -d "$top" ] || echo "$top: it cannot be removed"
  fi
done
"""
)


async def pod_cgroups(host: Host) -> list[str]:
    """The topmost ones, as paths."""
    return (await host.shell(_LOOK, _CGROUPS, await _root(host), check=False)).text.splitlines()


async def remove_cgroups(host: Host) -> list[str]:
    """Remove those without processes; what is left, and why. The kubelet's configuration must still be there."""
    said = await host.shell(_REMOVE, _CGROUPS, await _root(host), check=False)
    return [f"a control group stays: {line}" for line in said.text.splitlines()]


async def _root(host: Host) -> str:
    """The kubelet's `cgroupRoot` without slashes around it; empty for the default."""
    config = read_mapping(await host.read_file(CONFIG_PATH) or b"") or {}
    return str(config.get("cgroupRoot") or "").strip("/")
