"""`kubewright join`: make a host a node of a cluster that exists."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from kubewright.cli.node import ListOption, NodeOptions, node_options
from kubewright.cli.output import output_option
from kubewright.cli.phases import PhasedCommand, skip_phases_option

if TYPE_CHECKING:
    from kubewright.events import Events
    from kubewright.model.config.kubeadm_nodes import JoinConfiguration
    from kubewright.workflows.join_run import Outcome


@click.command(
    cls=PhasedCommand,
    steps="kubewright.workflows.join_tree:JOIN",
    epilog="""\b
Examples:
  kubewright join 192.168.7.10:6443 --token abcdef.0123456789abcdef \\
      --discovery-token-ca-cert-hash sha256:...
  kubewright join lb.example.com:6443 --token ... --discovery-token-ca-cert-hash sha256:... \\
      --control-plane --certificate-key ...
  kubewright join --discovery-file https://example.com/cluster.conf --tls-bootstrap-token ...
  kubewright join --config join.yaml --host root@192.168.7.12
  kubewright join phase kubelet-start --help

`kubewright token create --print-join-command` on a control plane prints the command for a cluster.""",
)
@click.argument("api_server_endpoint", metavar="[API-SERVER-ENDPOINT]", required=False, default="")
@click.option(
    "--token", default="", metavar="TOKEN", help="For both, --discovery-token and --tls-bootstrap-token."
)
@click.option(
    "--discovery-token",
    default="",
    metavar="TOKEN",
    help="The token that the cluster has signed itself with.",
)
@click.option(
    "--discovery-token-ca-cert-hash", cls=ListOption, metavar="HASH",
    help="sha256:HEX of the public key of the cluster's CA; once or more.",
)  # fmt: skip
@click.option(
    "--discovery-token-unsafe-skip-ca-verification", is_flag=True,
    help="Do without such a hash: anybody who knows the token could pass for the cluster.",
)  # fmt: skip
@click.option(
    "--discovery-file", default="", metavar="FILE|URL",
    help="Know the cluster by a kubeconfig, on the host or at an https URL.",
)  # fmt: skip
@click.option(
    "--tls-bootstrap-token", default="", metavar="TOKEN",
    help="The token with which the kubelet gets its certificate.",
)  # fmt: skip
@click.option("--control-plane", is_flag=True, help="Make the host a further control plane.")
@click.option(
    "--certificate-key", default="", metavar="KEY",
    help="With --control-plane: the key of the certificates that init has uploaded.",
)  # fmt: skip
@click.option(
    "--apiserver-advertise-address", default="", metavar="ADDRESS",
    help="With --control-plane: the address of its API server; default: that of the default route.",
)  # fmt: skip
@click.option(
    "--apiserver-bind-port", type=int, default=6443, show_default=True, metavar="PORT",
    help="With --control-plane: the port of its API server.",
)  # fmt: skip
@click.option(
    "--node-name", default="", metavar="NAME", help="The Node's name; default: the host's, in lower case."
)
@click.option(
    "--cri-socket", default="", metavar="SOCKET",
    help="The container runtime's socket; default: the one that is found.",
)  # fmt: skip
@click.option(
    "--patches", default="", metavar="DIRECTORY",
    help="A directory of files named target[suffix][+patchtype].extension, laid over what is written.",
)  # fmt: skip
@click.option("--experimental-patches", default="", metavar="DIRECTORY", hidden=True, help="As --patches.")
@skip_phases_option
@node_options("config", "dry-run", "ignore-preflight-errors")
@output_option("text", "json")
def join(node: NodeOptions, only: str, skip_phases: tuple[str, ...], output: str, **options: Any) -> None:
    """Make a host a node of a cluster that exists.

    The cluster is known by its address with a token and the hash of its CA, or by a kubeconfig file. It may have
    been made by kubeadm. With --control-plane the host becomes a further control plane: the cluster needs a
    controlPlaneEndpoint, and the certificates that control planes share are downloaded (--certificate-key) or
    have been copied to the host.

    It does what kubeadm join does: the container runtime, the kubelet and its unit must be there. With -o json the
    run is a stream of events, and its last line the result.
    """
    from kubewright.cli.common import run
    from kubewright.workflows.join_settings import configuration

    said = _said(options)
    wanted = configuration(said, _documents(node))
    dry = node.dry_run or wanted.dry_run

    async def work(events: Events) -> Outcome:
        return await _join(events, node, wanted, said, only, skip_phases, dry)

    outcome = run(work, output=output, stream=not dry)
    if dry:
        from kubewright.cli.changes import print_changes

        print_changes(outcome.changes, output, title=f"join {outcome.node}")
    elif output == "json":
        import json

        click.echo(json.dumps(_result(outcome)))
    elif not only:
        click.echo(_message(outcome))


def _said(options: dict[str, Any]) -> dict[str, Any]:
    """The options that the user gave, by their names without dashes."""
    ctx = click.get_current_context()
    default = (click.core.ParameterSource.DEFAULT, click.core.ParameterSource.DEFAULT_MAP, None)
    return {
        name.replace("_", "-"): list(value) if isinstance(value, tuple) else value
        for name, value in options.items()
        if ctx.get_parameter_source(name) not in default and value not in ("", (), False)
    }


async def _join(
    events: Events, node: NodeOptions, wanted: JoinConfiguration, said: dict[str, Any], only: str,
    skip_phases: tuple[str, ...], dry: bool,
) -> Outcome:  # fmt: skip
    from kubewright.cli.node import opened_node
    from kubewright.model.node_preflight import ignored_checks
    from kubewright.workflows.join import join as workflow
    from kubewright.workflows.join_settings import ignored_options, join_settings
    from kubewright.workflows.join_tree import discovers

    if not node.config and (useless := ignored_options(said)):
        events.warn(f"{', '.join(useless)}: only for a control plane, and --control-plane is not given")
    registration = wanted.node_registration
    ignore = ignored_checks(node.ignore_preflight_errors, registration.ignore_preflight_errors)
    async with opened_node(
        node, name=registration.name, control_plane=wanted.control_plane is not None
    ) as opened:
        settings = await join_settings(
            opened, wanted, said, discovers=discovers(only), proxy_env={} if node.host else _proxies()
        )
        return await workflow(
            opened,
            settings,
            events,
            ignore=ignore,
            skip=skip_phases or wanted.skip_phases,
            only=only,
            dry=dry,
        )


def _proxies() -> dict[str, str]:
    """The variables that the control plane's Pods get, too, as with kubeadm: those of this process."""
    return {name: value for name, value in os.environ.items() if name.lower() in _PROXY and value}


