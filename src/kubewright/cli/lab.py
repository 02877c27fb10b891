"""`kubewright lab …`: clusters of machines on this computer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from kubewright.cli import lab_faults
from kubewright.cli.common import program, run
from kubewright.cli.output import output_option, print_document

if TYPE_CHECKING:
    from kubewright.events import Events
    from kubewright.lab.lab import Lab

DEFAULT = "default"
ADMIN_CONF = "/etc/kubernetes/admin.conf"

_OPTIONAL_NAME = click.argument("name", default=DEFAULT)


@click.group()
def lab() -> None:
    """Make and remove clusters of machines on this computer.

    A machine is a systemd-nspawn container with a systemd, network, sshd and disk of its own. A lab is a few of
    them, and the cluster on them is made over SSH, as on any other hosts.
    """


@lab.command(
    short_help="Make a lab and its cluster, or mend the one that is there.",
    epilog="""\b
Examples:
  kubewright lab up
  kubewright lab up --name big --workers 9
  kubewright lab up --name ha --control-planes 3
  kubewright lab up --name try --machines-only && kubewright lab ssh try cp1""",
)
@click.option("--name", default=DEFAULT, show_default=True, metavar="NAME", help="The lab's name.")
@click.option(
    "--control-planes",
    type=click.IntRange(min=1),
    metavar="C",
    help="How many control planes; default: as many as the lab has, 1 for a new one. A lab that begins with "
    "several gets an endpoint of type local.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    metavar="W",
    help="How many workers.",
)
@click.option("--machines-only", is_flag=True, help="Make the machines and cluster.yaml, and no cluster.")
@click.option(
    "--merge/--no-merge", default=True, show_default=True,
    help="Add the cluster as a context to the kubeconfig that kubectl reads.",
)  # fmt: skip
@output_option("text", "json")
def up(
    name: str, control_planes: int | None, workers: int, machines_only: bool, merge: bool, output: str
) -> None:
    """Make a lab, or mend the one that is there: boot its machines and apply its cluster.yaml.

    What runs is left as it is, and a run that was killed is finished by the next. Machines beyond the numbers
    given are removed with their disks. With -o json the run is a stream of events, one JSON object a line.
    """
    from kubewright.lab.lab import up as workflow

    outcome: list[tuple[Any, Any]] = []

    async def all_of_it(events: Events) -> Lab:
        async def cluster(lab: Lab) -> None:
            from kubewright.lab.plan import is_machine_name
            from kubewright.model.config.load import load_cluster
            from kubewright.workflows.apply import apply

            spec = load_cluster(lab.places.cluster_yaml)
            names = {path.name for path in lab.places.machines.iterdir()}
            done = await apply(
                spec, events, kubeconfig_out=lab.places.kubeconfig, merge_kubeconfig=merge,
                is_gone=lambda name: is_machine_name(name) and name not in names,
            )  # fmt: skip
            outcome.append((spec, done))

        async with events.workflow("lab up", f"lab {name}") as activity:
            made = await workflow(
                name, control_planes=control_planes, workers=workers, events=events,
                then=None if machines_only else cluster,
            )  # fmt: skip
            count = len(made.machines)
            said = f"lab {name}: {count} machine{'s' if count != 1 else ''}"
            for _, done in outcome:
                changes = len(done.changes)
                said += f", {changes} change{'s' if changes != 1 else ''}" if changes else ", nothing to do"
            activity.summary(said)
        return made

    made = run(all_of_it, output=output)
    if output != "text":
        return
    if machines_only:
        for machine in made.machines:
            click.echo(f"{machine.name}  {machine.plan.address}")
        click.echo(f"next: {program()} lab ssh {name} {made.machines[0].name}")
        click.echo(f"      {program()} apply -f {made.places.cluster_yaml}")
        return
    from kubewright.cli.summary import print_summary

    # The shortest way that names this lab: status and check take the lab `default` where nothing says another.
    known = name == DEFAULT and not os.environ.get("KUBECONFIG")
    print_summary(
        *outcome[0], which="" if known else f" -f {made.places.cluster_yaml}",
        kubectl=f"lab exec {name} {made.machines[0].name} -- kubectl --kubeconfig {ADMIN_CONF}",
    )  # fmt: skip


@lab.command(
    short_help="Remove a lab and leave this computer as it was.",
    epilog="""\b
