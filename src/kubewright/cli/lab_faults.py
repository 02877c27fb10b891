"""`kubewright lab kill`, `freeze`, `partition` and their mends: what happens to computers, done to machines."""

from __future__ import annotations

import click

from kubewright.cli.common import run
from kubewright.cli.output import output_option


def _fault(name: str, title: str, text: str) -> click.Command:
    """The command that does the function of this name in `lab.faults` to machines of a lab."""

    @click.command(
        name,
        help=text,
        short_help=title,
        epilog=f"\b\nExamples:\n  kubewright lab {name} default cp1\n  kubewright lab {name} default cp1 w2",
    )
    @click.argument("lab", metavar="NAME")
    @click.argument("machines", metavar="MACHINE...", nargs=-1, required=True)
    @output_option("text", "json")
    def command(lab: str, machines: tuple[str, ...], output: str) -> None:
        from kubewright.lab import faults

        act = getattr(faults, name)
        run(lambda events: act(lab, machines, events), output=output)

    return command


COMMANDS = (
    _fault(
        "kill",
        "Cut the power of machines.",
        "Cut the power of machines: everything in them is killed at once, and nobody is told. `lab start` boots "
        "them again with their disks.",
    ),
    _fault(
        "start",
        "Boot machines that do not run.",
        "Boot machines that do not run, with their disks as they are. One that is frozen or cut off the network "
        "goes on.",
    ),
    _fault(
        "freeze",
        "Stop all processes of machines where they are.",
        "Stop all processes of machines where they are: connections to them are accepted, and nothing answers. "
        "`lab thaw` lets them go on.",
    ),
    _fault("thaw", "Let frozen machines go on.", "Let machines go on that `lab freeze` has stopped."),
    _fault(
        "partition",
        "Cut machines off the network.",
        "Cut machines off the network: what they send and what is sent to them is lost, and all in them runs on. "
        "`lab heal` mends it, `lab exec` works meanwhile.",
    ),
    _fault(
        "heal",
        "Give machines their network again.",
        "Give machines their network again that `lab partition` has cut off.",
    ),
)
"""In the order in which they belong together; help sorts them by name."""
