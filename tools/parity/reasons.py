"""Why a command or flag of kubeadm 1.20.2 is missing: one row each, and no row that is not needed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """Why something is missing.

    `command` is a path below the program's name, "" the program itself; one that ends in ` *` stands for all
    commands below it. `flag` is a flag's name without dashes, "" the command itself, or `-x` a short form.
    """

    command: str
    flag: str
    why: str

    def covers(self, command: str, flag: str) -> bool:
        """Whether this is the reason for that flag (or, with "", that command)."""
        if self.flag != flag:
            return False
        if self.command.endswith("*"):
            return command.startswith(self.command[:-1])
        return command == self.command

    def __str__(self) -> str:
        return f"{self.command or 'kubeadm'}{f' {self.flag}' if self.flag else ''}"


_KLOG = (
    "belongs to the log library of kubeadm; Kubewright keeps no log. It says what it does on standard error, as "
    "JSON lines with `-o json`, and `-v 5` shows where an unexpected error came from"
)

_NO_CLUSTER = (
    "kubeadm's commands inherit it from `config`; these ask no cluster, and it is taken before their names and "
    "after those of the commands below them"
)
_TEMPLATES = "belongs to Go's templates as a form of output; `-o json` with `jq` takes their place"

REASONS = (
    *(
        Reason("", flag, _KLOG)
        for flag in (
            "add-dir-header", "alsologtostderr", "log-backtrace-at", "log-dir", "log-file", "log-file-max-size",
            "logtostderr", "one-output", "skip-headers", "skip-log-headers", "stderrthreshold", "vmodule",
        )
    ),
    Reason(
        "", "rootfs",
        "experimental in kubeadm, which calls chroot with it; `--host` acts on another system, and `chroot` is a "
        "command of its own",
    ),
    Reason("token list", "allow-missing-template-keys", _TEMPLATES),
    Reason("config images", "kubeconfig", _NO_CLUSTER),
    Reason("config print", "kubeconfig", _NO_CLUSTER),
    Reason("config images list", "allow-missing-template-keys", _TEMPLATES),
)  # fmt: skip
