"""A command line as data: commands with their aliases, arguments and flags, read off kubeadm or off Kubewright."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import click
import yaml

from kubewright.cli.lazy import LazyGroup

HIDDEN = ("config view",)
"""Commands that kubeadm 1.20.2 has and does not list."""

HIDDEN_FLAGS = {
    "": (
        "alsologtostderr", "log-backtrace-at=", "log-dir=", "logtostderr", "stderrthreshold=", "vmodule=",
    ),
    "init phase certs": ("csr-dir=", "csr-only"),
    "upgrade apply": ("image-pull-timeout=",),
}  # fmt: skip
"""Flags that it has and does not list, with those below which command they are; `=` marks one with a value."""

_VALUES = {"image-pull-timeout": "1s", "log-backtrace-at": "a.go:1", "stderrthreshold": "2", "vmodule": "a=1"}
"""A value that is accepted, where not every text is."""

_HELP = {"help"}
"""Flags that every command has by its library."""


@dataclass(frozen=True)
class Flag:
    """A flag of one command: its short form (a letter, or nothing), and whether a value follows it."""

    name: str
    short: str = ""
    takes_value: bool = True

    def __str__(self) -> str:
        return f"--{self.name}"


@dataclass(frozen=True)
class Command:
    """A command by its path below the program's name ("" is the program itself)."""

    path: str
    aliases: tuple[str, ...]
    arguments: bool
    """Whether it takes arguments that are no flags."""
    flags: Mapping[str, Flag]


Tree = dict[str, Command]


# -- a file that holds a tree ---------------------------------------------------------------------------------


def dump(tree: Tree) -> str:
    """A tree as YAML: for each path its flags as `name`, `s|name` with a short form, and `name=` with a value."""
    document = {
        command.path or "-": {
            key: value
            for key, value in (
                ("aliases", list(command.aliases)),
                ("arguments", command.arguments),
                ("flags", [_flag_text(flag) for _, flag in sorted(command.flags.items())]),
            )
            if value
        }
        for _, command in sorted(tree.items())
    }
    return yaml.safe_dump(document, sort_keys=False, width=105)


def load(text: str) -> Tree:
    """The tree that `dump` wrote."""
    tree: Tree = {}
    for name, found in yaml.safe_load(text).items():
        path = "" if name == "-" else name
        flags = [_flag(text) for text in found.get("flags", ())]
        tree[path] = Command(
            path, tuple(found.get("aliases", ())), found.get("arguments", False), {f.name: f for f in flags}
        )
    return tree


def _flag_text(flag: Flag) -> str:
    return (f"{flag.short}|" if flag.short else "") + flag.name + ("=" if flag.takes_value else "")


def _flag(text: str) -> Flag:
    short, _, name = text.rpartition("|")
    return Flag(name.removesuffix("="), short, name.endswith("="))


# -- kubeadm --------------------------------------------------------------------------------------------------


def kubeadm_tree(program: Path) -> Tree:
    """Walk the help of a kubeadm: every command that it lists, and those of `HIDDEN`.

    A command's flags are its own and those that it inherits, without the program's own, which all have. Raises
    `ValueError` where a hidden command is not there. Hidden flags are tried.
    """
    top = _help(program, "")
    everywhere = set(_section_flags(top, "Flags"))
    tree = {"": Command("", (), False, _section_flags(top, "Flags"))}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        level = [*_children("", top), *HIDDEN]
        while level:
            texts = list(pool.map(lambda path: _help(program, path), level))
            for path, text in zip(level, texts, strict=True):
                tree[path] = _command(path, text, everywhere)
            level = [
                child for path, text in zip(level, texts, strict=True) for child in _children(path, text)
            ]
        maybe = [
            (path, _flag(text))
            for top_path, flags in HIDDEN_FLAGS.items()
            for path in tree
            if path == top_path or (top_path and path.startswith(f"{top_path} "))
            for text in flags
        ]
        has = list(pool.map(lambda item: _accepts(program, *item), maybe))
    for (path, flag), there in zip(maybe, has, strict=True):
        if there:
            tree[path] = replace(tree[path], flags={**tree[path].flags, flag.name: flag})
    return tree


