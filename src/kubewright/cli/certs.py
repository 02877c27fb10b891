"""`kubewright certs`: when a control plane's certificates end, and new ones for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kubewright.cli.cert_config import absolute_on, settings_on
from kubewright.cli.node import ADMIN_CONF, NodeOptions, node_options
from kubewright.cli.output import output_option, print_document
from kubewright.errors import KubewrightError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kubewright.events import Events
    from kubewright.model.renewal import Expiry
    from kubewright.phases.renewal import Renewed

_SOON = 30 * 86400  # seconds: P22

# As in model.renewal, which takes time to load: help and completion need the names.
_TITLES = {
    "all": "all certificates that kubeadm looks after",
    "admin.conf": "the administrator's certificate, inside admin.conf",
    "apiserver": "the API server's serving certificate",
    "apiserver-etcd-client": "the API server's certificate as a client of etcd",
    "apiserver-kubelet-client": "the API server's certificate as a client of kubelets",
    "controller-manager.conf": "the controller manager's certificate, inside controller-manager.conf",
    "etcd-healthcheck-client": "the certificate of probes of etcd's health",
    "etcd-peer": "etcd's certificate among its members",
    "etcd-server": "etcd's serving certificate",
    "front-proxy-client": "the API server's certificate as a proxy of extension API servers",
    "scheduler.conf": "the scheduler's certificate, inside scheduler.conf",
    "super-admin.conf": "the certificate inside super-admin.conf, which no authorization stops",
}


@click.group()
def certs() -> None:
    """Look after the certificates of a control plane."""


@certs.command(
    name="check-expiration",
    epilog="""\b
Examples:
  kubewright certs check-expiration
  kubewright certs check-expiration --host root@192.168.7.11 -o json""",
)
@click.option("--cert-dir", metavar="DIR", help="Where the certificates are; default: as the cluster says.")
@node_options("config", "kubeconfig")
@output_option("text", "json", "yaml", also=("--experimental-output",))
def check_expiration(node: NodeOptions, cert_dir: str | None, output: str) -> None:
    """Show when each certificate and each CA ends.

    Where they are is said by --config, else by the cluster; where its API does not answer, kubeadm's defaults
    hold.
    """
    from datetime import UTC, datetime

    from kubewright.cli.common import run
    from kubewright.cli.table import table
    from kubewright.model import renewal

    async def work(events: Events) -> tuple[list[Expiry], list[Expiry]]:
        from kubewright.cli.node import opened_host
        from kubewright.phases.renewal import expiries

        async with opened_host(node) as host:
            return await expiries(host, await settings_on(host, node, cert_dir, events))

    leaves, roots = run(work, output=output, stream=False)
    now = datetime.now(UTC)
    if output != "text":
        print_document(renewal.document(leaves, roots, now), output)
        return
    for line in table(renewal.HEADER, [renewal.leaf_row(one, now) for one in leaves]):
        click.echo(line)
    click.echo()
    for line in table(renewal.CA_HEADER, [renewal.root_row(one, now) for one in roots]):
        click.echo(line)
    _warn_of_the_end(leaves, now)


def _warn_of_the_end(leaves: Sequence[Expiry], now: Any) -> None:
    """Say which certificates have ended or will within 30 days, and what to run."""
    ended = [one.name for one in leaves if one.ends is not None and one.left(now) <= 0]
    ending = [one.name for one in leaves if one.ends is not None and 0 < one.left(now) <= _SOON]
    for names, what in ((ended, "expired"), (ending, "expires within 30 days")):
        if names:
            click.echo(f"\n{what}: {', '.join(names)}", err=True)
    if ended or ending:
        click.echo("`kubewright certs renew all` renews them", err=True)


@certs.command(name="certificate-key")
def certificate_key() -> None:
    """Print a new key for --certificate-key.

    Under it, init encrypts the certificates that it uploads for further control planes.
    """
    import secrets

    click.echo(secrets.token_hex(32))


@certs.command(
    name="generate-csr",
    epilog="""\b
