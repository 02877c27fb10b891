"""Commands that users can also run phase by phase: the `phase` subcommands, made from a tree of steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeVar

import click

from kubewright.cli.lazy import LazyGroup
from kubewright.cli.node import SHARED_FLAGS, ListOption
from kubewright.workflows.tree import Step, find, paths

F = TypeVar("F", bound=Callable[..., Any])


class PhaseOption(click.Option):
    """An option that phases take, those that list it, and the command itself does not."""


class PhasedCommand(click.Group):
    """A command that runs all of its phases; `phase NAME` below it runs one of them.

    `steps` says where the tree stands (`package.module:attribute`); it is imported when somebody asks for a phase.
    The callback gets the path of the one phase to run as `only`, empty for all. A phase's command takes those of
    the command's options that its step lists in `flags`, and those that all node commands share; the callback sees
    all others with their defaults.
    """

    def __init__(self, *args: Any, steps: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"invoke_without_command": True, "subcommand_metavar": ""})
        self._steps = steps

    @property
    def steps(self) -> Sequence[Step[Any]]:
        """The tree."""
        module, _, attribute = self._steps.partition(":")
        steps: Sequence[Step[Any]] = getattr(import_module(module), attribute)
        return steps

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own options."""
        return [param for param in super().get_params(ctx) if not isinstance(param, PhaseOption)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Options and arguments in any order, as for a plain command, unless the first word is `phase`.

        Options before that word are the phase's, as with kubeadm: `init --config FILE phase certs all` makes
        certificates, and no cluster.
        """
        before = _options_before(args, self.get_params(ctx))
        if args[before : before + 1] == ["phase"]:
            ctx.args = [*args[before:], *args[:before]]
            ctx.invoked_subcommand = "phase"
            return args
        # A group's own way with words that are left over is to take them for a subcommand.
        ctx.allow_extra_args = False
        ctx.allow_interspersed_args = True
        return click.Command.parse_args(self, ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the phase that was asked for, or the command itself."""
        if ctx.invoked_subcommand != "phase":
            of_phases = [param for param in self.params if isinstance(param, PhaseOption)]
            ctx.params |= {"only": "", **_defaults(ctx, of_phases)}
            return click.Command.invoke(self, ctx)
        phase = self.get_command(ctx, "phase")
        assert phase is not None
        inner = phase.make_context("phase", ctx.args[1:], parent=ctx)
        with inner:
            return inner.command.invoke(inner)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """`phase` alone."""
        return ["phase"]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """`phase` in `--help`, and the paths of all phases in their order."""
        super().format_commands(ctx, formatter)
        from textwrap import fill

        with formatter.section("Phases, as --skip-phases takes them"):
            indent = " " * formatter.current_indent
            for step in self.steps:
                shown = [path for path, one in paths([step]) if not one.hidden]
                if shown:
                    text = fill(
                        ", ".join(shown), formatter.width, initial_indent=indent,
                        subsequent_indent=indent * 2, break_on_hyphens=False, break_long_words=False,
                    )  # fmt: skip
                    formatter.write(f"{text}\n")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The group of phases."""
        if cmd_name != "phase":
            return None
        return _PhaseGroup(
            "phase",
            [_phase_command(self, step, step.name) for step in self.steps],
            aliases=_aliases(self.steps),
            help=f"Run one phase of `{self.name}` alone.",
        )


def _options_before(args: list[str], params: Sequence[click.Parameter]) -> int:
    """How many words stand before the first that is neither an option nor its value; 0 where they are wrong."""
    options = [param for param in params if isinstance(param, click.Option)]
    command = click.Command("", params=list(options), add_help_option=False)
    context = click.Context(command, allow_extra_args=True, allow_interspersed_args=False)
    try:
        _, rest, _ = command.make_parser(context).parse_args(list(args))
    except click.UsageError:
        return 0
    return len(args) - len(rest)


class _PhaseGroup(LazyGroup):
    """Phases in the order in which they run."""

    def __init__(
        self, name: str, commands: Iterable[click.Command], *, aliases: Mapping[str, str], help: str
    ) -> None:
        super().__init__(name, lazy={}, aliases=aliases, help=help, no_args_is_help=True)
        for command in commands:
            self.add_command(command)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names; those that are hidden only work."""
        return [name for name, command in self.commands.items() if not command.hidden]


def _phase_command(main: PhasedCommand, step: Step[Any], path: str) -> click.Command:
    if not step.steps:
        return _leaf(main, step.name, path, step)
    children = [_phase_command(main, child, f"{path}/{child.name}") for child in step.steps]
    if step.all_at_once:
        children.insert(0, _leaf(main, "all", path, step, "Run all of the phases below"))
    group = _PhaseGroup(step.name, children, aliases=_aliases(step.steps), help=f"{step.title}.")
    group.hidden = step.hidden
    return group


def _aliases(steps: Sequence[Step[Any]]) -> dict[str, str]:
    return {alias: step.name for step in steps for alias in step.aliases}


def _leaf(main: PhasedCommand, name: str, path: str, step: Step[Any], title: str = "") -> click.Command:
    flags = {f"--{flag}" for flag in step.flags} | SHARED_FLAGS
    taken = [param for param in main.params if flags.intersection(param.opts) or _is_argument(param, step)]
    others = [param for param in main.params if param not in taken and param.expose_value and param.name]

    @click.pass_context
    def callback(ctx: click.Context, /, **given: Any) -> Any:
        assert main.callback is not None
        return ctx.invoke(main.callback, **_defaults(ctx, others), **given, only=path)

    return click.Command(
        name, params=taken, callback=callback, help=f"{title or step.title}.", hidden=step.hidden
    )


def _defaults(ctx: click.Context, params: Iterable[click.Parameter]) -> dict[str, Any]:
    """What the callback sees of options that a command does not take: what it sees where nobody says them."""
    silent = click.Command("", params=list(params), add_help_option=False)
    return dict(silent.make_context("", [], parent=ctx).params)


def _is_argument(param: click.Parameter, step: Step[Any]) -> bool:
    """Whether a positional argument of the command is the phase's, too: a step lists it by its name."""
    return isinstance(param, click.Argument) and param.name in step.flags


def skip_phases_option(function: F) -> F:
    """Add `--skip-phases`, as the parameter `skip_phases`: a tuple of paths that all exist."""

    def known(ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
        if value and isinstance(ctx.command, PhasedCommand):
            for path in value:
                find(ctx.command.steps, path, field="--skip-phases")
        return value

    return click.option(
        "--skip-phases", cls=ListOption, metavar="PHASES", callback=known,
        help="Phases to leave out, with all that is below them; separated by commas.",
    )(function)  # fmt: skip
