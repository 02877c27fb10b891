"""Containers of kube-system on a host, by containerd's own client: found, and ended."""

from __future__ import annotations

from collections.abc import Iterable

from kubewright.hosts import Host

_CONTAINER = r"""
running=$(ctr -n k8s.io tasks ls | awk '$3 == "RUNNING" { print $1 }')
for id in $(ctr -n k8s.io containers ls -q \
    "labels.\"io.kubernetes.pod.namespace\"==kube-system,labels.\"io.kubernetes.container.name\"==$1"); do
  case "
$running
" in *"
$id
"*) echo "$id"; exit ;; esac
done
"""
# As a kubelet would: they are asked to, and get some time for it, $1 times 0.2 s.
_END = r"""
tries=$1; shift
for id; do ctr -n k8s.io tasks kill -s SIGTERM "$id"; done 2>/dev/null
n=0
while [ $((n += 1)) -le "$tries" ]; do
  left=$(ctr -n k8s.io tasks ls | awk '$3 == "RUNNING" { print $1 }')
  some=
  for id; do if printf '%s\n' "$left" | grep -qxF -- "$id"; then some=yes; fi; done
  [ -n "$some" ] || exit 0
  sleep 0.2
done
for id; do ctr -n k8s.io tasks kill -s SIGKILL "$id"; done 2>/dev/null
true
"""


async def running_container(host: Host, name: str) -> str:
    """The id of the container of this name that runs in kube-system on a host; empty where none does."""
    return (await host.shell(_CONTAINER, name)).text


async def end_containers(host: Host, ids: Iterable[str], *, patience: float = 10.0) -> None:
    """End containers, those that do not end within `patience` seconds by force. Their kubelet starts them anew."""
    await host.shell(_END, str(round(patience / 0.2)), *ids, timeout=patience + 50)
