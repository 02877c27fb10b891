"""`kubewright token`: the tokens by which nodes join a running cluster."""

from __future__ import annotations

import dataclasses
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kubewright.cli.node import ListOption, NodeOptions, node_options
from kubewright.cli.output import output_option, print_document
from kubewright.errors import ConfigError, KubewrightError
from kubewright.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from kubewright.clients.objects import ObjectClient
    from kubewright.hosts import Host
    from kubewright.model.tokens import BootstrapToken

_DEFAULT_TTL = "24h0m0s"


@click.group()
@click.option("--kubeconfig", default="", metavar="FILE", help="As with the commands below.")
@click.option("--dry-run", is_flag=True, help="As with the commands below.")
@click.pass_context
def token(ctx: click.Context, kubeconfig: str, dry_run: bool) -> None:
    """Manage the tokens by which nodes join a cluster.

    A bootstrap token is a Secret of type bootstrap.kubernetes.io/token in kube-system. Its first part is its
    public id; the second is secret: whoever knows it can join a node.
    """
    ctx.obj = {"kubeconfig": kubeconfig, "dry_run": dry_run}


@token.command(
    epilog="""\b
Examples:
  kubewright token create
  kubewright token create --ttl 2h --print-join-command
  kubewright token create --host root@192.168.7.11 --print-join-command"""
)
@click.argument("token_text", metavar="[TOKEN]", required=False)
@click.option(
    "--ttl",
    default=_DEFAULT_TTL,
    show_default=True,
    metavar="DURATION",
    help="How long it lives, such as 90s, 45m or 2h; 0 for ever.",
)
@click.option(
    "--usages",
    cls=ListOption,
    metavar="USAGES",
    help="What it is good for, with commas between: signing (of cluster-info), authentication (of a joining "
    "node); default: both.",
)
@click.option(
    "--groups",
    cls=ListOption,
    metavar="GROUPS",
    help="The groups that its bearer is in, system:bootstrappers:...; default: the one that may join.",
)
@click.option("--description", default="", metavar="TEXT", help="What it is for.")
@click.option("--print-join-command", is_flag=True, help="Print the whole command by which a node joins.")
@click.option(
    "--certificate-key",
    metavar="KEY",
    help="With --print-join-command: let the node join as a control plane, with the key that "
    "`init phase upload-certs --upload-certs` printed.",
)
@node_options("config", "kubeconfig", "dry-run")
@click.pass_context
def create(
    ctx: click.Context, node: NodeOptions, token_text: str | None, ttl: str, usages: tuple[str, ...],
    groups: tuple[str, ...], description: str, print_join_command: bool, certificate_key: str | None,
) -> None:  # fmt: skip
    """Make a token, and print it.

    Without TOKEN it is random. With --config, the bootstrapTokens of its InitConfiguration are made, and the first
    is printed.
    """
    from kubewright.cli.common import run
    from kubewright.model import token_text as texts
    from kubewright.model.tokens import token_secret
    from kubewright.workflows.tokens import create_tokens

    node = _with_outer(ctx, node)
    _check_mixed(ctx, node)
    if certificate_key is not None:
        if not print_join_command:
            raise click.UsageError("--certificate-key is for --print-join-command")
        _check_key(certificate_key)
    wanted = _wanted(node, token_text, ttl, usages, groups, description)

    async def work(_: object) -> Secret[str]:
        async with _opened(node) as (host, kube):
            answer = wanted[0].text
            if print_join_command:
                server, pins = await _endpoint(host, node)
                answer = texts.join_command(
                    "kubewright", server, answer, pins, control_plane=certificate_key is not None,
                    certificate_key=Secret(certificate_key) if certificate_key else None,
                )  # fmt: skip
            if not node.dry_run:
                await create_tokens(kube, wanted)
            return answer

    answer = run(work, stream=False)
    if node.dry_run:
        for one in wanted:
            click.echo("---")
            print_document(_hidden(token_secret(one)), "yaml")
        click.echo("---")
    click.echo(answer.reveal())


@token.command(
    name="list",
    epilog="""\b
Examples:
  kubewright token list
  kubewright token list -o json | jq -r .token""",
)
@node_options("kubeconfig", "dry-run")
@output_option("text", "json", "yaml", also=("--experimental-output",))
@click.pass_context
def list_(ctx: click.Context, node: NodeOptions, output: str) -> None:
    """List the cluster's tokens.

    Each stands there with its secret, how long it lives and what it is good for.

    With -o json or yaml one document a token is printed, as kubeadm prints them.
    """
    from datetime import UTC, datetime

    from kubewright.cli.common import run
    from kubewright.cli.table import table
    from kubewright.model import token_text
    from kubewright.workflows.tokens import list_tokens

    node = _with_outer(ctx, node)

    async def work(events: Any) -> list[BootstrapToken]:
        async with _opened(node) as (_, kube):
            return await list_tokens(kube, events)

    found = run(work, output=output, stream=False)
    if output == "text":
        now = datetime.now(UTC)
        rows = [token_text.table_row(one, now) for one in found]
        for line in table(token_text.HEADER, rows) if rows else ():
            click.echo(line)
        return
    for index, one in enumerate(found):
        if output == "yaml" and index:
            click.echo("---")
        print_document(token_text.document(one), output)


