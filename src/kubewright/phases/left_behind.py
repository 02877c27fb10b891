"""What a reset leaves that may be of use when the cluster is gone: an administrator's to remove."""

from __future__ import annotations

from kubewright.errors import KubewrightError
from kubewright.hosts import Host
from kubewright.model.backup import BACKUPS
from kubewright.model.kept import Kept

# Prints those of $1, of the homes' kubeconfigs below $2 and in $3 that are there.
_LEFT = r"""
[ -z "$(ls -A -- "$1" 2>/dev/null)" ] || echo "$1"
for home in "$2" "$3"/*; do [ ! -e "$home/.kube/config" ] || echo "$home/.kube/config"; done
"""


async def left_behind(host: Host) -> list[Kept]:
    """What there is of it. Raises nothing."""
    try:
        said = await host.shell(_LEFT, BACKUPS, "/root", "/home", check=False)
    except KubewrightError:
        return []
    return [
        Kept(path, "what conversions have kept, with the cluster's keys", f"rm -r {BACKUPS}")
        if path == BACKUPS
        else Kept(path, "a user's own, which may name this cluster and others")
        for path in said.text.splitlines()
    ]