Examples:
  kubewright lab down
  kubewright lab down big
  kubewright lab down --all""",
)
@click.argument("name", required=False)
@click.option(
    "--all", "everything", is_flag=True, help="Remove all labs, and what killed runs left of others."
)
@output_option("text", "json")
def down(name: str | None, everything: bool, output: str) -> None:
    """Remove a lab: its machines, their disks, its network, and its context in your kubeconfig.

    This computer is left as it was before the lab. NAME is `default` where none is given.
    """
    from kubewright.lab.lab import down as workflow
    from kubewright.lab.lab import lab_names

    if name and everything:
        raise click.UsageError("give a NAME or --all, not both")
    names = lab_names() if everything else [name or DEFAULT]

    async def all_of_them(events: Events) -> list[str]:
        title = "remove all labs" if everything else f"remove lab {names[0]}"
        async with events.workflow("lab down", title) as activity:
            gone = [each for each in names if await workflow(each, events=events)]
            activity.summary(f"removed: {', '.join(gone)}" if gone else "nothing to remove")
        return gone

    removed = run(all_of_them, output=output)
    if output == "text" and not removed:
        click.echo("there are no labs" if everything else f"there is no lab {names[0]!r}: nothing to remove")


@lab.command("list", short_help="Show the labs of this computer and their machines.")
@output_option("text", "json", "yaml")
def list_(output: str) -> None:
    """Show the labs of this computer and which of their machines run, are frozen or cut off the network."""
    import asyncio

    from kubewright.cli.table import table
    from kubewright.errors import KubewrightError
    from kubewright.lab.faults import State, states
    from kubewright.lab.lab import lab_names, open_lab

    rows: list[dict[str, Any]] = []
    _require_root()
    for name in lab_names():
        try:
            found = open_lab(name)
        except KubewrightError:
            rows.append({"name": name, "subnet": "", "machines": [], "clusterYaml": "", "kubeconfig": ""})
            continue
        kubeconfig = found.places.kubeconfig
        seen = asyncio.run(states(found))
        machines = [
            {"name": machine.name, "address": str(machine.plan.address), "pid": machine.pid(),
             "state": str(seen[machine.name])}
            for machine in found.machines
        ]  # fmt: skip
        rows.append(
            {"name": name, "subnet": str(found.plan.subnet), "machines": machines,
             "clusterYaml": str(found.places.cluster_yaml),
             "kubeconfig": str(kubeconfig) if kubeconfig.exists() else ""}
        )  # fmt: skip
    if output != "text":
        print_document({"labs": rows}, output)
        return
    lines = [
        (row["name"], row["subnet"] or "(remains of a killed run: lab down removes them)",
         " ".join(
             machine["name"] + ("" if machine["state"] == State.RUNNING else f" ({machine['state']})")
             for machine in row["machines"]
         ),
         row["kubeconfig"])
        for row in rows
    ]  # fmt: skip
    click.echo(
        "\n".join(table(("NAME", "SUBNET", "MACHINES", "KUBECONFIG"), lines))
        if lines
        else "there are no labs"
    )


@lab.command(
    short_help="Run a command as root in a machine.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="""\b
Examples:
  kubewright lab exec default w1 -- journalctl -u kubelet -f
  tar c manifests | kubewright lab exec default cp1 -- tar x -C /root""",
)
@click.argument("name")
@click.argument("machine")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec(name: str, machine: str, command: tuple[str, ...]) -> None:
    """Run COMMAND as root in a machine, also where its network or sshd is broken.

    Standard input, output and the terminal are passed on, and the command's exit code is this one's.
    """
    from kubewright.errors import KubewrightError
    from kubewright.lab import cgroups
    from kubewright.lab.machine import enter

    pid = _running(name, machine)
    if cgroups.is_frozen(name, machine):
        raise KubewrightError(
            f"machine {machine} of lab {name!r} is frozen, and so would be what is run in it", host=machine,
            hint=f"kubewright lab thaw {name} {machine} lets it go on",
        )  # fmt: skip
    try:
        cgroups.join(os.getpid(), pid)
    except OSError as error:
        raise KubewrightError(f"{machine} cannot be entered: {error}", host=machine) from error
    arguments = enter(pid, terminal=os.environ.get("TERM", ""))
    _become([*arguments, *(command[1:] if command[0] == "--" else command)])


@lab.command(
    short_help="Enter a machine over SSH.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="""\b
Examples:
  kubewright lab ssh default cp1
  kubewright lab ssh default w1 -- systemctl status kubelet""",
)
@click.argument("name")
@click.argument("machine")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(name: str, machine: str, command: tuple[str, ...]) -> None:
    """Enter a machine with ssh, or run COMMAND in it: by the key, and against the host key, of its lab."""
    from kubewright.lab.lab import open_lab

    found = open_lab(name)
    target = found.machine(machine)
    _become(
        ["ssh", "-i", str(found.places.key), "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes",
         "-o", f"UserKnownHostsFile={found.places.known_hosts}", "-o", "LogLevel=ERROR",
         f"root@{target.plan.address}", *(command[1:] if command[:1] == ("--",) else command)]
    )  # fmt: skip


@lab.command(
    epilog="""\b
Example:
  export KUBECONFIG=$(kubewright lab kubeconfig)"""
)
@_OPTIONAL_NAME
def kubeconfig(name: str) -> None:
    """Print the path of a lab's kubeconfig file. NAME is `default` where none is given."""
    click.echo(_kubeconfig_file(name))


for _fault in lab_faults.COMMANDS:
    lab.add_command(_fault)


def _require_root() -> None:
    from kubewright.errors import ExitCode, KubewrightError

    if os.geteuid() != 0:
        raise KubewrightError(
            "labs are root's, and this process is not", hint="run it with sudo",
            exit_code=ExitCode.HOST_NO_PRIVILEGE,
        )  # fmt: skip


def _kubeconfig_file(name: str) -> Path:
    from kubewright.errors import KubewrightError
    from kubewright.lab.lab import open_lab

    path = open_lab(name).places.kubeconfig
    if not path.exists():
        raise KubewrightError(
            f"lab {name!r} has no kubeconfig: its cluster has not been made yet",
            hint=f"kubewright lab up --name {name}",
        )
    return path


def _running(name: str, machine: str) -> int:
    from kubewright.errors import ExitCode, KubewrightError
    from kubewright.lab.lab import open_lab

    pid = open_lab(name).machine(machine).pid()
    if pid is None:
        raise KubewrightError(
            f"machine {machine} of lab {name!r} does not run", host=machine,
            hint=f"kubewright lab start {name} {machine} starts it", exit_code=ExitCode.HOST_UNREACHABLE,
        )  # fmt: skip
    return pid


def _become(argv: list[str]) -> NoReturn:
    """Be this program from now on: its terminal, signals and exit code are ours without any passing on."""
    os.execvp(argv[0], argv)  # noqa: S606 - a shell is what must not be between
