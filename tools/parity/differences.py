"""How files and objects differ from kubeadm's, and why; a comparison on machines refuses any other one."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """A difference that is meant.

    `pattern` is a regular expression that matches the whole path of a differing value: the file or object, a
    space, and the place inside it. `where` and `what` say it to a reader, `why` gives the reason.
    """

    where: str
    what: str
    why: str
    pattern: str

    def covers(self, path: str) -> bool:
        """Whether a differing place is this difference's."""
        return re.fullmatch(self.pattern, path) is not None


DIFFERENCES: tuple[Difference, ...] = ()
