"""`kubewright upgrade`: what a newer version brings, and bringing a cluster to it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from kubewright.cli.node import NodeOptions, node_options
from kubewright.cli.output import output_option, print_document
from kubewright.cli.upgrade_apply import apply, node
from kubewright.cli.upgrade_shared import (
    PATCHES,
    UNSTABLE,
    check_gates,
    configuration_of,
    opened_installed,
    opened_with_api,
    show_config,
    stored_cluster,
    switch,
    with_options,
)

if TYPE_CHECKING:
    from kubewright.events import Events
    from kubewright.workflows.upgrade_plan import Plan


@click.group()
def upgrade() -> None:
    """Bring a cluster to a newer version.

    Look first (plan, diff), then apply on one control plane, then upgrade each other node. Patch releases of
    the cluster's minor version can be applied; plan and diff show any version.
    """


@upgrade.command(
    epilog="""\b
Examples:
  kubewright upgrade plan
  kubewright upgrade plan v1.20.15
  kubewright upgrade plan --host root@192.168.7.11 -o json"""
)
@click.argument("version", required=False, default="")
@with_options(*UNSTABLE)
@switch("--etcd-upgrade", "Show etcd.", hidden=True)
@node_options("config", "kubeconfig", "ignore-preflight-errors", "dry-run")
@output_option("text", "json", "yaml")
def plan(
    version: str,
    allow_experimental_upgrades: bool,
    allow_release_candidate_upgrades: bool,
    feature_gates: tuple[str, ...],
    print_config: bool,
    etcd_upgrade: bool,
    node: NodeOptions,
    output: str,
) -> None:
    """Show where the cluster can go.

    That is VERSION, or without it the newest versions that can be had. Those are looked up in the Kubernetes
    project's index of releases, and among the images of this host, which needs no network. Nothing is
    changed.
    """
    from kubewright.cli.common import run
    from kubewright.cli.upgrade_text import plan_document, plan_lines
    from kubewright.workflows.upgrade_plan import plan as workflow

    said = configuration_of(node)[0].plan

    async def work(events: Events) -> Plan:
        async with opened_with_api(node) as (target, kube):
            found = await workflow(
                target, kube, events, version=version or said.kubernetes_version,
                prerelease=allow_experimental_upgrades or said.allow_experimental_upgrades,
                candidates=allow_release_candidate_upgrades or said.allow_rc_upgrades,
            )  # fmt: skip
            for note in found.notes:
                events.warn(note)
            return found

    found = run(work, output=output, stream=False)
    check_gates(feature_gates, found.state.cluster.kubernetes_version)
    if print_config or said.print_config:
        show_config(found.state.cluster)
    if output == "text":
        click.echo("\n".join(plan_lines(found)))
    else:
        print_document(plan_document(found), output)


@upgrade.command(
    epilog="""\b
Examples:
  kubewright upgrade diff v1.20.15
  kubewright upgrade diff v1.21.0 --context-lines 0"""
)
@click.argument("version", required=False, default="")
@click.option(
    "--api-server-manifest", default="", metavar="FILE", help="The API server's manifest, if it is elsewhere."
)
@click.option(
    "--controller-manager-manifest", default="", metavar="FILE", help="The controller manager's, likewise."
)
@click.option("--scheduler-manifest", default="", metavar="FILE", help="The scheduler's, likewise.")
@click.option(
    "-c", "--context-lines", type=click.IntRange(min=0), default=None, metavar="N",
    help="Unchanged lines around a change; default: 3.",
)  # fmt: skip
@with_options(*PATCHES)
@node_options("config", "kubeconfig")
@output_option("text", "json", "yaml")
def diff(
    version: str,
    api_server_manifest: str,
    controller_manager_manifest: str,
    scheduler_manifest: str,
    context_lines: int | None,
    patches: str,
    experimental_patches: str,
    node: NodeOptions,
    output: str,
) -> None:
    """Show what a version changes in the static Pods.

    It is a unified diff of those of this control plane. Without VERSION it is the one of --config, else the
    cluster's own. Both sides are written in one style, so that only what differs in meaning is shown.
    """
    from kubewright.cli.common import run
    from kubewright.workflows.patches import read_patches
    from kubewright.workflows.upgrade_plan import chosen_version
    from kubewright.workflows.upgrade_plan import diff as workflow

    configuration, documents = configuration_of(node)
    said, given = configuration.diff, documents.cluster if documents else None
    paths = {
        name: path
        for name, path in (
            ("kube-apiserver", api_server_manifest),
            ("kube-controller-manager", controller_manager_manifest),
            ("kube-scheduler", scheduler_manifest),
        )
        if path
    }
    compared = partial(
        workflow, paths=paths, patches=read_patches(patches or experimental_patches),
        context=said.context_lines if context_lines is None else context_lines,
    )  # fmt: skip

    async def work(events: Events) -> dict[str, list[str]]:
        if given is not None:
            async with opened_installed(node) as target:
                chosen = chosen_version(version, given.kubernetes_version, "")
                return await compared(target, given, chosen, events)
        async with opened_with_api(node) as (target, kube):
            cluster = await stored_cluster(kube)
            chosen = chosen_version(version, said.kubernetes_version, cluster.kubernetes_version)
            return await compared(target, cluster, chosen, events)

    found = run(work, output=output, stream=False)
    if output != "text":
        print_document(
            {"manifests": [{"path": path, "diff": lines} for path, lines in found.items()]}, output
        )
        return
    for lines in found.values():
        for line in lines:
            click.echo(line)


upgrade.add_command(apply)
upgrade.add_command(node)
