"""`kubewright alpha`: the names that kubeadm 1.20 has for `certs` and `kubeconfig`, for scripts that use them."""

from __future__ import annotations

import click

from kubewright.cli.certs import certs
from kubewright.cli.kubeconfig import kubeconfig


@click.group()
def alpha() -> None:
    """Names that certs and kubeconfig had in kubeadm 1.20."""


alpha.add_command(certs)
alpha.add_command(kubeconfig)