@token.command(
    epilog="""\b
Example:
  kubewright token delete abcdef"""
)
@click.argument("tokens", nargs=-1, required=True, metavar="TOKEN...")
@node_options("kubeconfig", "dry-run")
@click.pass_context
def delete(ctx: click.Context, node: NodeOptions, tokens: tuple[str, ...]) -> None:
    """Delete tokens. TOKEN is a whole token or its id."""
    from kubewright.cli.common import run
    from kubewright.model.tokens import identity
    from kubewright.workflows.tokens import delete_tokens, present_tokens

    node = _with_outer(ctx, node)
    ids = list(dict.fromkeys(identity(Secret(text), "TOKEN") for text in tokens))

    async def work(_: object) -> list[str]:
        async with _opened(node) as (_, kube):
            return await (present_tokens if node.dry_run else delete_tokens)(kube, ids)

    done = run(work, stream=False)
    for one in done:
        click.echo(f'bootstrap token "{one}" ' + ("would be deleted" if node.dry_run else "deleted"))
    if missing := [one for one in ids if one not in done]:
        raise KubewrightError(
            f"there is no token {', '.join(missing)}", hint="`kubewright token list` shows what there is"
        )


@token.command()
@click.option("--kubeconfig", metavar="FILE", help="As with the commands above; no cluster is asked.")
@click.option("--dry-run", is_flag=True, help="As with the commands above; nothing is made anyway.")
def generate(kubeconfig: str | None, dry_run: bool) -> None:
    """Print a random token, and make nothing.

    Such a token is for --token of init, or for token create.
    """
    from kubewright.model.tokens import generate_token

    click.echo(generate_token().reveal())


def _with_outer(ctx: click.Context, node: NodeOptions) -> NodeOptions:
    """The options, with those that stand before the command's name, as kubeadm takes them there."""
    outer = ctx.obj or {}
    return dataclasses.replace(
        node,
        kubeconfig=node.kubeconfig or outer.get("kubeconfig", ""),
        dry_run=node.dry_run or outer.get("dry_run", False),
    )


def _check_mixed(ctx: click.Context, node: NodeOptions) -> None:
    """Refuse, as kubeadm does, options that say what the file of --config says."""
    if node.config is None:
        return
    default = (click.core.ParameterSource.DEFAULT, None)
    names = ("token_text", "ttl", "usages", "groups", "description", "certificate_key")
    said = [
        "TOKEN" if name == "token_text" else f"--{name.replace('_', '-')}"
        for name in names
        if ctx.get_parameter_source(name) not in default
    ]
    if said:
        raise click.UsageError(f"--config does not go together with {', '.join(said)}")


def _check_key(key: str) -> None:
    """Refuse what is no certificate key; it is not shown, because it may be one but for a letter."""
    try:
        good = len(bytes.fromhex(key)) == 32
    except ValueError:
        good = False
    if not good:
        raise ConfigError(
            "--certificate-key: not 64 hexadecimal digits",
            hint="`kubewright init phase upload-certs --upload-certs` on a control plane prints a key",
        )


def _wanted(
    node: NodeOptions,
    text: str | None,
    ttl: str,
    usages: Sequence[str],
    groups: Sequence[str],
    description: str,
) -> list[BootstrapToken]:
    """The tokens to make: those of the configuration file, or the one that the options describe."""
    from datetime import UTC, datetime, timedelta

    from kubewright.model.config.duration import timedelta_of
    from kubewright.model.tokens import make_token

    now = datetime.now(UTC)
    if node.config is not None:
        return _configured(node.config, now)
    try:
        lifetime = timedelta_of(ttl)
    except ValueError as error:
        raise ConfigError(f"--ttl: {error}") from None
    if lifetime < timedelta(0):
        raise ConfigError("--ttl: must not be negative", hint="0 is for ever")
    return [
        make_token(
            now, token=Secret(text) if text else None, ttl=lifetime, usages=usages, groups=groups,
            description=description, field="TOKEN" if text else "token",
        )
    ]  # fmt: skip


def _configured(path: Path, now: Any) -> list[BootstrapToken]:
    from kubewright.cli.config_file import read_config
    from kubewright.model.config.kubeadm_nodes import InitConfiguration
    from kubewright.model.tokens import of_specs

    documents = read_config(path)
    return of_specs((documents.init or InitConfiguration()).bootstrap_tokens, now)


@asynccontextmanager
async def _opened(node: NodeOptions) -> AsyncIterator[tuple[Host, ObjectClient]]:
    from kubewright.cli.node import opened_host, opened_light_api

    async with opened_host(node) as host, opened_light_api(host, node) as kube:
        yield host, kube


async def _endpoint(host: Host, node: NodeOptions) -> tuple[str, list[str]]:
    """The API's URL and the hashes of its CAs, out of the kubeconfig that we use."""
    from kubewright.cli.node import kubeconfig_path
    from kubewright.model import kubeconfig, x509
    from kubewright.phases.host_kubeconfig import read_kubeconfig

    path = kubeconfig_path(node)
    cluster, _ = kubeconfig.current(await read_kubeconfig(host, path))
    ca = kubeconfig.embedded(cluster, "certificate-authority-data")
    if not ca:
        raise ConfigError(f"{path} holds no CA: a join command needs its hash")
    return str(cluster.get("server", "")), x509.ca_hashes(ca)


def _hidden(secret: dict[str, Any]) -> dict[str, Any]:
    """A token's Secret as it may be shown."""
    return secret | {"data": secret["data"] | {"token-secret": "<secret>"}}
