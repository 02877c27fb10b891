"""`kubewright config images` and `view`: which images a cluster needs, and what a cluster remembers of itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kubewright.cli.config_print import no_kubeconfig
from kubewright.cli.node import NodeOptions, node_options
from kubewright.cli.output import output_option, print_document
from kubewright.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubewright.events import Events
    from kubewright.model.config.documents import Documents

F = TypeVar("F", bound="Callable[..., Any]")


def _image_options(function: F) -> F:
    options = (
        click.option(
            "--kubernetes-version", default="", metavar="VERSION",
            help="The Kubernetes version; default: v1.20.2.",
        ),
        click.option(
            "--image-repository", default="", metavar="REPOSITORY",
            help="Where the images are; default: the version's own registry.",
        ),
        click.option(
            "--feature-gates", default="", metavar="GATES",
            help="kubeadm's feature gates, NAME=true|false with commas between; no image depends on them.",
        ),
    )  # fmt: skip
    decorated: Any = function
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


@click.group()
def images() -> None:
    """List or pull the images that a control plane needs."""


@images.command(
    "list",
    epilog="""\b
Examples:
  kubewright config images list
  kubewright config images list --kubernetes-version v1.31.2 -o json""",
)
@_image_options
@click.option(
    "--config", "file", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE",
    help="kubeadm's configuration, which goes before the other options; '-' reads standard input.",
)  # fmt: skip
@output_option("text", "json", "yaml", also=("--experimental-output",))
@no_kubeconfig
def list_(
    kubernetes_version: str, image_repository: str, feature_gates: str, file: Path | None, output: str
) -> None:
    """List the images that a control plane needs."""
    names = _images(_documents(file, kubernetes_version, image_repository, feature_gates))
    if output == "text":
        click.echo("\n".join(names))
    else:
        document = {"kind": "Images", "apiVersion": "output.kubeadm.k8s.io/v1alpha1", "images": names}
        print_document(document, output)


@images.command(
    "pull",
    epilog="""\b
Examples:
  kubewright config images pull
  kubewright config images pull --host root@192.168.7.11 --config kubeadm.yaml""",
)
@_image_options
@click.option(
    "--cri-socket", default="", metavar="PATH",
    help="The socket of the container runtime; default: the one that is found on the host.",
)  # fmt: skip
@node_options("config")
@no_kubeconfig
def pull(
    node: NodeOptions, kubernetes_version: str, image_repository: str, feature_gates: str, cri_socket: str
) -> None:
    """Pull the images that a control plane needs.

    The container runtime of the host pulls them.
    """
    from kubewright.cli.common import run
    from kubewright.cli.node import opened_host
    from kubewright.clients.cri import find_socket, open_cri

    documents = _documents(node.config, kubernetes_version, image_repository, feature_gates)
    named = documents.init.node_registration.cri_socket if documents.init else ""

    async def work(_: Events) -> None:
        async with opened_host(node) as host:
            socket = cri_socket or named or await find_socket(host)
            async with open_cri(host, socket) as runtime:
                await runtime.check()
                for image in _images(documents):
                    await runtime.pull(image)
                    click.echo(f"pulled {image}")

    run(work, stream=False)


@click.command()
@node_options("kubeconfig")
@click.pass_context
def view(ctx: click.Context, node: NodeOptions) -> None:
    """Print the ClusterConfiguration that a cluster keeps of itself, in the ConfigMap kubeadm-config."""
    from kubewright.cli.common import run
    from kubewright.cli.node import opened_host, opened_light_api
    from kubewright.model.stored import KUBEADM_CONFIG

    node = replace(node, kubeconfig=node.kubeconfig or (ctx.obj or {}).get("kubeconfig", ""))

    async def work(_: Events) -> str:
        async with opened_host(node) as host, opened_light_api(host, node) as kube:
            found = await kube.get("v1", "ConfigMap", KUBEADM_CONFIG, "kube-system")
        if found is None:
            raise ConfigError(
                f"the cluster has no ConfigMap {KUBEADM_CONFIG} in kube-system", exit_code=ExitCode.API_ERROR,
                hint="a cluster that neither kubeadm nor Kubewright made has none",
            )  # fmt: skip
        return str((found.get("data") or {}).get("ClusterConfiguration", ""))

    click.echo(run(work, stream=False), nl=False)


def _images(documents: Documents) -> list[str]:
    from kubewright.model.versions import image_references

    assert documents.cluster is not None
    return list(image_references(documents.cluster, documents.facts).values())


def _documents(
    file: Path | None, kubernetes_version: str, image_repository: str, feature_gates: str
) -> Documents:
    """The configuration of the file, else of the options."""
    if file is None:
        return _of_options(kubernetes_version, image_repository, feature_gates)
    from kubewright.cli.config_file import read_config

    options = {
        "--kubernetes-version": kubernetes_version,
        "--image-repository": image_repository,
        "--feature-gates": feature_gates,
    }
    beside = [name for name, value in options.items() if value]
    if beside:
        click.echo(f"warning: {', '.join(beside)}: the file of --config goes before", err=True)
    documents = read_config(file)
    if documents.cluster is None:
        raise ConfigError(f"{file}: no InitConfiguration or ClusterConfiguration is in it")
    return documents


def _of_options(kubernetes_version: str, image_repository: str, feature_gates: str) -> Documents:
    from kubewright.model.config.documents import DEFAULT_VERSION, default_documents
    from kubewright.model.config.findings import did_you_mean
    from kubewright.model.versions import facts_for

    facts = facts_for(kubernetes_version or DEFAULT_VERSION, field="--kubernetes-version")
    for gate in filter(None, feature_gates.split(",")):
        name, equals, value = gate.strip().partition("=")
        known = facts.kubeadm_feature_gates
        if not equals or value.lower() not in ("true", "false", "1", "0", "t", "f") or name not in known:
            meant = did_you_mean(name, known) if name not in known else ""
            raise ConfigError(
                f"--feature-gates: {gate!r} is not NAME=true|false of a gate of kubeadm's{meant}",
                exit_code=ExitCode.USAGE,
            )
    documents = default_documents(str(facts.version))
    if image_repository and documents.cluster is not None:
        cluster = documents.cluster.model_copy(update={"image_repository": image_repository})
        return replace(documents, cluster=cluster)
    return documents
