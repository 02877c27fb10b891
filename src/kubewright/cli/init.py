"""`kubewright init` and its phases."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from kubewright.cli.node import ListOption, NodeOptions, node_options
from kubewright.cli.output import output_option
from kubewright.cli.phases import PhasedCommand, PhaseOption, skip_phases_option

if TYPE_CHECKING:
    from kubewright.events import Events
    from kubewright.hosts import Host
    from kubewright.workflows.init import InitOutcome

_PROXY = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")
_OTHERS = frozenset(
    {
        "config",
        "dry-run",
        "host",
        "ignore-preflight-errors",
        "merge-kubeconfig",
        "output",
        "skip-phases",
        "ssh-jump",
        "ssh-keys",
        "ssh-known-hosts",
    }
)
"""The options that are no part of the configuration."""


class _PhaseList(PhaseOption, ListOption):
    """A list that only phases take."""


@click.command(
    cls=PhasedCommand,
    steps="kubewright.workflows.init_tree:INIT",
    epilog="""\b
Examples:
  kubewright init --pod-network-cidr 10.244.0.0/16
  kubewright init --host root@192.168.7.11 --control-plane-endpoint api.example.com --upload-certs
  kubewright init --config kubeadm.yaml --dry-run
  kubewright init phase certs all --config kubeadm.yaml""",
)
@click.option(
    "--apiserver-advertise-address",
    metavar="ADDRESS",
    help="The address that the API server announces; default: that of the default route.",
)
@click.option(
    "--apiserver-bind-port",
    type=int,
    default=6443,
    show_default=True,
    metavar="PORT",
    help="The API server's port.",
)
@click.option(
    "--apiserver-cert-extra-sans",
    cls=ListOption,
    metavar="NAMES",
    help="Further names and addresses for the API server's certificate, separated by commas.",
)
@click.option(
    "--cert-dir",
    default="/etc/kubernetes/pki",
    show_default=True,
    metavar="DIRECTORY",
    help="Where certificates and keys are kept.",
)
@click.option(
    "--certificate-key",
    metavar="KEY",
    help="With --upload-certs: the key that encrypts; default: a new one, which is printed.",
)
@click.option(
    "--control-plane-endpoint",
    metavar="HOST[:PORT]",
    help="The address that all clients use: a load balancer's or a DNS name. Further control planes need one.",
)
@click.option(
    "--cri-socket", metavar="SOCKET", help="The container runtime's socket; default: the one there is."
)
@click.option(
    "--feature-gates",
    cls=ListOption,
    metavar="GATES",
    help="kubeadm's feature gates: PublicKeysECDSA=true,…",
)
@click.option(
    "--image-repository", metavar="REPOSITORY", help="Where images are; default: the version's own."
)
@click.option(
    "--kubernetes-version",
    metavar="VERSION",
    help="The cluster's version; default: that of the host's kubelet.",
)
@click.option("--node-name", metavar="NAME", help="The Node's name; default: the host's name.")
@click.option("--patches", metavar="DIRECTORY", help="Patches of what is written: see docs/init.md.")
@click.option("--experimental-patches", metavar="DIRECTORY", hidden=True, help="The older name of --patches.")
@click.option(
    "--pod-network-cidr", metavar="CIDR", help="The pods' addresses; each node gets a part of them."
)
@click.option(
    "--service-cidr",
    default="10.96.0.0/12",
    show_default=True,
    metavar="CIDR",
    help="The Services' addresses.",
)
@click.option(
    "--service-dns-domain",
    default="cluster.local",
    show_default=True,
    metavar="DOMAIN",
    help="The domain of the cluster's names.",
)
@click.option("--skip-certificate-key-print", is_flag=True, help="Do not show the key of --upload-certs.")
@skip_phases_option
@click.option("--skip-token-print", is_flag=True, help="Do not show the bootstrap token.")
@click.option("--token", metavar="TOKEN", help="The bootstrap token to make; default: a random one.")
@click.option(
    "--token-ttl",
    default="24h0m0s",
    show_default=True,
    metavar="DURATION",
    help="How long it lives; 0 for ever.",
)
@click.option(
    "--upload-certs",
    is_flag=True,
    help="Keep what further control planes need in the cluster, encrypted, for two hours.",
)
@click.option(
    "--merge-kubeconfig",
    metavar="CONTEXT",
    help="Let kubectl on this computer find the cluster: add it as a context of this name (P24).",
)
@click.option(
    "--csr-only", cls=PhaseOption, is_flag=True, help="Write a key and a signing request, and no certificate."
)
@click.option(
    "--csr-dir",
    cls=PhaseOption,
    metavar="DIRECTORY",
    help="With --csr-only: where, on the host; default: the directory of certificates.",
)
@click.option("--kubeconfig", cls=PhaseOption, metavar="FILE", help="The kubeconfig to use, on the host.")
@click.option(
    "--kubeconfig-dir",
    cls=PhaseOption,
    default="/etc/kubernetes",
    show_default=True,
    metavar="DIRECTORY",
    help="Where kubeconfigs are written.",
)
@click.option(
    "--apiserver-extra-args", cls=_PhaseList, metavar="FLAGS", help="Flags for the API server: name=value,…"
)
@click.option(
    "--controller-manager-extra-args",
    cls=_PhaseList,
    metavar="FLAGS",
    help="Flags for the controller manager: name=value,…",
)
@click.option(
    "--scheduler-extra-args", cls=_PhaseList, metavar="FLAGS", help="Flags for the scheduler: name=value,…"
)
@node_options("config", "dry-run", "ignore-preflight-errors")
@output_option("text", "json")
def init(
    node: NodeOptions,
    only: str,
    skip_phases: tuple[str, ...],
    merge_kubeconfig: str | None,
    output: str,
    **_: Any,
) -> None:
    """Make a host the first control plane of a new cluster.

    It does what `kubeadm init` does, to the same files and objects: the host has a container runtime and a kubelet
    with its systemd unit by then, and the pod network is yours to install afterwards. Running it again finishes
    what was interrupted.

    Each phase can be run alone (`init phase …`) or left out (--skip-phases). With -o json the run is a stream of
    events, and its last line the result.
    """
    from kubewright.cli.cert_config import absolute_on
    from kubewright.cli.changes import print_changes
    from kubewright.cli.common import run
    from kubewright.cli.init_text import result, result_lines
    from kubewright.model.node_preflight import ignored_checks
    from kubewright.workflows.init_settings import configured, init_settings

    said, text, source = _said(), _read(node), str(node.config)
    said |= {name: absolute_on(said[name], node) for name in ("csr-dir", "kubeconfig-dir") if said.get(name)}
    written = configured(said, text, source)
    ignore = ignored_checks(node.ignore_preflight_errors, written.node_registration.ignore_preflight_errors)
    dry = node.dry_run or written.dry_run
    proxy = (
        {}
        if node.host
        else {key: value for key, value in os.environ.items() if key.lower() in _PROXY and value}
    )

    async def workflow(events: Events) -> tuple[str, InitOutcome]:
        from kubewright.cli.node import opened_node
        from kubewright.workflows.init import init as workflow_init

        async with opened_node(node, name=written.node_registration.name, control_plane=True) as target:
            settings = await init_settings(target, said, text, source, proxy_env=proxy)
            done = await workflow_init(
                target, settings, events, dry=dry, only=only, skip=skip_phases or settings.init.skip_phases,
                ignore=ignore,
            )  # fmt: skip
            if merge_kubeconfig and not dry:
                await _merge(target.host, merge_kubeconfig, events)
            return target.name, done

    host, outcome = run(workflow, output=output, stream=not dry)
    if dry:
        print_changes(outcome.changes, output, title=f"init on {host}")
        return
    hide_token, hide_key = "skip-token-print" in said, "skip-certificate-key-print" in said
    if output == "json":
        import json

        click.echo(json.dumps(result(outcome, hide_token=hide_token, hide_key=hide_key)))
    elif not only:
        click.echo("\n".join(result_lines(outcome, host, hide_token=hide_token, hide_key=hide_key)))
    elif outcome.certificate_key is not None and not hide_key:
        click.echo(outcome.certificate_key.reveal())


async def _merge(host: Host, context: str, events: Events) -> None:
    """Make the new cluster a context of the kubeconfig that kubectl reads on this computer."""
    from kubewright.cli.node import ADMIN_CONF
    from kubewright.phases.host_kubeconfig import read_kubeconfig
    from kubewright.phases.local_kubeconfig import LocalKubeconfig

    local = LocalKubeconfig(context, await read_kubeconfig(host, ADMIN_CONF), None, merge=True)
    await local.run(events)
    if local.trouble is not None:
        events.warn(f"{local.trouble.message}; {local.trouble.hint}")


def _said() -> dict[str, Any]:
    """The options that the user gave, by their names without dashes, lists of name=value as mappings."""
    ctx = click.get_current_context()
    said: dict[str, Any] = {}
    for param in ctx.command.params:
        name = (param.name or "").replace("_", "-")
        source = ctx.get_parameter_source(param.name or "")
        if name in _OTHERS or source is not click.core.ParameterSource.COMMANDLINE:
            continue
        value: Any = ctx.params.get(param.name or "")
        if name == "feature-gates":
            value = {key: _flag(name, key, text) for key, text in _pairs(name, value).items()}
        elif name.endswith("-extra-args"):
            value = _pairs(name, value)
        said[name] = list(value) if isinstance(value, tuple) else value
    return said


def _pairs(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--{option}: {text!r} is not name=value")
        pairs[name] = value
    return pairs


def _flag(option: str, name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise click.UsageError(f"--{option}: {name}={text}: true or false is expected")
    return text.lower() == "true"


def _read(node: NodeOptions) -> str | None:
    """The configuration file's text; None without --config."""
    if node.config is None:
        return None
    try:
        return sys.stdin.read() if str(node.config) == "-" else node.config.read_text()
    except (OSError, UnicodeDecodeError) as error:
        from kubewright.errors import ConfigError

        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"--config: {node.config}: {why}", hint="name a file that can be read") from None
