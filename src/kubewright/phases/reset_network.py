"""What a pod network, ours or flannel's, left on a host that leaves its cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from kubewright.events import Activity
from kubewright.model import cni_leftovers as model
from kubewright.model.cni_leftovers import CniCut, CniSeen
from kubewright.model.kept import Kept
from kubewright.model.own_network import OWN_CNI_FILE, OWN_ROUTES
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.sections import SECTION, sections

_AT_ONCE = 500
"""So many files are removed by one command: a node may have thousands of reservations (P37)."""

# Starts no program for a reservation, of which there may be thousands (P37).
# $1 is the directory of CNI configurations, $2 flannel's, $3 that of CNI's state, $4 the protocol of our routes.
_LOOK = (
    SECTION
    + r"""
exec 2>/dev/null
section links; ip -d -j link show
section routes; ip route show proto "$4"
section run; ls -d "$2"
section files; for file in "$1"/*.conf "$1"/*.conflist "$1"/*.json; do [ ! -f "$file" ] || echo "$file"; done
section reservations
end=$(printf '\r')
for file in "$3"/networks/*/*; do
  [ -f "$file" ] || continue
  holder=; IFS= read -r holder <"$file"
  printf '%s\t%s\n' "$file" "${holder%"$end"}"
done
section results
for file in "$3"/results/* "$3"/cache/results/*; do [ ! -f "$file" ] || echo "$file"; done
section flannel; for file in "$3"/flannel/*; do [ ! -f "$file" ] || echo "$file"; done
true
"""
)
_LINKS = (
    r"""for link; do ! ip link show dev "$link" >/dev/null 2>&1 || ip link delete dev "$link" || true; done"""
)
_RM = ("rm", "-f", "--")
_DIRECTORIES = (
    r"""for directory; do [ ! -d "$directory" ] || rmdir --ignore-fail-on-non-empty -- "$directory"; done"""
)


class PodNetworkGone(Phase):
    """Its links, CNI configuration, CNI state and routes are gone (P38, P41).

    Runs after the Pods have been removed, for which the runtime needs all of these.
    """

    name: ClassVar[str] = "cleanup-node"
    title: ClassVar[str] = "remove what the pod network left"

    def __init__(self, node: Node) -> None:
        self._node = node
        self.host_name = node.name
        self._cut = CniCut((), (), (), False, ())
        self._routes: list[str] = []
        self.kept: list[Kept] = []
        """What stays, found by `look`."""
        self.warnings: list[str] = []
        """What could not be done; the rest was."""

    async def look(self) -> list[Change]:
        """What of it is there."""
        host = self._node.host
        places = (model.CNI_DIR, model.FLANNEL_RUN, model.STATE_DIR, OWN_ROUTES)
        said = await host.shell(_LOOK, *places, check=False)
        found = sections(said.stdout.decode(errors="replace"))
        files, results = (found.get(name, "").splitlines() for name in ("files", "results"))
        content = await host.read_files([*files, *results])
        pairs = (line.partition("\t") for line in found.get("reservations", "").splitlines())
        self._cut = model.cni_cut(
            CniSeen(
                [model.parse_cni_file(path, content[path]) for path in files if path in content],
                model.parse_links(found.get("links", "")),
                bool(found.get("run", "").strip()),
                {path: holder for path, _, holder in pairs if path},
                {path: content[path] for path in results if path in content},
                found.get("flannel", "").splitlines(),
            )
        )
        self.kept = list(self._cut.kept)
        self._routes = [line.strip() for line in found.get("routes", "").splitlines() if line.strip()]
        changes = [f"link {name}" for name in self._cut.links]
        changes += [f"route {route}" for route in self._routes]
        if self._cut.state:
            changes.append(f"the pod network's state in {model.STATE_DIR}")
        changes += [model.FLANNEL_RUN] if self._cut.flannel_run else []
        changes += self._cut.files
        return [Change(Action.DELETE, change, self.host_name) for change in changes]

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Configuration last, for it shows whose the rest is: a run that is killed is finished by the next."""
        host, gone = self._node.host, self._cut
        self.warnings = []
        if gone.links:
            said = await host.shell(_LINKS, *gone.links, check=False)
            self.warnings += [f"not removed: {line}" for line in said.err.splitlines()]
        if self._routes:
            await host.run(["ip", "route", "flush", "proto", OWN_ROUTES], check=False)
        for start in range(0, len(gone.state), _AT_ONCE):
            await host.run([*_RM, *gone.state[start : start + _AT_ONCE]])
        emptied = model.emptied(gone.state)
        if gone.flannel_run:
            await host.run([*_RM, f"{model.FLANNEL_RUN}/subnet.env"])
            emptied.append(model.FLANNEL_RUN)
        if emptied:
            await host.shell(_DIRECTORIES, *emptied, check=False)
        if gone.files:
            beside = OWN_CNI_FILE.replace("/10-", "/.10-") + ".new"
            await host.run([*_RM, beside, *gone.files])
