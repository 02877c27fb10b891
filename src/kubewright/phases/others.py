"""Containers on a host that are nobody's Pod: what `reset` never touches (P07), by name."""

from __future__ import annotations

from kubewright.clients.cri import CONTAINERD_SOCKET, socket_path
from kubewright.errors import KubewrightError
from kubewright.hosts import Host
from kubewright.model.kept import Kept

_KUBERNETES = "k8s.io"
"""containerd's namespace for what it runs over CRI."""
_SHOWN = 3

# Prints "namespace container" for each container of the containerd behind $1 that is no Pod's; $2 is Kubernetes'
# namespace. Those in it without the kubelet's labels are somebody's who has used it by `ctr`.
_LOOK = r"""
exec 2>/dev/null
command -v ctr >/dev/null || exit 0
for space in $(timeout 10 ctr -a "$1" namespaces ls -q); do
  pods=
  if [ "$space" = "$2" ]; then
    pods=$(timeout 10 ctr -a "$1" -n "$space" containers ls -q 'labels."io.kubernetes.pod.uid"') || continue
  fi
  for container in $(timeout 10 ctr -a "$1" -n "$space" containers ls -q); do
    case " $pods " in *[[:space:]]"$container"[[:space:]]*) ;; *) echo "$space $container";; esac
  done
done
true
"""


async def containers_of_others(host: Host, socket: str) -> list[Kept]:
    """What else runs in the host's containerd, a line for each of its namespaces; nothing where it does not say.

    Other runtimes keep what is not Kubernetes' apart from it, where nobody looks for it.
    """
    path = socket_path(socket)
    if path.removeprefix("/var") != CONTAINERD_SOCKET:
        return []
    try:
        said = await host.shell(_LOOK, path, _KUBERNETES, check=False)
    except KubewrightError:  # a plan is no reason to fail
        return []
    spaces: dict[str, list[str]] = {}
    for line in said.text.splitlines():
        space, _, name = line.partition(" ")
        spaces.setdefault(space, []).append(name)
    return [_kept(space, names) for space, names in spaces.items()]


def _kept(space: str, names: list[str]) -> Kept:
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    plural = "s" if len(names) > 1 else ""
    if space == _KUBERNETES:
        why = "no Pod's: without Kubernetes' labels"
    else:
        why = "no Pod's: Kubernetes has another namespace"
    return Kept(f"container{plural} {shown} in containerd's namespace {space}", why)
