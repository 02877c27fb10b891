"""`kubewright kubeconfig`: kubeconfigs for further users of a cluster."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kubewright.cli.cert_config import control_plane_on, settings_on
from kubewright.cli.node import ADMIN_CONF, ListOption, NodeOptions, node_options
from kubewright.errors import ConfigError
from kubewright.secret import Secret

if TYPE_CHECKING:
    from datetime import timedelta

    from kubewright.events import Events

_YEAR = 365  # days, beyond which a certificate is a risk, as kubeadm sees it


@click.group()
def kubeconfig() -> None:
    """Make kubeconfigs."""


@kubeconfig.command(
    epilog="""\b
Examples:
  kubewright kubeconfig user --client-name jane --org developers > jane.conf
  kubewright kubeconfig user --client-name jane --validity-period 24h --out jane.conf --host root@192.168.7.11"""
)
@click.option("--client-name", required=True, metavar="NAME", help="The user's name: the certificate's CN.")
@click.option(
    "--org",
    "organizations",
    cls=ListOption,
    metavar="GROUPS",
    help="The groups of the user, with commas between: the certificate's O.",
)
@click.option("--token", metavar="TOKEN", help="Let the user have this token in place of a certificate.")
@click.option(
    "--validity-period",
    metavar="DURATION",
    help="How long the certificate is valid, such as 24h; default: as the cluster says, else 8760h0m0s.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write it to a file on this computer that only you can read; default: standard output.",
)
@node_options("config", "kubeconfig")
def user(
    node: NodeOptions, client_name: str, organizations: tuple[str, ...], token: str | None,
    validity_period: str | None, out: Path | None,
) -> None:  # fmt: skip
    """Print a kubeconfig for a further user.

    The cluster's CA on the host signs the user's certificate. The API's address is that of --config, else that of
    the host's admin.conf. What the user may do is for roles and their bindings to say.
    """
    from kubewright.cli.common import run

    if token is not None and organizations:
        raise click.UsageError("--org is for a certificate: it does not go together with --token")
    if not client_name.strip():
        raise click.UsageError("--client-name is empty")
    validity = _validity(validity_period)

    async def work(events: Events) -> Secret[bytes]:
        from kubewright.cli.node import opened_host
        from kubewright.model.cert_settings import of_configuration
        from kubewright.model.node import endpoint_url
        from kubewright.phases.user_kubeconfig import Endpoint, User, endpoint_of, user_kubeconfig

        who = User(client_name, organizations, Secret(token) if token is not None else None)
        if node.config is not None:
            async with control_plane_on(node) as (host, cluster, own):
                where = Endpoint(endpoint_url(cluster.control_plane_endpoint, own), cluster.cluster_name)
                settings = of_configuration(cluster)
                if validity is not None:
                    settings = dataclasses.replace(settings, validity=validity)
                return await user_kubeconfig(host, settings, where, who)
        async with opened_host(node) as host:
            where = await endpoint_of(host, node.kubeconfig or ADMIN_CONF)
            settings = await settings_on(host, node, None, events)
            if validity is not None:
                settings = dataclasses.replace(settings, validity=validity)
            return await user_kubeconfig(host, settings, where, who)

    content = run(work, stream=False)
    if out is None:
        click.echo(content.reveal(), nl=False)
        return
    from kubewright.clients.filelock import replace_file

    replace_file(out, content.reveal(), mode=0o600)


def _validity(text: str | None) -> timedelta | None:
    from datetime import timedelta

    from kubewright.model.config.duration import timedelta_of

    if text is None:
        return None
    try:
        found = timedelta_of(text)
    except ValueError as error:
        raise ConfigError(f"--validity-period: {error}") from None
    if found <= timedelta(0):
        raise ConfigError("--validity-period: must be more than 0")
    if found > timedelta(days=_YEAR):
        click.echo(
            f"warning: --validity-period {text} is more than a year: whoever gets the file has it as long",
            err=True,
        )
    return found
