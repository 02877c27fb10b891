"""A host of etcd is none any more: its member stops for good, and what it knows is put aside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from kubewright.events import Activity
from kubewright.model import pki
from kubewright.model.etcd_unit import MEMBER_DIR, PERMIT_PATH, UNIT, UNIT_PATH
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase

# The CA goes last: by it a run after one that was killed knows whose host this is.
_RESET = r"""
unit=$1; member=$2; place=$3; shift 3
systemctl disable -q --now "$unit" 2>/dev/null
! systemctl is-active -q "$unit" || { echo "$unit does not stop" >&2; exit 1; }
if [ -e "$member" ]; then
  n=1; base=$place
  while [ -e "$place" ] || [ -L "$place" ]; do n=$((n + 1)); place=$base-$n; done
  mv -- "$member" "$place" || exit 1
fi
for path; do rm -f -- "$path" || exit 1; done
systemctl daemon-reload
"""


class EtcdHostReset(Phase):
    """The unit stops and goes, with its permit, certificates and keys. The data stays under another name, and the
    programs stay."""

    name: ClassVar[str] = "reset-etcd-host"
    title: ClassVar[str] = "take etcd away from its host"

    def __init__(self, node: Node, certificates_dir: str, backup_id: str) -> None:
        """The data's new name has `backup_id` in it."""
        self._node = node
        self.host_name = node.name
        etcd = f"{certificates_dir}/etcd"
        leaves = [f"{etcd}/{name}" for name in ("server", "peer", "healthcheck-client")]
        leaves.append(f"{certificates_dir}/apiserver-etcd-client")
        self._paths = [
            UNIT_PATH, PERMIT_PATH, *(f"{leaf}.{end}" for leaf in leaves for end in ("crt", "key")),
            pki.ETCD_CA.key_path(certificates_dir), pki.ETCD_CA.cert_path(certificates_dir),
        ]  # fmt: skip
        self._aside = f"{MEMBER_DIR}.before-restore-{backup_id}"

    async def look(self) -> list[Change]:
        """What of it is there."""
        found = await self._node.host.stat_files([MEMBER_DIR, *self._paths], digest=False)
        moved = [Change(Action.RUN, f"move {MEMBER_DIR} to {self._aside}", self.host_name)]
        gone = [Change(Action.DELETE, path, self.host_name) for path in self._paths if path in found]
        return [*(moved if MEMBER_DIR in found else []), *gone]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Stop it, then put aside and remove."""
        await self._node.host.shell(_RESET, UNIT, MEMBER_DIR, self._aside, *self._paths, timeout=150)
