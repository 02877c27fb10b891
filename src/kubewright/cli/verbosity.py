"""kubeadm's `-v LEVEL`, which its users write anywhere on the command line."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import click

STACK_LEVEL = 5
"""From here on kubeadm shows an error's stack trace, and so do we, for an error that should not happen."""

_WITH_LEVEL = re.compile(r"(-v=?|--v=)\d+")


def to_the_front(words: Sequence[str]) -> list[str]:
    """The command line with every `-v LEVEL` before the command's name, where click looks for it.

    What stands behind `--` is not ours, nor are a machine's commands behind `lab`, which kubeadm does not have. A
    `-v` without a number is left where it is.
    """
    end = words.index("--") if "--" in words else len(words)
    commands = [index for index, word in enumerate(words[:end]) if not word.startswith("-")]
    if commands and words[commands[0]] == "lab":
        end = commands[0]
    front: list[str] = []
    rest: list[str] = []
    index = 0
    while index < end:
        word = words[index]
        index += 1
        if _WITH_LEVEL.fullmatch(word):
            front.append(word)
        elif word in ("-v", "--v") and index < end and words[index].isdecimal():
            front += [word, words[index]]
            index += 1
        else:
            rest.append(word)
    return [*front, *rest, *words[end:]]


def _level(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if value and not value.removeprefix("=").isdecimal():
        raise click.BadParameter(f"{value!r} is no number")
    if value and int(value.removeprefix("=")) >= STACK_LEVEL:
        os.environ["KUBEWRIGHT_DEBUG"] = "1"
    return value


def verbosity_option() -> click.Option:
    """`-v LEVEL`, for the top of the command line."""
    return click.Option(
        ["-v", "--v"], metavar="LEVEL", default="", expose_value=False, callback=_level,
        help="As kubeadm's: from 5 on, an error that should not happen shows where it came from.",
    )  # fmt: skip
