"""From a host's description in `cluster.yaml` to the host itself."""

from __future__ import annotations

import getpass
import re
from pathlib import Path

from kubewright.errors import ConfigError
from kubewright.hosts.host import Host
from kubewright.model.config.cluster import HostSpec, SshSpec

LOCAL = "local"
_JUMP = re.compile(r"(?:(?P<user>[^@]+)@)?(?:\[(?P<six>[^]]+)\]|(?P<host>[^:@]+))(?::(?P<port>\d{1,5}))?")


def open_host(spec: HostSpec, defaults: SshSpec) -> Host:
    """The host that `spec` describes, with what its own `ssh` leaves out taken from `defaults`.

    Nothing is connected yet: the first use does that. Without a user it is ours, as with ssh(1). Relative paths
    have been resolved by whoever read the file. Raises `ConfigError` for a jump host that cannot be read.
    """
    if spec.address == LOCAL:
        from kubewright.hosts.local import LocalHost

        return LocalHost(spec.name)
    from kubewright.hosts.ssh import SshHost
    from kubewright.hosts.ssh_keys import Target

    own = spec.ssh
    user = own.user or defaults.user or getpass.getuser()
    files = own.key_files if own.key_files is not None else defaults.key_files or []
    key_files = tuple(Path(file).expanduser() for file in files)
    known = own.known_hosts or defaults.known_hosts
    known_hosts = Path(known).expanduser() if known else None
    jump = None
    if wanted := own.jump if own.jump is not None else defaults.jump:
        jump_user, address, port = parse_jump(wanted, f"hosts[{spec.name}].ssh.jump")
        jump = Target(f"jump host {address}", address, port or 22, jump_user or user, key_files, known_hosts)
    return SshHost(
        spec.name, spec.address, user=user, port=own.port or defaults.port or 22, key_files=key_files,
        known_hosts=known_hosts, jump=jump,
    )  # fmt: skip


def parse_jump(text: str, field: str) -> tuple[str | None, str, int | None]:
    """User, address and port out of `[user@]host[:port]`; an IPv6 address with a port stands in brackets."""
    match = _JUMP.fullmatch(text)
    if match is None and text.count(":") > 1 and "@" not in text and "[" not in text:
        return None, text, None  # a bare IPv6 address
    if match is None or (match["port"] and not 0 < int(match["port"]) < 65536):
        raise ConfigError(f"{field}: {text!r} is not [user@]host[:port]")
    return match["user"], match["six"] or match["host"], int(match["port"]) if match["port"] else None
