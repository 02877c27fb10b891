"""`kubewright completion`: the script by which a shell completes our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash:  kubewright completion bash > /etc/bash_completion.d/kubewright
    zsh:   kubewright completion zsh > "${fpath[1]}/_kubewright"
    fish:  kubewright completion fish > ~/.config/fish/completions/kubewright.fish
    """
    script = get_completion_class(shell)
    if script is None:
        raise click.BadParameter(f"no completion for {shell}")
    click.echo(script(ctx.find_root().command, {}, "kubewright", "_KUBEWRIGHT_COMPLETE").source())
