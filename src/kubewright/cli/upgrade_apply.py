"""`kubewright upgrade apply` and `upgrade node`: bringing a control plane, and then each node, to a version."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from kubewright.cli.node import NodeOptions, node_options
from kubewright.cli.output import output_option
from kubewright.cli.phases import PhasedCommand, skip_phases_option
from kubewright.cli.upgrade_shared import (
    PATCHES,
    UNSTABLE,
    check_gates,
    configuration_of,
    opened_with_api,
    show_config,
    switch,
    with_options,
)
from kubewright.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from kubewright.events import Events
    from kubewright.model.config.kubeadm_nodes import UpgradeConfiguration
    from kubewright.workflows.upgrade import UpgradeOptions

_CHANGING = (
    switch("--etcd-upgrade", "Upgrade the local etcd, too."),
    switch("--certificate-renewal", "Renew the certificates of what is upgraded."),
    *PATCHES,
)


@click.command(
    epilog="""\b
Examples:
  kubewright upgrade apply v1.20.15 --dry-run
  kubewright upgrade apply v1.20.15 --yes"""
)
@click.argument("version", required=False, default="")
@with_options(*UNSTABLE, *_CHANGING)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option(
    "-f", "--force", is_flag=True, help="Go on in spite of what plan advises against, and do not ask."
)
@click.option("--image-pull-timeout", default="", hidden=True, help="Without effect, as in kubeadm.")
@node_options("config", "kubeconfig", "ignore-preflight-errors", "dry-run")
@output_option("text", "json")
def apply(
    version: str,
    allow_experimental_upgrades: bool,
    allow_release_candidate_upgrades: bool,
    feature_gates: tuple[str, ...],
    print_config: bool,
    etcd_upgrade: bool,
    certificate_renewal: bool,
    patches: str,
    experimental_patches: str,
    yes: bool,
    force: bool,
    image_pull_timeout: str,
    node: NodeOptions,
    output: str,
) -> None:
    """Bring the cluster to a version.

    Run it on one control plane, then `upgrade node` on all other nodes. Each program is replaced and must
    serve again before the next one is touched; one that does not is put back. With the cluster's own version,
    it brings back what was changed by hand.
    """
    from kubewright.cli.changes import print_changes
    from kubewright.cli.common import run
    from kubewright.cli.upgrade_text import applied_lines
    from kubewright.model.upgrade import ClusterState
    from kubewright.model.version import Version
    from kubewright.workflows.upgrade import UpgradeOutcome, check_target
    from kubewright.workflows.upgrade import apply as workflow
    from kubewright.workflows.upgrade_state import read_state

    configuration, documents = configuration_of(node)
    said = configuration.apply
    if documents is not None and documents.cluster is not None:
        raise ConfigError(
            "--config: a ClusterConfiguration cannot be changed by an upgrade", exit_code=ExitCode.USAGE,
            hint="change it first: `kubewright init phase upload-config kubeadm --config FILE`, then upgrade",
        )  # fmt: skip
    chosen = version or said.kubernetes_version
    if not chosen:
        raise click.UsageError("which version? such as: kubewright upgrade apply v1.20.15")
    options = _options(
        node, configuration, said, patches or experimental_patches,
        etcd=etcd_upgrade and said.etcd_upgrade, renew=certificate_renewal and said.certificate_renewal,
        prerelease=allow_experimental_upgrades or said.allow_experimental_upgrades,
        candidates=allow_release_candidate_upgrades or said.allow_rc_upgrades,
        force=force or said.force_upgrade,
    )  # fmt: skip
    dry = node.dry_run or said.dry_run
    check_gates(feature_gates, chosen)

    def look() -> None:
        async def check(events: Events) -> None:
            async with opened_with_api(node) as (target, kube):
                state = await read_state(target.host, kube)
                check_target(state, Version.parse(chosen), options, events)

        run(check, output=output, stream=False)

    if not (yes or options.force or dry):
        _confirm(look, chosen)

    async def work(events: Events) -> tuple[UpgradeOutcome, ClusterState, str]:
        async with opened_with_api(node, timeout=60) as (target, kube):
            state = await read_state(target.host, kube)
            done = await workflow(target, kube, chosen, options, events, state=state, dry=dry)
            return done, state, target.name

    outcome, state, name = run(work, output=output, stream=not dry)
    if print_config or said.print_config:
        show_config(state.cluster)
    if dry:
        print_changes(outcome.changes, output, title=f"upgrade to {outcome.version}")
    elif output == "text":
        click.echo("\n".join(applied_lines(outcome, others=any(one != name for one in state.kubelets))))


@click.command(
    cls=PhasedCommand,
    steps="kubewright.workflows.upgrade_tree:NODE",
    epilog="""\b