Example:
  kubewright certs generate-csr --config kubeadm.yaml --cert-dir /tmp/pki --kubeconfig-dir /tmp/kubernetes""",
)
@click.option(
    "--cert-dir", metavar="DIR", help="Where keys and requests are written; default: as --config says."
)
@click.option(
    "--kubeconfig-dir",
    default="/etc/kubernetes",
    show_default=True,
    metavar="DIR",
    help="Where kubeconfigs and their requests are written.",
)
@node_options("config", "dry-run")
def generate_csr(node: NodeOptions, cert_dir: str | None, kubeconfig_dir: str) -> None:
    """Write keys and signing requests for all certificates.

    They are for a CA that is elsewhere: put each certificate that it signs beside its key as .crt, and those of
    kubeconfigs into their client-certificate-data. Names and addresses are those of --config, else the host's.
    """
    from kubewright.cli.common import run

    async def work(events: Events) -> Sequence[Any]:
        from kubewright.cli.cert_config import control_plane_on
        from kubewright.model.kubeconfig import control_plane_kubeconfigs
        from kubewright.model.pki import control_plane_certs
        from kubewright.phases.requests import GenerateRequests

        async with control_plane_on(node) as (host, cluster, own):
            phase = GenerateRequests(
                host, control_plane_certs(cluster, own), control_plane_kubeconfigs(cluster, own),
                directory=absolute_on(cert_dir, node) if cert_dir else cluster.certificates_dir,
                kubeconfig_dir=absolute_on(kubeconfig_dir, node),
            )  # fmt: skip
            return await (phase.look() if node.dry_run else phase.run(events))

    for change in run(work, stream=False):
        click.echo(f"would write {change.target}" if node.dry_run else change.target)


@certs.group(invoke_without_command=False)
def renew() -> None:
    """Renew certificates, whether they have expired or not.

    Each keeps its names, organizations and usages and gets a new key. The CA on the host signs, so that no API
    server is needed.
    """


def _renew(name: str) -> Callable[..., None]:
    def command(node: NodeOptions, cert_dir: str | None, csr_only: bool, csr_dir: str | None) -> None:
        _run_renewal(name, node, cert_dir, csr_only, csr_dir)

    title = _TITLES[name]
    command.__doc__ = f"""Renew {title}.

    It keeps its names, organizations and usages and gets a new key, however long it has expired.
    """
    if name == "all":
        command.__doc__ = """Renew all certificates that kubeadm looks after.

    The kubelet's is not among them: it renews its own.
    """
    return command


for _name in _TITLES:
    _decorated: Any = _renew(_name)
    for _option in (
        node_options("config", "kubeconfig", "dry-run"),
        click.option(
            "--csr-dir",
            metavar="DIR",
            help="With --csr-only: where on the host keys and requests are written.",
        ),
        click.option(
            "--csr-only",
            is_flag=True,
            help="Write keys and signing requests for a CA elsewhere, and renew nothing.",
        ),
        click.option(
            "--cert-dir", metavar="DIR", help="Where the certificates are; default: as the cluster says."
        ),
    ):
        _decorated = _option(_decorated)
    renew.command(name=_name, short_help=f"Renew {_TITLES[_name]}.")(_decorated)


def _run_renewal(
    name: str, node: NodeOptions, cert_dir: str | None, csr_only: bool, csr_dir: str | None
) -> None:
    from kubewright.cli.common import run
    from kubewright.model import renewal

    if csr_only and not csr_dir:
        raise click.UsageError("--csr-only needs --csr-dir: where keys and requests are to be written")
    names = renewal.NAMES if name == "all" else (name,)

    async def work(events: Events) -> tuple[Renewed, Sequence[Any], str]:
        from kubewright.cli.node import opened_host
        from kubewright.phases.renewal import RenewCertificates, RequestRenewal

        async with opened_host(node) as host:
            settings = await settings_on(host, node, cert_dir, events)
            phase = (
                RequestRenewal(host, settings, names, absolute_on(csr_dir or "", node))
                if csr_only
                else RenewCertificates(host, settings, names)
            )
            changes = await (phase.look() if node.dry_run else phase.run(events))
            return phase.result, changes, host.name

    result, changes, host_name = run(work, stream=False)
    if node.dry_run:
        for change in changes:
            click.echo(
                f"would {change.action} {change.target}" + "".join(f"\n  {line}" for line in change.diff)
            )
    else:
        for one in result.done:
            click.echo(f"{one}: " + (f"request written to {csr_dir}" if csr_only else "renewed"))
    for one in result.missing:
        click.echo(f"{one}: missing, and so not renewed", err=True)
    for one in result.external:
        click.echo(f"{one}: its CA's key is not on {host_name}, and so it cannot be renewed here", err=True)
    if name != "all" and not result.done:
        raise KubewrightError(
            f"{name} was not renewed: " + ("there is none" if not result.external else "its CA is elsewhere"),
            hint="with --csr-only --csr-dir DIR a request for that CA is written" if result.external
            else "`kubewright certs check-expiration` shows what there is",
        )  # fmt: skip
    if not csr_only and not node.dry_run:
        _say_what_to_restart(result, node)


def _say_what_to_restart(result: Renewed, node: NodeOptions) -> None:
    """What uses an old certificate until it is started anew, and what does that."""
    programs = result.programs()
    if programs:
        click.echo(f"\nStart anew, to use the new certificates: {', '.join(programs)}.")
        click.echo("Each is a static Pod, which ends when its manifest is away and starts when it is back:")
        if node.host:
            click.echo(f"  ssh {node.host}")
        click.echo("  cd /etc/kubernetes/manifests && mkdir ../away")
        click.echo(f"  mv {' '.join(f'{one}.yaml' for one in programs)} ../away")
        click.echo("  sleep 40 && mv ../away/* . && rmdir ../away")
    if "admin.conf" in result.done:
        click.echo(
            f"\nCopies of {ADMIN_CONF}, such as ~/.kube/config, hold the old certificate until copied anew."
        )
