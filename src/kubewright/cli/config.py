"""`kubewright config`: kubeadm's configuration files, and the schema of `cluster.yaml`."""

from __future__ import annotations

import click

from kubewright.cli.lazy import LazyGroup
from kubewright.cli.output import output_option, print_document


@click.pass_context
def _config(ctx: click.Context, kubeconfig: str) -> None:
    ctx.obj = {"kubeconfig": kubeconfig}


config = LazyGroup(
    "config",
    callback=_config,
    params=[click.Option(["--kubeconfig"], default="", metavar="FILE", help="As with the command view.")],
    help="Work with configuration files: kubeadm's own, and cluster.yaml.",
    lazy={
        "images": ("kubewright.cli.config_images:images", "List or pull the images of a control plane."),
        "migrate": (
            "kubewright.cli.config_print:migrate", "Convert a file to another of kubeadm's API versions.",
        ),
        "print": ("kubewright.cli.config_print:print_", "Print what a command has by default."),
        "validate": ("kubewright.cli.config_print:validate", "Say what is wrong with a file of kubeadm's."),
        "view": ("kubewright.cli.config_images:view", "Print what a cluster keeps of its configuration."),
    },
)  # fmt: skip


@config.command(
    epilog="""\b
Example:
  kubewright config schema > cluster.schema.json"""
)
@click.option(
    "--kubernetes-version",
    metavar="VERSION",
    help="Version whose kubeadm, kubelet and kube-proxy fields to describe; default: that of cluster.yaml.",
)
@output_option("json", "yaml")
def schema(kubernetes_version: str | None, output: str) -> None:
    """Print the JSON schema of cluster.yaml.

    Editors that know JSON schema complete and check the file with it: write the schema to a file, and put
    `# yaml-language-server: $schema=FILE` into the first line of cluster.yaml.
    """
    from kubewright.model.config.cluster import ClusterSpec
    from kubewright.model.config.schema import cluster_schema
    from kubewright.model.versions import facts_for

    version = kubernetes_version or ClusterSpec.model_fields["kubernetes_version"].default
    print_document(cluster_schema(facts_for(version, field="--kubernetes-version")), output)


@config.command(
    epilog="""\b
Example:
  kubewright config example > cluster.yaml"""
)
def example() -> None:
    """Print a cluster.yaml to begin with."""
    from kubewright.model.config.example import EXAMPLE

    click.echo(EXAMPLE, nl=False)


@config.command(hidden=True)
def reference() -> None:
    """Print the reference of cluster.yaml (docs/cluster-yaml.md) as Markdown."""
    from kubewright.model.config.reference import reference as page

    click.echo(page(), nl=False)
