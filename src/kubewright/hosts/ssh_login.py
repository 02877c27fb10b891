"""Open one SSH connection: reach the host, verify its key, log in; each way to fail is an error of its own."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncssh

from kubewright.errors import HostError
from kubewright.hosts.ssh_keys import (
    Target,
    algorithms,
    bad_host_key,
    client_keys,
    known_keys,
    login_refused,
)

_LOGIN_TIMEOUT = 30.0
_ATTEMPTS = 3

# AES-GCM first: with the processor's AES instructions it is the fastest (bench/ssh_upload.py).
CIPHERS: tuple[str, ...] = (
    "aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr",
    "aes256-ctr",
)  # fmt: skip

# What goes wrong is said by our errors; asyncssh's own log would only repeat it in other words.
logging.getLogger("asyncssh").setLevel(logging.CRITICAL)

Connection = asyncssh.SSHClientConnection


class _Client(asyncssh.SSHClient):
    """Remembers a host key that was not in the list of known ones."""

    def __init__(self) -> None:
        self.stranger: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.stranger = key
        return False


async def log_in(target: Target, *, jump: Connection | None, jump_name: str, timeout: float) -> Connection:
    """A connection on which commands can be run. `timeout` is for reaching the port, in seconds.

    Raises `HostError`: HOST_UNREACHABLE, HOST_KEY_MISMATCH or HOST_AUTH_REFUSED.
    """
    pairs, tried = client_keys(target)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return await _log_in_once(target, pairs, tried, jump, jump_name, timeout)
        except _DroppedError as dropped:
            # sshd drops connections at random once too many are logging in (MaxStartups): one is worth a retry.
            if attempt == _ATTEMPTS:
                raise _unreachable(
                    target, f"closed the connection before login: {dropped}",
                    "is it an SSH server that listens there, and is it ready for logins? its log says why",
                ) from None  # fmt: skip
            await asyncio.sleep(0.3 * attempt)
    raise AssertionError("unreachable")


class _DroppedError(Exception):
    """The server closed the connection before login."""


async def _log_in_once(
    target: Target,
    pairs: Sequence[asyncssh.SSHKeyPair],
    tried: Sequence[str],
    jump: Connection | None,
    jump_name: str,
    timeout: float,
) -> Connection:
    sock: socket.socket | None = None
    if jump is None:
        sock = await _reach(target, timeout)
    peer = sock.getpeername()[0] if sock is not None else ""
    known = known_keys(target, peer)
    client = _Client()
    options: dict[str, Any] = {"sock": sock} if sock is not None else {"tunnel": jump}
    try:
        async with asyncio.timeout(_LOGIN_TIMEOUT), _closed_on_failure(sock):
            return await asyncssh.connect(
                target.address, target.port, username=target.user, client_factory=lambda: client,
                known_hosts=(known.keys, known.authorities, known.revoked, [], [], [], []),
                server_host_key_algs=algorithms(known), client_keys=pairs,
                agent_path=None if target.key_files else os.environ.get("SSH_AUTH_SOCK"),
                preferred_auth="publickey", gss_host=None, config=None, encryption_algs=CIPHERS,
                compression_algs=None, keepalive_interval=10, keepalive_count_max=3, login_timeout=None,
                connect_timeout=None, **options,
            )  # fmt: skip
    except TimeoutError:
        raise _unreachable(
            target, f"accepted the connection, but no SSH login was possible within {_LOGIN_TIMEOUT:g} s",
            "is it an SSH server that listens there? is the host overloaded?",
        ) from None  # fmt: skip
    except asyncssh.HostKeyNotVerifiable as error:
        raise bad_host_key(target, client.stranger, known, jump_name, error) from None
    except asyncssh.ChannelOpenError as error:
        raise _unreachable(
            target, f"could not be reached from the jump host {jump_name}: {error.reason}",
            "is the address right as the jump host sees it, and does it allow forwarding?",
        ) from None  # fmt: skip
    except asyncssh.PermissionDenied:
        raise login_refused(target, tried) from None
    except asyncssh.ConnectionLost as error:
        raise _DroppedError(str(error)) from None
    except asyncssh.DisconnectError as error:
        if "authentication failures" in str(error):
            raise login_refused(target, tried) from None
        raise _unreachable(target, f"could not agree on an SSH connection: {error}", "") from None
    except OSError as error:
        raise _DroppedError(error.strerror or str(error)) from None


@asynccontextmanager
async def _closed_on_failure(sock: socket.socket | None) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        if sock is not None:
            sock.close()
        raise


# -- reaching the port ----------------------------------------------------------------------------------------


async def _reach(target: Target, timeout: float) -> socket.socket:
    """A TCP connection to the first of the host's addresses that answers."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            found = await loop.getaddrinfo(target.address, target.port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        why = getattr(error, "strerror", None) or "no answer"
        raise _unreachable(
            target, f"has an address that does not resolve: {target.address} ({why})",
            "correct the host's address, or make its name known (DNS, /etc/hosts)",
        ) from None  # fmt: skip
    failure: OSError | TimeoutError = TimeoutError()
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
        try:
            async with asyncio.timeout(timeout / len(found)):
                await loop.sock_connect(sock, address)
            return sock
        except (OSError, TimeoutError) as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    if isinstance(failure, ConnectionRefusedError):
        raise _unreachable(
            target, f"refused the connection to {target.where}",
            "is sshd running there, and is the port right (`ssh.port`, or --host ADDRESS:PORT)?",
        )  # fmt: skip
    # The kernel's own ETIMEDOUT is a TimeoutError too.
    if isinstance(failure, TimeoutError):
        raise _unreachable(
            target, f"did not answer at {target.where} within {timeout:g} s",
            "is the host up, is its address right, and does no firewall drop the port?",
        )  # fmt: skip
    if failure.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        raise _unreachable(
            target, f"cannot be reached: no route to {target.address}",
            "is the host up, and does this computer have a route to its network?",
        )  # fmt: skip
    raise _unreachable(target, f"cannot be reached at {target.where}: {failure.strerror}", "")


def _unreachable(target: Target, what: str, hint: str) -> HostError:
    return HostError(f"{target.name} {what}", hint=hint, host=target.name)
