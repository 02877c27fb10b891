"""`kubewright reset`: undo on a host what `init` or `join` did."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from kubewright.cli.node import NodeOptions, node_options
from kubewright.cli.output import output_option, print_document
from kubewright.cli.phases import PhasedCommand, skip_phases_option
from kubewright.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from kubewright.events import Events
    from kubewright.model.config.kubeadm_nodes import ResetConfiguration
    from kubewright.workflows.reset import ResetResult

_DEFAULT_CERT_DIR = "/etc/kubernetes/pki"


@click.command(
    cls=PhasedCommand,
    steps="kubewright.workflows.reset_tree:STEPS",
    epilog="""\b
Examples:
  kubewright reset
  kubewright reset --dry-run
  kubewright reset --host root@192.168.7.21 --force""",
)
@node_options("config", "dry-run", "ignore-preflight-errors", "kubeconfig")
@click.option(
    "--cert-dir", default=_DEFAULT_CERT_DIR, show_default=True, metavar="DIR",
    help="The directory of the cluster's certificates and keys; it is emptied.",
)  # fmt: skip
@click.option(
    "--cri-socket", default="", metavar="PATH", help="The container runtime's socket; default: the kubelet's."
)
@click.option(
    "--cleanup-tmp-dir", is_flag=True, help="Empty /etc/kubernetes/tmp, too, where kubeadm keeps backups."
)
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--keep-node", is_flag=True, help="Leave the Node object in the cluster, as kubeadm does.")
@skip_phases_option
@output_option("text", "json", "yaml")
def reset(
    node: NodeOptions,
    cert_dir: str,
    cri_socket: str,
    cleanup_tmp_dir: bool,
    force: bool,
    keep_node: bool,
    skip_phases: tuple[str, ...],
    output: str,
    only: str,
) -> None:
    """Take this host out of its cluster: undo what init or join did to it.

    It shows what it will remove and what it leaves alone, and asks. It stops the kubelet, removes the Kubernetes
    pods of the host and no other containers, the packet filter rules of Kubernetes and no others, and empties the
    directories of kubeadm and the kubelet. A control plane's member of etcd leaves first, and only where the
    others do without it. The Node object goes where the host's own admin.conf reaches the cluster.
    """
    from kubewright.cli.common import run
    from kubewright.cli.node import opened_node
    from kubewright.workflows.reset import reset as workflow

    settings = _settings(node, cert_dir, cri_socket, cleanup_tmp_dir, force)
    dry = node.dry_run or settings.dry_run

    def once(dry: bool, stream: bool) -> ResetResult:
        async def work(events: Events) -> ResetResult:
            async with opened_node(node, is_node=True) as opened:
                return await workflow(
                    opened,
                    settings,
                    events,
                    kubeconfig_path=node.kubeconfig,
                    skip=skip_phases,
                    only=only,
                    keep_node=keep_node,
                    dry=dry,
                )

        return run(work, output=output, stream=stream)

    if output == "yaml" and not dry:
        raise ConfigError(
            "-o yaml prints a plan, which is what --dry-run makes", exit_code=ExitCode.USAGE,
            hint="add --dry-run, or take -o json, which prints what is done, line by line",
        )  # fmt: skip
    asks = not (settings.force or dry) and only in ("", "preflight")
    if asks and not sys.stdin.isatty():
        raise ConfigError(
            "reset removes a node's files, and nobody can be asked here: standard input is no terminal",
            hint="look first with --dry-run, then say --force", exit_code=ExitCode.USAGE,
        )  # fmt: skip
    if dry or asks:
        planned = once(dry=True, stream=False)
        if output != "text":
            print_document(_document(planned), output)
        else:
            _print_plan(planned, where=node.host or "this host")
        if dry:
            return
        if not click.confirm("Reset it?", default=False, err=True):
            raise click.exceptions.Exit(ExitCode.FAILURE)
    done = once(dry=False, stream=True)
    if output == "text" and only in ("", "cleanup-node"):
        _print_left(done)
    elif output == "text":
        _print_kept(done, "It has left alone, and why:")


def _settings(
    node: NodeOptions, cert_dir: str, cri_socket: str, cleanup_tmp_dir: bool, force: bool
) -> ResetConfiguration:
    """The file of --config, or the options; as with kubeadm, those that the file can say are not combined."""
    from kubewright.model.config.kubeadm_nodes import ResetConfiguration
    from kubewright.model.node_preflight import ignored_checks

    ignored_checks(node.ignore_preflight_errors)
    if node.config is None:
        return ResetConfiguration(
            certificates_dir=cert_dir,
            cri_socket=cri_socket,
            cleanup_tmp_dir=cleanup_tmp_dir,
            force=force,
            ignore_preflight_errors=list(node.ignore_preflight_errors),
        )
    from kubewright.cli.config_file import read_config

    ctx = click.get_current_context()
    beside = [
        f"--{name.replace('_', '-')}"
        for name in ("cert_dir", "cri_socket", "cleanup_tmp_dir")
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    if beside:
        raise ConfigError(
            f"--config and {', '.join(beside)} cannot be combined", exit_code=ExitCode.USAGE,
            hint="write it into the file's ResetConfiguration",
        )  # fmt: skip
    settings = read_config(node.config).reset
    if settings is None:
        raise ConfigError(
            f"{node.config}: it has no ResetConfiguration", hint="put one in, or leave --config out"
        )
    ignored = [*settings.ignore_preflight_errors, *node.ignore_preflight_errors]
    return settings.model_copy(update={"force": settings.force or force, "ignore_preflight_errors": ignored})


def _document(planned: ResetResult) -> dict[str, Any]:
    """The plan as plain data."""
    return {
        "changes": [change.as_dict() for change in planned.changes],
        "kept": [kept.as_dict() for kept in planned.kept],
    }


def _print_plan(planned: ResetResult, where: str) -> None:
    if not planned.changes:
        click.echo(f"{where}: nothing to remove")
        _print_kept(planned, "What it leaves alone, and why:")
        return
    name = f" (node {planned.node_name})" if planned.node_name else ""
    click.echo(f"On {where}{name}:")
    for change in planned.changes:
        click.echo(f"  {change.action:<6} {change.target}")
    _print_kept(planned, "What it leaves alone, and why:")


def _print_kept(result: ResetResult, title: str) -> None:
    if result.kept:
        click.echo(title)
        for kept in result.kept:
            click.echo(f"  {kept}")


def _print_left(done: ResetResult) -> None:
    click.echo("The host is reset." if done.changes else "There was nothing to reset.")
    _print_kept(done, "It has left alone, and why:")
