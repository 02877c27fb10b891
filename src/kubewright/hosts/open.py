"""From a host's description in `cluster.yaml` to the host itself."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kubewright.hosts.host import Host
from kubewright.model.node import split_endpoint

if TYPE_CHECKING:
    from kubewright.model.config.cluster import HostSpec, SshSpec

LOCAL = "local"


def open_host(spec: HostSpec, defaults: SshSpec) -> Host:
    """The host that `spec` describes, with what its own `ssh` leaves out taken from `defaults`.

    Nothing is connected yet: the first use does that. Without a user it is ours, as with ssh(1). Relative paths
    have been resolved by whoever read the file.
    """
    own = spec.ssh
    files = own.key_files if own.key_files is not None else defaults.key_files or []
    return open_at(
        spec.name, spec.address, user=own.user or defaults.user or "", port=own.port or defaults.port or 0,
        key_files=files, known_hosts=own.known_hosts or defaults.known_hosts or "",
        jump=own.jump or defaults.jump or "",
    )  # fmt: skip


def open_at(
    name: str,
    address: str,
    *,
    user: str = "",
    port: int = 0,
    key_files: Sequence[str] = (),
    known_hosts: str = "",
    jump: str = "",
) -> Host:
    """The host at an address, or this computer where that is `LOCAL`; what is empty is as with ssh(1).

    `jump` is `[user@]address[:port]`. Like `open_host`, without cluster.yaml's types, which take time to load.
    """
    if address == LOCAL:
        from kubewright.hosts.local import LocalHost

        return LocalHost(name)
    with _no_search_for_liboqs():
        from kubewright.hosts.ssh import SshHost
        from kubewright.hosts.ssh_keys import DEFAULT_PORT, Target

    user = user or getpass.getuser()
    keys = tuple(Path(file).expanduser() for file in key_files)
    known = Path(known_hosts).expanduser() if known_hosts else None
    through = None
    if jump:
        jump_user, _, where = jump.rpartition("@")
        jump_address, jump_port = split_endpoint(where, DEFAULT_PORT)
        through = Target(f"jump host {jump_address}", jump_address, jump_port, jump_user or user, keys, known)
    return SshHost(
        name, address, user=user, port=port or DEFAULT_PORT, key_files=keys, known_hosts=known, jump=through
    )


@contextmanager
def _no_search_for_liboqs() -> Iterator[None]:
    """Keep asyncssh from looking for a library of post-quantum key exchanges while it is imported.

    It asks the linker and the compiler, which takes 40 ms, for what the cryptography package has already.
    """
    import ctypes.util

    search = ctypes.util.find_library
    ctypes.util.find_library = lambda name: None if name.endswith("oqs") else search(name)
    try:
        yield
    finally:
        ctypes.util.find_library = search
