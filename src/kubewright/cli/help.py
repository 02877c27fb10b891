"""`kubewright help COMMAND…`: what `kubewright COMMAND… --help` prints."""

from __future__ import annotations

import click


@click.command("help")
@click.argument("command", nargs=-1)
@click.pass_context
def help_command(ctx: click.Context, command: tuple[str, ...]) -> None:
    """Print the help of a command, such as `kubewright help token create`."""
    inner = ctx.find_root()
    found: click.Command = inner.command
    for word in command:
        child = found.get_command(inner, word) if isinstance(found, click.Group) else None
        if child is None:
            raise click.UsageError(f"there is no command {' '.join(command)!r}", ctx=ctx)
        inner = click.Context(child, info_name=child.name, parent=inner)
        found = child
    click.echo(found.get_help(inner))