Examples:
  kubewright upgrade node
  kubewright upgrade node --dry-run
  kubewright upgrade node phase kubelet-config""",
)
@with_options(*_CHANGING)
@skip_phases_option
@node_options("config", "kubeconfig", "ignore-preflight-errors", "dry-run")
@output_option("text", "json")
def node(
    etcd_upgrade: bool,
    certificate_renewal: bool,
    patches: str,
    experimental_patches: str,
    skip_phases: tuple[str, ...],
    node: NodeOptions,
    output: str,
    only: str,
) -> None:
    """Bring this node to the cluster's version.

    It follows `upgrade apply` on another one. A control plane gets its new static Pods; every node its
    kubelet's configuration. The kubelet itself is upgraded and started anew by whoever installed it.
    """
    from kubewright.cli.changes import print_changes
    from kubewright.cli.common import run
    from kubewright.workflows.upgrade import UpgradeOutcome
    from kubewright.workflows.upgrade import node as workflow

    configuration, _ = configuration_of(node)
    said = configuration.node
    options = _options(
        node, configuration, said, patches or experimental_patches,
        etcd=etcd_upgrade and said.etcd_upgrade, renew=certificate_renewal and said.certificate_renewal,
    )  # fmt: skip
    dry = node.dry_run or said.dry_run

    async def work(events: Events) -> UpgradeOutcome:
        async with opened_with_api(node, of_node=True, timeout=60) as (target, kube):
            return await workflow(
                target, kube, options, events, skip=skip_phases or said.skip_phases, only=only, dry=dry
            )

    outcome = run(work, output=output, stream=not dry)
    if dry:
        print_changes(outcome.changes, output, title=f"upgrade to {outcome.version}")
    elif output == "text" and not only:
        click.echo(f"The node's files are those of {outcome.version}.")
        click.echo("Upgrade its kubelet now, and start it anew: systemctl restart kubelet")


def _options(
    node: NodeOptions, configuration: UpgradeConfiguration, said: Any, patches: str, **more: bool
) -> UpgradeOptions:
    from kubewright.model.node_preflight import ignored_checks
    from kubewright.workflows.patches import read_patches
    from kubewright.workflows.upgrade import UpgradeOptions

    return UpgradeOptions(
        patches=read_patches(patches or said.patches.directory),
        ignore=ignored_checks(node.ignore_preflight_errors, said.ignore_preflight_errors),
        kubeconfig=node.kubeconfig,
        timeouts=configuration.timeouts,
        pull_policy=said.image_pull_policy,
        pull_one_by_one=said.image_pull_serial,
        **more,
    )


def _confirm(check: Callable[[], None], version: str) -> None:
    """Ask whether to go on, once it is known that nothing forbids it."""
    if not sys.stdin.isatty():
        raise ConfigError(
            "upgrade apply restarts the control plane, and nobody can be asked: standard input is no terminal",
            hint="look first with --dry-run, then say --yes", exit_code=ExitCode.USAGE,
        )  # fmt: skip
    check()
    if not click.confirm(f"Upgrade the cluster to {version}?", default=False, err=True):
        raise click.exceptions.Exit(ExitCode.FAILURE)
