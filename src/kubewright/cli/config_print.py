"""`kubewright config print`, `validate` and `migrate`: kubeadm's configuration files, without a cluster."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kubewright.cli.node import ListOption
from kubewright.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from kubewright.model.config.kubeadm_types import ClusterConfiguration

_VERSION = click.option(
    "--kubernetes-version",
    metavar="VERSION",
    help="The Kubernetes version whose defaults to print; default: v1.20.2.",
)
_API_VERSION = click.option(
    "--api-version",
    type=click.Choice(["v1beta2", "v1beta3", "v1beta4"]),
    help="kubeadm's API version to write; default: the newest that the Kubernetes version's kubeadm reads.",
)
_COMPONENTS = click.option(
    "--component-configs",
    cls=ListOption,
    metavar="KINDS",
    help="Print these, too, separated by commas: KubeletConfiguration, KubeProxyConfiguration.",
)
_EXPERIMENTAL = click.option(
    "--allow-experimental-api",
    is_flag=True,
    help="Allow API versions that are still being made; at present there are none.",
)


no_kubeconfig = click.option(
    "--kubeconfig",
    metavar="FILE",
    expose_value=False,
    help="Of no use here, where no cluster is asked; kubeadm takes it, too.",
)


@click.group("print")
def print_() -> None:
    """Print the configuration that a command has by default.

    Tokens are replaced by one that every reader knows: do not use it.
    """


@print_.command("init-defaults")
@_COMPONENTS
@_VERSION
@_API_VERSION
@no_kubeconfig
def init_defaults(
    component_configs: tuple[str, ...], kubernetes_version: str | None, api_version: str | None
) -> None:
    """Print what `init` does by default.

    It is an InitConfiguration and a ClusterConfiguration.
    """
    from kubewright.model.config.examples import init_example

    _print(init_example(_version(kubernetes_version), _host_name()), component_configs, api_version)


@print_.command("join-defaults")
@_COMPONENTS
@_VERSION
@_API_VERSION
@no_kubeconfig
def join_defaults(
    component_configs: tuple[str, ...], kubernetes_version: str | None, api_version: str | None
) -> None:
    """Print what `join` does by default.

    It is a JoinConfiguration.
    """
    from kubewright.model.config.examples import join_example

    _print(join_example(_version(kubernetes_version), _host_name()), component_configs, api_version)


@print_.command("reset-defaults")
@_VERSION
@no_kubeconfig
def reset_defaults(kubernetes_version: str | None) -> None:
    """Print what `reset` does by default.

    It is a ResetConfiguration, which v1beta4 alone has.
    """
    from kubewright.model.config.examples import reset_example

    _print(reset_example(_version(kubernetes_version)), (), "v1beta4")


@print_.command("upgrade-defaults")
@_VERSION
@no_kubeconfig
def upgrade_defaults(kubernetes_version: str | None) -> None:
    """Print what `upgrade` does by default.

    It is an UpgradeConfiguration, which v1beta4 alone has.
    """
    from kubewright.model.config.examples import upgrade_example

    _print(upgrade_example(_version(kubernetes_version)), (), "v1beta4")


@click.command(
    epilog="""\b
Examples:
  kubewright config validate --config kubeadm.yaml
  kubewright config print init-defaults | kubewright config validate --config -"""
)
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path, allow_dash=True),
    required=True,
    metavar="FILE",
    help="kubeadm's configuration; '-' reads standard input.",
)
@_EXPERIMENTAL
@no_kubeconfig
def validate(file: Path, allow_experimental_api: bool) -> None:
    """Say whether a configuration file of kubeadm's can be used, and else everything that is wrong with it.

    Unknown and doubled fields are mistakes. The exit code tells the first mistake's kind.
    """
    from kubewright.cli.config_file import read_config
    from kubewright.model.config.documents import not_read_by

    documents = read_config(file)
    if why := not_read_by(documents):
        _warn(f"{why}; Kubewright does")
    click.echo("ok")


@click.command(
    epilog="""\b
Examples:
  kubewright config migrate --old-config old.yaml --new-config new.yaml
  kubewright config migrate --old-config new.yaml --api-version v1beta2"""
)
@click.option(
    "--old-config",
    type=click.Path(path_type=Path, allow_dash=True),
    required=True,
    metavar="FILE",
    help="The file to convert; '-' reads standard input.",
)
@click.option(
    "--new-config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write the result, for nobody else to read; default: standard output.",
)
@click.option(
    "--api-version",
    type=click.Choice(["v1beta2", "v1beta3", "v1beta4"]),
    help="kubeadm's API version to write; default: the one that the file's Kubernetes version stores, or v1beta4.",
)
@_EXPERIMENTAL
@no_kubeconfig
def migrate(
    old_config: Path, new_config: Path | None, api_version: str | None, allow_experimental_api: bool
) -> None:
    """Convert a configuration file to another of kubeadm's API versions, in either direction.

    All defaults are written out but those that depend on the host, such as the node's name. Nothing gets lost:
    what the other API version cannot say is an error.
    """
    from kubewright.cli.config_file import read_config
    from kubewright.model.config.api_versions import GROUP, V1BETA4
    from kubewright.model.config.conversion import refuse_loss
    from kubewright.model.config.documents import write_documents

    documents = read_config(old_config, option="--old-config")
    cluster = documents.cluster
    said = cluster is not None and "kubernetes_version" in cluster.model_fields_set
    target = f"{GROUP}/{api_version}" if api_version else ""
    target = target or (documents.facts.kubeadm_api_versions[0] if said else V1BETA4)
    refuse_loss(documents, target, str(old_config))
    text = write_documents(documents, target)
    if new_config is None:
        click.echo(text, nl=False)
    else:
        _write(new_config, text)


def _version(said: str | None) -> str:
    from kubewright.model.config.documents import DEFAULT_VERSION
    from kubewright.model.versions import facts_for

    return str(facts_for(said or DEFAULT_VERSION, field="--kubernetes-version").version)


def _host_name() -> str:
    import socket

    return socket.gethostname().strip().lower()


def _print(documents: Any, component_configs: tuple[str, ...], api_version: str | None) -> None:
    from kubewright.model.config.api_versions import GROUP
    from kubewright.model.config.documents import to_stream, write_documents

    target = f"{GROUP}/{api_version}" if api_version else documents.facts.kubeadm_api_versions[0]
    texts = [write_documents(documents.without_cluster() if documents.join else documents, target)]
    texts += [to_stream([_component(kind, documents.cluster)]) for kind in component_configs]
    click.echo("---\n".join(texts), nl=False)


def _component(kind: str, cluster: ClusterConfiguration) -> dict[str, Any]:
    from kubewright.model.config.components import kube_proxy_document, kubelet_document

    if kind == "KubeletConfiguration":
        return kubelet_document({}, cluster)
    if kind == "KubeProxyConfiguration":
        return kube_proxy_document({}, cluster)
    raise ConfigError(
        f"--component-configs: {kind!r} is neither KubeletConfiguration nor KubeProxyConfiguration",
        exit_code=ExitCode.USAGE,
    )


def _write(path: Path, text: str) -> None:
    """Write a file whole, or leave the old one; a token in it is for its owner's eyes."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ConfigError(f"--new-config: {path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise ConfigError(f"--new-config: {path} cannot be written: {error.strerror}") from None


def _warn(text: str) -> None:
    click.echo(f"warning: {text}", err=True)
