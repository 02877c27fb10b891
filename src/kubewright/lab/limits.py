"""The one setting of this computer that many machines need raised, and how it comes back to what it was.

inotify instances are counted for each user of the whole computer, and root of every machine is the same user: a
machine with a node on it takes 13 to 15 of them (counted with Kubernetes 1.20), and 128 are allowed by default.
"""

from __future__ import annotations

import json
from pathlib import Path

from kubewright.lab.places import RUN, remove_if_empty
from kubewright.lab.proc import read

A_MACHINE = 20
SPARE = 64
"""For the other programs of this computer."""

_SETTING = Path("/proc/sys/fs/inotify/max_user_instances")
_FORMER = RUN / ".inotify.json"


def wanted(current: int, machines: int) -> int:
    """How many instances must be allowed for so many machines, all labs' together; never fewer than now."""
    return max(current, machines * A_MACHINE + SPARE)


def raise_for(machines: int, setting: Path = _SETTING, former: Path = _FORMER) -> bool:
    """Raise the setting where it is too low, its former value written down first; whether it was raised."""
    current = int(read(setting) or 0)
    target = wanted(current, machines)
    if not current or target == current:
        return False
    before = _read(former).get("before", current)
    former.write_text(json.dumps({"before": before, "set": target}))
    setting.write_text(str(target))
    return True


def restore(setting: Path = _SETTING, former: Path = _FORMER) -> bool:
    """Set what was before the first raise, unless somebody else has set something since; whether it was set."""
    values = _read(former)
    mine = bool(values) and read(setting).strip() == str(values.get("set"))
    if mine:
        setting.write_text(str(values["before"]))
    former.unlink(missing_ok=True)
    remove_if_empty(former.parent, former.parent.parent)
    return mine


def _read(former: Path) -> dict[str, int]:
    try:
        found = json.loads(read(former) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
