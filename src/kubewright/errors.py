"""The errors that users see, and the exit code of each (docs/exit-codes.md)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """What the process returns: one number for each kind of trouble, so that scripts can tell them apart."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    CONFIG_INVALID = 10
    CONFIG_UNKNOWN_FIELD = 11
    CONFIG_DUPLICATE_HOST = 12
    CONFIG_OVERLAPPING_SUBNETS = 13
    VERSION_UNAVAILABLE = 14
    HOST_UNREACHABLE = 20
    HOST_AUTH_REFUSED = 21
    HOST_KEY_MISMATCH = 22
    HOST_NO_PRIVILEGE = 23
    HOST_DISK_FULL = 24
    HOST_UNSUPPORTED_OS = 25
    HOST_IN_OTHER_CLUSTER = 26
    HOST_NOT_FIT = 27
    TIMED_OUT = 30
    CHECK_FAILED = 31
    API_ERROR = 32
    COMPONENT_FAILED = 33
    BUSY = 34
    DOCTOR_WARNED = 35
    DOCTOR_FOUND = 36
    INTERRUPTED = 130


class KubewrightError(Exception):
    """An error that is shown to the user: what is wrong, where, and what mends it.

    `message` names the field, file or host; `hint` is the mend; `evidence` are lines seen on the way (the last
    lines of a unit's journal, what a server answered). None of them may hold a secret.
    """

    exit_code: ExitCode = ExitCode.FAILURE

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        host: str = "",
        evidence: Sequence[str] = (),
        exit_code: ExitCode | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.host = host
        self.evidence = tuple(evidence)
        if exit_code is not None:
            self.exit_code = exit_code


class ConfigError(KubewrightError):
    """A configuration file or flag is wrong; nothing has been changed."""

    exit_code = ExitCode.CONFIG_INVALID


class HostError(KubewrightError):
    """A host cannot be reached or used."""

    exit_code = ExitCode.HOST_UNREACHABLE


class CommandError(HostError):
    """A command on a host ended with a code other than 0."""

    exit_code = ExitCode.FAILURE


class WaitTimeoutError(KubewrightError):
    """A condition did not come true before its deadline; `evidence` says what was last seen."""

    exit_code = ExitCode.TIMED_OUT


class ComponentError(KubewrightError):
    """A component could not be found, built, downloaded or verified."""

    exit_code = ExitCode.COMPONENT_FAILED


class ApiError(KubewrightError):
    """The Kubernetes API refused a request or cannot be reached. `status` is the HTTP code, 0 for none."""

    exit_code = ExitCode.API_ERROR

    def __init__(self, message: str, *, status: int = 0, reason: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.reason = reason

    @property
    def passes(self) -> bool:
        """Whether the same request may well succeed a moment later: no answer, too many requests, a server's
        own trouble (it starts, or etcd elects a leader)."""
        return self.status in (0, 429) or self.status >= 500


def leaves(error: BaseException) -> list[BaseException]:
    """The single errors inside nested exception groups, in order: a TaskGroup raises groups of groups."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]
