"""`kubewright version`."""

from __future__ import annotations

import platform

import click

from kubewright import __version__
from kubewright.cli.output import output_option, print_document


@click.command()
@output_option("text", "short", "json", "yaml")
def version(output: str) -> None:
    """Print the version of Kubewright.

    -o short prints it alone. json and yaml add that of Python and the computer's architecture, under clientVersion
    in the form of kubeadm's.
    """
    if output == "text":
        click.echo(f"kubewright {__version__}")
        return
    if output == "short":
        click.echo(f"v{__version__}")
        return
    where = f"{platform.system().lower()}/{platform.machine()}"
    major, minor = __version__.split(".")[:2]
    facts = {
        "clientVersion": {"major": major, "minor": minor, "gitVersion": f"v{__version__}", "platform": where},
        "version": __version__,
        "python": platform.python_version(),
        "platform": where,
    }
    print_document(facts, output)
