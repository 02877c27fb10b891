"""From a host's description in `cluster.yaml` to the host itself."""

from __future__ import annotations

import getpass
from pathlib import Path

from kubewright.hosts.host import Host
from kubewright.model.config.cluster import HostSpec, SshSpec
from kubewright.model.node import split_endpoint

LOCAL = "local"


def open_host(spec: HostSpec, defaults: SshSpec) -> Host:
    """The host that `spec` describes, with what its own `ssh` leaves out taken from `defaults`.

    Nothing is connected yet: the first use does that. Without a user it is ours, as with ssh(1). Relative paths
    have been resolved by whoever read the file.
    """
    if spec.address == LOCAL:
        from kubewright.hosts.local import LocalHost

        return LocalHost(spec.name)
    from kubewright.hosts.ssh import SshHost
    from kubewright.hosts.ssh_keys import DEFAULT_PORT, Target

    own = spec.ssh
    user = own.user or defaults.user or getpass.getuser()
    files = own.key_files if own.key_files is not None else defaults.key_files or []
    key_files = tuple(Path(file).expanduser() for file in files)
    known = own.known_hosts or defaults.known_hosts
    known_hosts = Path(known).expanduser() if known else None
    jump = None
    if wanted := own.jump or defaults.jump:
        jump_user, _, where = wanted.rpartition("@")
        address, port = split_endpoint(where, DEFAULT_PORT)
        jump = Target(f"jump host {address}", address, port, jump_user or user, key_files, known_hosts)
    return SshHost(
        spec.name, spec.address, user=user, port=own.port or defaults.port or DEFAULT_PORT,
        key_files=key_files, known_hosts=known_hosts, jump=jump,
    )  # fmt: skip
