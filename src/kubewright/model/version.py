"""A version of Kubernetes, read and compared as semver.org says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering

from kubewright.errors import ConfigError

_SEMANTIC = re.compile(
    r"v?(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})"
    r"(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?",
    re.ASCII,
)


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A version of Kubernetes; compares by semver.org's precedence, in which build metadata has no part.

    >>> Version.parse("1.20.2") < Version.parse("v1.21.0-rc.1") < Version.parse("v1.21.0")
    True
    """

    major: int
    minor: int
    patch: int
    prerelease: tuple[str, ...] = ()
    build: str = ""

    @classmethod
    def parse(cls, text: str, *, field: str = "kubernetesVersion") -> Version:
        """Parse `v1.20.2`, with or without its v. Raises `ConfigError`, which names `field`."""
        match = _SEMANTIC.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"{field}: {text!r} is not a version",
                hint="write all three numbers, such as v1.20.2; labels such as stable or latest are not resolved",
            )
        major, minor, patch, prerelease, build = match.groups()
        return cls(
            int(major),
            int(minor),
            int(patch),
            tuple(prerelease.split(".")) if prerelease else (),
            build or "",
        )

    @property
    def series(self) -> str:
        """The minor version: `1.20`."""
        return f"{self.major}.{self.minor}"

    @property
    def image_tag(self) -> str:
        """The version as an image's tag, in which a plus sign cannot stand."""
        return str(self).replace("+", "_")

    def __str__(self) -> str:
        text = f"v{self.major}.{self.minor}.{self.patch}"
        text += "-" + ".".join(self.prerelease) if self.prerelease else ""
        return text + (f"+{self.build}" if self.build else "")

    @property
    def _precedence(self) -> tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]:
        words = tuple(
            (not word.isdecimal(), int(word) if word.isdecimal() else 0, word) for word in self.prerelease
        )
        return self.major, self.minor, self.patch, not self.prerelease, words

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._precedence == other._precedence

    def __lt__(self, other: Version) -> bool:
        return self._precedence < other._precedence

    def __hash__(self) -> int:
        return hash(self._precedence)
