"""Lines of containers' logs, and which of them tell why a program has ended."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

TELLING = r"error|fatal|panic|flag provided but not defined|unknown (shorthand )?flag|( F |:.)F[0-9]{4} "
"""What `grep -iE` finds in the first lines of a log, for `reasons` to choose from; a line of klog's stands behind
what the runtime has put there."""
_LAST_WORD = re.compile(
    r"flag provided but not defined|unknown (?:shorthand )?flag|\bpanic:|\bfatal\b|^F\d{4} |^Error: ",
    re.IGNORECASE,
)
"""What a program says when it ends because of that."""


def reasons(lines: Iterable[str], *, short: bool) -> list[str]:
    """Of telling lines the first by which a program has ended.

    Other errors of one that has ended soon after its start (`short`) count as well; one that has run for long has
    told of many that it has survived.
    """
    found = [line for line in lines if line.strip()]
    last = [line for line in found if _LAST_WORD.search(line)]
    return (last or (found if short else []))[:2]


def logs_of(found: Mapping[str, Sequence[str]], kind: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """The sections of a look whose names begin with `kind`, by Pod and container."""
    named = ((name.removeprefix(kind), lines) for name, lines in found.items() if name.startswith(kind))
    return {_log_name(folder): tuple(map(log_text, lines)) for folder, lines in named}


def _log_name(folder: str) -> tuple[str, str]:
    """Pod and container of `/var/log/pods/NAMESPACE_POD_UID/CONTAINER/`."""
    *_, pod, container = folder.strip("/").split("/")
    return pod.split("_")[1] if pod.count("_") > 1 else pod, container


def log_text(line: str) -> str:
    """A line of a container's log without the time, stream and tag that the runtime has put before it (CRI's
    format), or out of docker's JSON."""
    match = re.match(r"\d{4}-\d\d-\d\dT\S+ (?:stdout|stderr) [FP] (.*)$", line)
    if match:
        return match[1]
    if line.startswith('{"log":"'):
        match = re.match(r'\{"log":"((?:[^"\\]|\\.)*)"', line)
        return match[1].replace('\\"', '"').replace("\\n", "").replace("\\t", " ") if match else line
    return line