_PROXY = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")


def _documents(node: NodeOptions) -> Any:
    """What the file of --config holds; None without one."""
    if node.config is None:
        return None
    from kubewright.errors import ConfigError
    from kubewright.model.config.documents import read_documents

    try:
        with click.open_file(str(node.config), encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--config: {node.config}: {getattr(error, 'strerror', '') or 'not UTF-8'}"
        ) from None
    return read_documents(text, source="standard input" if str(node.config) == "-" else str(node.config))


def _result(outcome: Outcome) -> dict[str, Any]:
    """The result as the last line of `-o json`."""
    return {
        "kind": "result", "node": outcome.node, "controlPlane": outcome.control_plane,
        "endpoint": outcome.endpoint, "phases": outcome.steps, "changes": len(outcome.changes),
    }  # fmt: skip


def _message(outcome: Outcome) -> str:
    if not outcome.control_plane:
        return (
            f"{outcome.node} is a node of the cluster at {outcome.endpoint}.\n"
            "`kubectl get nodes` on a control plane shows it; it is Ready when the pod network runs on it."
        )
    etcd = ", with a member of its etcd" if outcome.etcd_member else ""
    return (
        f"{outcome.node} is a control plane of the cluster at {outcome.endpoint}{etcd}.\n"
        "To work with the cluster as this host's root: export KUBECONFIG=/etc/kubernetes/admin.conf"
    )
