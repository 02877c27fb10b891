"""A click group that knows its commands' names and one-line helps, and imports a command when it is called."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem


class LazyGroup(click.Group):
    """`lazy` maps a command's name to where it stands (`package.module:attribute`) and its one-line help.
    `aliases` maps second names, which help does not show, to the first; `hidden` are names of the table that it
    does not show either.

    Help and shell completion read the table alone, so that `--help` costs the same however much the commands
    import.
    """

    def __init__(
        self,
        *args: Any,
        lazy: Mapping[str, tuple[str, str]],
        aliases: Mapping[str, str] | None = None,
        hidden: Collection[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy)
        self.aliases = dict(aliases or {})
        self.hidden_names = frozenset(hidden)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in alphabetical order."""
        return sorted({*super().list_commands(ctx), *self.lazy} - self.hidden_names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported if it is one of the table."""
        cmd_name = self.aliases.get(cmd_name, cmd_name)
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self.lazy[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{attribute} is no click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names; a misspelt one is answered with the likeliest."""
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            from difflib import get_close_matches

            likely = get_close_matches(name, self.list_commands(ctx), 1, 0.6)
            ctx.fail(f"there is no command {name!r}" + (f"; did you mean {likely[0]!r}?" if likely else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in `--help`."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._one_line(ctx, name)) for name in self._shown(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands and options that begin with `incomplete`."""
        items = [
            CompletionItem(name, help=self._one_line(ctx, name))
            for name in self._shown(ctx)
            if name.startswith(incomplete)
        ]
        return items + click.Command.shell_complete(self, ctx, incomplete)

    def _shown(self, ctx: click.Context) -> list[str]:
        """The names of the commands that are not hidden; those of the table never are."""
        here = {name for name, command in self.commands.items() if command.hidden}
        return [name for name in self.list_commands(ctx) if name not in here]

    def _one_line(self, ctx: click.Context, name: str) -> str:
        if name in self.lazy:
            return self.lazy[name][1]
        command = super().get_command(ctx, name)
        return command.get_short_help_str(limit=100) if command else ""
