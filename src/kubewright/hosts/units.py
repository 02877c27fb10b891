"""What a host's systemd says of a unit: evidence for errors."""

from __future__ import annotations

from kubewright.hosts.host import Host
from kubewright.model.go_stacks import STACKS, TAIL

# Properties by their names: without them systemctl prints values in an order of its own.
_SCRIPT = """
systemctl show -p LoadState -p ActiveState -p SubState -p Result "$1"
echo @@
journalctl -u "$1" -n "$4" --no-pager -o cat | grep -vE -e "$3" | tail -n "$2"
"""


async def unit_lines(host: Host, unit: str, lines: int, *, of_failure: bool = False) -> list[str]:
    """A unit's state, in the words of `systemctl status`, and its last lines in the journal.

    With `of_failure` the lines are left out where the unit was stopped, or never started: they are older.
    """
    done = await host.shell(_SCRIPT, unit, str(lines), STACKS, str(TAIL), check=False, timeout=15)
    shown, _, journal = done.stdout.decode(errors="replace").partition("@@\n")
    state = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    stopped = state.get("ActiveState") == "inactive" and state.get("Result") == "success"
    kept = [] if of_failure and stopped else journal.splitlines()
    return [f"{unit}: {_words(state)}", *(line[:300] for line in kept if line.strip())]


def _words(state: dict[str, str]) -> str:
    active, sub, result = (state.get(name, "") for name in ("ActiveState", "SubState", "Result"))
    if state.get("LoadState") == "not-found":
        return "there is no such unit"
    if not active:
        return "systemd does not say its state"
    said = active if sub in ("", active) else f"{active} ({sub})"
    return said if result in ("", "success") else f"{said} (Result: {result})"