def _accepts(program: Path, path: str, flag: Flag) -> bool:
    """Whether a command knows a flag: one that it does not know is an error even before `--help`."""
    word = f"--{flag.name}={_VALUES.get(flag.name, 'x')}" if flag.takes_value else f"--{flag.name}"
    done = subprocess.run(
        [program, *path.split(), word, "--help"], capture_output=True, text=True, timeout=30, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode and "unknown flag" not in done.stderr:
        raise ValueError(f"kubeadm {path} {word}: {done.stderr}")
    return not done.returncode


def _help(program: Path, path: str) -> str:
    words = ["help"] if path == "help" else path.split()
    done = subprocess.run(
        [program, *words, "--help"], capture_output=True, text=True, timeout=30, check=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout


def _command(path: str, text: str, everywhere: set[str]) -> Command:
    usage = re.search(r"^Usage:\n  \S+ ?(.*)$", text, re.M)
    words = usage.group(1).removesuffix(" [flags]") if usage else ""
    if not words.startswith(path):
        raise ValueError(f"kubeadm has no command {path!r}: its help is about {words!r}")
    aliases = re.search(r"^Aliases:\n  \S+?(?:, (.*))?$", text, re.M)
    flags = _section_flags(text, "Flags") | _section_flags(text, "Global Flags")
    return Command(
        path,
        tuple(aliases.group(1).split(", ")) if aliases and aliases.group(1) else (),
        bool(re.sub(r"\[(flags|command)\]", "", words.removeprefix(path)).strip()),
        {name: flag for name, flag in flags.items() if name not in everywhere},
    )


def _section(text: str, title: str) -> Iterator[str]:
    found = re.search(rf"^{title}:\n((?: .*\n)+)", text, re.M)
    yield from found.group(1).splitlines() if found else ()


def _section_flags(text: str, title: str) -> dict[str, Flag]:
    """Flags of a section of a help text; a value's type stands after one space, the explanation after more."""
    flags = {}
    for line in _section(text, title):
        found = re.match(r"\s+(?:-(\w), )?--(\S+)( \S+)?(?:\s{2,}|$)", line)
        if found and found.group(2) not in _HELP:
            flags[found.group(2)] = Flag(found.group(2), found.group(1) or "", bool(found.group(3)))
    return flags


def _children(path: str, text: str) -> list[str]:
    return [f"{path} {line.split()[0]}".strip() for line in _section(text, "Available Commands")]


# -- Kubewright -----------------------------------------------------------------------------------------------


def our_tree(root: click.Command, *, hidden: bool = True) -> Tree:
    """Walk a click command; `hidden` also gives the commands that it does not show."""
    tree: Tree = {}
    context = click.Context(root, info_name="kubewright")
    for path, command in _walk("", root, context):
        if not hidden and not _listed(root, path):
            continue
        tree[path] = Command(path, (), _takes_arguments(command), dict(_options(command)))
    return tree


def _listed(root: click.Command, path: str) -> bool:
    """Whether every command on the way to a path is in the list of the one above it."""
    command, context = root, click.Context(root, info_name="kubewright")
    for word in path.split():
        if not isinstance(command, click.Group) or word not in command.list_commands(context):
            return False
        child = command.get_command(context, word)
        if child is None or child.hidden:
            return False
        command, context = child, click.Context(child, info_name=word, parent=context)
    return True


def _walk(path: str, command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name in dict.fromkeys([*command.list_commands(context), *_unlisted(command)]):
            child = command.get_command(context, name)
            if child is not None:
                inner = click.Context(child, info_name=name, parent=context)
                yield from _walk(f"{path} {name}".strip(), child, inner)


def _unlisted(group: click.Group) -> list[str]:
    """Commands that work and are not listed."""
    return [*group.commands, *(group.lazy if isinstance(group, LazyGroup) else ())]


def _takes_arguments(command: click.Command) -> bool:
    return any(isinstance(param, click.Argument) for param in command.params)


def _options(command: click.Command) -> Iterator[tuple[str, Flag]]:
    """All names of all options: two names of one option are two flags."""
    for param in command.params:
        if not isinstance(param, click.Option):
            continue
        short = "".join(name[1:] for name in param.opts if re.fullmatch(r"-\w", name))
        # One that may stand alone takes a value as Go's boolean flags do: --NAME=false.
        takes_value = not (param.is_flag or param.count or isinstance(param.flag_value, bool))
        for name in (*param.opts, *param.secondary_opts):
            if name.startswith("--"):
                yield name[2:], Flag(name[2:], short[:1], takes_value)
