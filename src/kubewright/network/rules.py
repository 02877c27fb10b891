"""Our iptables chains as text: what they must hold, whether they do, and what makes them so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

MULTICAST = "224.0.0.0/4"


@dataclass(frozen=True, slots=True)
class OwnChain:
    """A chain of ours and the one jump to it from a built-in chain. Rules are as `iptables -S` prints them."""

    table: str
    parent: str
    name: str
    rules: tuple[str, ...]

    @property
    def jump(self) -> str:
        """The jump's rule, without its leading `-A PARENT`."""
        return f'-m comment --comment "kubewright pod network" -j {self.name}'


def own_chains(pod_subnet: IPv4Network) -> tuple[OwnChain, ...]:
    """Masquerading for what pods send out of the cluster, and a way through a FORWARD chain that drops.

    Addresses of other nodes count as outside: a pod's address means something only where the routes are.
    """
    pods = str(pod_subnet)
    out, through = "KUBEWRIGHT-POSTROUTING", "KUBEWRIGHT-FORWARD"
    return (
        OwnChain(
            "nat", "POSTROUTING", out,
            (
                f"-A {out} ! -s {pods} -j RETURN",
                f"-A {out} -d {pods} -j RETURN",
                f"-A {out} -d {MULTICAST} -j RETURN",
                f"-A {out} -j MASQUERADE --random-fully",
            ),
        ),
        OwnChain(
            "filter", "FORWARD", through,
            (f"-A {through} -s {pods} -j ACCEPT", f"-A {through} -d {pods} -j ACCEPT"),
        ),
    )  # fmt: skip


def restore_text(chain: OwnChain, own: Sequence[str], parent: Sequence[str]) -> str:
    """What `iptables-restore --noflush` must read so that the chain and its jump are right; empty if they are.

    `own` and `parent` are the lines of `iptables -S` for the chain and its parent, `own` empty where there is no
    such chain. Declaring a chain empties it; rules of others in the parent are never named.
    """
    lines: list[str] = []
    if list(own) != [f"-N {chain.name}", *chain.rules]:
        lines += [f":{chain.name} - [0:0]", *chain.rules]
    lines += _jump_lines(chain, [line for line in parent if line.startswith("-A ")])
    return "\n".join([f"*{chain.table}", *lines, "COMMIT", ""]) if lines else ""


def removal_text(chain: OwnChain, own: Sequence[str], parent: Sequence[str]) -> str:
    """What `iptables-restore --noflush` must read so that chain and jump are gone; empty if they are."""
    lines = [f"-D{line[2:]}" for line in parent if line.startswith("-A ") and _jumps(line, chain)]
    if own:
        lines += [f"-F {chain.name}", f"-X {chain.name}"]
    return "\n".join([f"*{chain.table}", *lines, "COMMIT", ""]) if lines else ""


def _jumps(line: str, chain: OwnChain) -> bool:
    return line.split()[-2:] == ["-j", chain.name]


def _jump_lines(chain: OwnChain, rules: Sequence[str]) -> list[str]:
    """One jump, at the chain's end so that rules of the host's owner come first, but before a rule that ends all.

    A chain that closes with a bare REJECT or DROP would never reach a jump behind it.
    """
    wanted = f"-A {chain.parent} {chain.jump}"
    jumps = [n for n, rule in enumerate(rules) if _jumps(rule, chain)]
    stop = next((n for n, rule in enumerate(rules) if _ends_all(rule)), len(rules))
    if len(jumps) == 1 and rules[jumps[0]] == wanted and jumps[0] < stop:
        return []
    lines = [f"-D{rules[n][2:]}" for n in jumps]
    others = [rule for rule in rules if not _jumps(rule, chain)]
    stop = next((n for n, rule in enumerate(others) if _ends_all(rule)), len(others))
    # Positions count from 1, in the chain as it is after the lines above.
    lines.append(wanted if stop == len(others) else f"-I {chain.parent} {stop + 1} {chain.jump}")
    return lines


def _ends_all(rule: str) -> bool:
    """`-A CHAIN -j REJECT …` or `-j DROP`, with nothing that it must match."""
    words = rule.split()
    return words[2:3] == ["-j"] and words[3:4] in (["REJECT"], ["DROP"])
