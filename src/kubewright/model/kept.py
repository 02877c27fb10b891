"""What a reset leaves on a host although a reader may take it for the cluster's, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kept:
    """One thing that stays."""

    what: str
    """A path, a link, a rule or a container, as a command on the host would name it."""
    why: str
    mend: str = ""
    """What takes it away, if the reader knows that nobody needs it."""

    def as_dict(self) -> dict[str, str]:
        """As `-o json` prints it."""
        row = {"what": self.what, "why": self.why}
        return row | ({"mend": self.mend} if self.mend else {})

    def __str__(self) -> str:
        return f"{self.what}: {self.why}" + (f" ({self.mend})" if self.mend else "")
