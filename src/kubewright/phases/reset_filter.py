"""What kube-proxy, the kubelet and the pod network have put into a host's packet filter (P41)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from kubewright.events import Activity
from kubewright.model import filter_rules, virtual_servers
from kubewright.model.cni_leftovers import CNI_DIR, FLANNEL_RUN
from kubewright.model.filter_rules import FilterCut
from kubewright.model.kept import Kept
from kubewright.model.virtual_servers import KUBE_IPVS, VirtualServer
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.sections import SECTION, sections

_LOCK = ("-w", "5")
"""How long iptables waits for another program that holds its lock, in seconds."""

# $1 and $2 are the kernel's lists of the old iptables' tables, $3 is its list of virtual servers, $4 flannel's
# directory, $5 that of CNI. The old iptables would load its modules just to look: where they are not loaded, it
# has no rules.
_LOOK = (
    SECTION
    + r"""
exec 2>/dev/null
for family in iptables ip6tables; do
  [ $family = iptables ] && names=$1 || names=$2
  found=
  for kind in nft legacy; do
    command -v "$family-$kind-save" >/dev/null || continue
    found=1
    [ $kind = nft ] || grep -q . "$names" || continue
    section "$family-$kind"; "$family-$kind-save"
  done
  [ -n "$found" ] || ! command -v "$family-save" >/dev/null || { section "$family"; "$family-save"; }
done
section nft; nft list tables
section servers; cat "$3"
section sets; ipset save
section link; ip -d -o link show dev kube-ipvs0
section addresses; ip -o address show dev kube-ipvs0
section ipvsadm; command -v ipvsadm
section flannel; ls -d "$4"; ls "$5"/10-flannel.conf*
true
"""
)
_KERNEL = ("/proc/net/ip_tables_names", "/proc/net/ip6_tables_names", "/proc/net/ip_vs")

# Removes virtual servers, each of $@ its option and address; then, after "--", tables of nftables; then sets and
# links, unless a virtual server is left that they mark.
_REMOVE = r"""
while [ "$1" != -- ]; do ipvsadm -D "$1" "$2" || left=1; shift 2; done; shift
while [ "$1" != -- ]; do nft delete table "$1" "$2" || true; shift 2; done; shift
[ -z "${left:-}" ] || exit 0
while [ "$1" != -- ]; do ipset destroy "$1" || true; shift; done; shift
for link; do ip link delete "$link" || true; done
"""


class PacketFilterGone(Phase):
    """kube-proxy's and the kubelet's chains, tables, virtual servers and address sets are gone.

    Our pod network's and flannel's chains are, too. Rules of others stay. Runs after the Pods have been removed,
    for kube-proxy would write them anew, and before the pod network's files, which show whether it was flannel's.
    """

    name: ClassVar[str] = "cleanup-node"
    title: ClassVar[str] = "remove Kubernetes' packet filter rules"

    def __init__(self, node: Node) -> None:
        self._node = node
        self.host_name = node.name
        self._cuts: dict[str, FilterCut] = {}
        self._tables: list[str] = []
        self._servers: list[VirtualServer] = []
        self._sets: list[str] = []
        self._links: list[str] = []
        self.kept: list[Kept] = []
        """What stays, found by `look`."""
        self.warnings: list[str] = []
        """What could not be done; the rest was."""

    async def look(self) -> list[Change]:
        """What of it is there."""
        said = await self._node.host.shell(_LOOK, *_KERNEL, FLANNEL_RUN, CNI_DIR, check=False)
        found = sections(said.stdout.decode(errors="replace"))
        flannel = bool(found.get("flannel", "").strip())
        self._cuts = {
            program: filter_rules.cut(dump, program, flannel=flannel)
            for program, dump in found.items()
            if program.startswith(("iptables", "ip6tables"))
        }
        self._tables = filter_rules.kube_proxy_tables(found.get("nft", ""))
        self.kept = [kept for cut in self._cuts.values() for kept in cut.kept]
        self._look_at_servers(found)
        changes = []
        for program, cut in self._cuts.items():
            changes += [f"rule {rule} in table {table} ({program})" for table, rule in cut.jumps]
            for table in dict.fromkeys(table for table, _ in cut.chains):
                changes.append(_chains([name for one, name in cut.chains if one == table], table, program))
        changes += [f"nftables table {table}" for table in self._tables]
        changes += [f"virtual server {server}" for server in self._servers]
        changes += [f"address set {name}" for name in self._sets]
        changes += [f"link {name}" for name in self._links]
        return [Change(Action.DELETE, change, self.host_name) for change in changes]

    def _look_at_servers(self, found: dict[str, str]) -> None:
        """Their marks, which are the link's addresses and the sets, go with the last of them."""
        sets = virtual_servers.parse_sets(found.get("sets", ""))
        rows = [line.split() for line in found.get("addresses", "").splitlines()]
        addresses = [row[3].partition("/")[0] for row in rows if len(row) > 3]
        all_servers = virtual_servers.virtual_servers(found.get("servers", ""))
        ours, others = virtual_servers.kube_proxys(all_servers, addresses, sets)
        link = found.get("link", "").strip()
        is_dummy = " dummy " in f"{link} "
        self._servers, self._sets, self._links = [], [], []
        self.kept += [
            Kept(f"virtual server {server}", f"it is neither on {KUBE_IPVS} nor a NodePort's")
            for server in others
        ]
        if ours and not found.get("ipvsadm", "").strip():
            names = ", ".join(map(str, ours[:3])) + (f" and {len(ours) - 3} more" if len(ours) > 3 else "")
            why = "without ipvsadm they cannot be removed, nor can the sets and the link that mark them"
            self.kept.append(
                Kept(f"kube-proxy's virtual servers {names}", why, "install ipvsadm, then reset again")
            )
            return
        self._servers = ours
        self._sets = [name for name in sets if virtual_servers.is_kube_set(name)]
        if is_dummy:
            self._links = [KUBE_IPVS]
        elif link:
            self.kept.append(Kept(f"link {KUBE_IPVS}", "it is no dummy link, as kube-proxy's is"))

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Rules before the sets that they name; what marks virtual servers as Kubernetes' after these."""
        host = self._node.host
        self.warnings = []
        for program, cut in self._cuts.items():
            if cut.restore:
                command = [f"{program}-restore", *_LOCK, "--noflush"]
                done = await host.run(command, stdin=cut.restore.encode(), check=False)
                if not done.ok:
                    self.warnings.append(f"rules stay: {command[0]}: {done.err or done.text}")
        if not (self._servers or self._sets or self._tables or self._links):
            return
        words = [word for server in self._servers for word in server.option.split()]
        tables = [word for table in self._tables for word in table.split()]
        said = await host.shell(
            _REMOVE, *words, "--", *tables, "--", *self._sets, "--", *self._links, check=False
        )
        self.warnings += [f"not removed: {line}" for line in said.err.splitlines()]


def _chains(names: Sequence[str], table: str, program: str) -> str:
    """A table's chains in one line, for a Service more has two chains more."""
    plain = [name for name in names if not filter_rules.is_services(name)]
    of_services = len(names) - len(plain)
    said = ", ".join([*plain, *([f"{of_services} of Services"] if of_services else [])])
    return f"chain{'' if len(names) == 1 else 's'} {said} in table {table} ({program})"
