"""`kubewright version`."""

from __future__ import annotations

import platform

import click

from kubewright import __version__
from kubewright.cli.output import output_option, print_document


@click.command()
@output_option("text", "json", "yaml")
def version(output: str) -> None:
    """Print the version of Kubewright, and with -o also that of Python and the computer's architecture."""
    if output == "text":
        click.echo(f"kubewright {__version__}")
        return
    facts = {
        "version": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system().lower()}/{platform.machine()}",
    }
    print_document(facts, output)
