"""Open one SSH connection: reach the host, verify its key, log in; each way to fail is an error of its own."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shlex
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from kubewright.errors import ExitCode, HostError

DEFAULT_PORT = 22
_LOGIN_TIMEOUT = 30.0
_ATTEMPTS = 3
_USUAL_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk")
_SYSTEM_KNOWN_HOSTS = Path("/etc/ssh/ssh_known_hosts")

# AES-GCM first: with the processor's AES instructions it is the fastest (bench/ssh_upload.py).
_CIPHERS = (
    "aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr",
    "aes256-ctr",
)  # fmt: skip
_HOST_KEY_ALGORITHMS = (
    "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512",
    "rsa-sha2-256",
)  # fmt: skip

# What goes wrong is said by our errors; asyncssh's own log would only repeat it in other words.
logging.getLogger("asyncssh").setLevel(logging.CRITICAL)

Connection = asyncssh.SSHClientConnection


@dataclass(frozen=True, slots=True)
class Target:
    """One sshd, and how to log in to it. `name` is what users call the host; paths are absolute."""

    name: str
    address: str
    port: int
    user: str
    key_files: tuple[Path, ...]
    """Without any, the agent and the usual files under `~/.ssh` are tried."""
    known_hosts: Path | None
    """None: `~/.ssh/known_hosts`, and the system's."""

    @property
    def where(self) -> str:
        """Address and port as they stand in messages."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def known_hosts_file(self) -> Path:
        """The file that messages name: the one to which a user adds keys."""
        return self.known_hosts or Path("~/.ssh/known_hosts").expanduser()


class _Client(asyncssh.SSHClient):
    """Remembers a host key that was not in the list of known ones."""

    def __init__(self) -> None:
        self.stranger: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.stranger = key
        return False


@dataclass(frozen=True, slots=True)
class _KnownKeys:
    """What known_hosts says of one host. `of_port`: whether an entry names this very port."""

    keys: Sequence[asyncssh.SSHKey]
    authorities: Sequence[asyncssh.SSHKey]
    revoked: Sequence[asyncssh.SSHKey]
    of_port: bool


async def log_in(target: Target, *, jump: Connection | None, jump_name: str, timeout: float) -> Connection:
    """A connection on which commands can be run. `timeout` is for reaching the port, in seconds.

    Raises `HostError`: HOST_UNREACHABLE, HOST_KEY_MISMATCH or HOST_AUTH_REFUSED.
    """
    keys, tried = _client_keys(target)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return await _log_in_once(target, keys, tried, jump, jump_name, timeout)
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
    keys: Sequence[Any],
    tried: Sequence[str],
    jump: Connection | None,
    jump_name: str,
    timeout: float,
) -> Connection:
    sock: socket.socket | None = None
    if jump is None:
        sock = await _reach(target, timeout)
    peer = sock.getpeername()[0] if sock is not None else ""
    known = _known_keys(target, peer)
    client = _Client()
    options: dict[str, Any] = {"sock": sock} if sock is not None else {"tunnel": jump}
    try:
        async with asyncio.timeout(_LOGIN_TIMEOUT), _closed_on_failure(sock):
            return await asyncssh.connect(
                target.address, target.port, username=target.user, client_factory=lambda: client,
                known_hosts=(known.keys, known.authorities, known.revoked, [], [], [], []),
                server_host_key_algs=_algorithms(known), client_keys=keys,
                agent_path=None if target.key_files else os.environ.get("SSH_AUTH_SOCK"),
                preferred_auth="publickey", gss_host=None, config=None, encryption_algs=_CIPHERS,
                compression_algs=None, keepalive_interval=10, keepalive_count_max=3, login_timeout=None,
                connect_timeout=None, **options,
            )  # fmt: skip
    except TimeoutError:
        raise _unreachable(
            target, f"accepted the connection, but no SSH login was possible within {_LOGIN_TIMEOUT:g} s",
            "is it an SSH server that listens there? is the host overloaded?",
        ) from None  # fmt: skip
    except asyncssh.HostKeyNotVerifiable as error:
        raise _bad_host_key(target, client.stranger, known, jump_name, error) from None
    except asyncssh.ChannelOpenError as error:
        raise _unreachable(
            target, f"could not be reached from the jump host {jump_name}: {error.reason}",
            "is the address right as the jump host sees it, and does it allow forwarding?",
        ) from None  # fmt: skip
    except asyncssh.PermissionDenied:
        raise _refused(target, tried) from None
    except asyncssh.ConnectionLost as error:
        raise _DroppedError(str(error)) from None
    except asyncssh.DisconnectError as error:
        if "authentication failures" in str(error):
            raise _refused(target, tried) from None
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
            "correct the host's `address`, or make its name known (DNS, /etc/hosts)",
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
            "is sshd running there, and is `ssh.port` right?",
        )  # fmt: skip
    # The kernel's own ETIMEDOUT is a TimeoutError too.
    if isinstance(failure, TimeoutError):
        raise _unreachable(
            target, f"did not answer at {target.where} within {timeout:g} s",
            "is the host up, is its `address` right, and does no firewall drop the port?",
        )  # fmt: skip
    if failure.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        raise _unreachable(
            target, f"cannot be reached: no route to {target.address}",
            "is the host up, and does this computer have a route to its network?",
        )  # fmt: skip
    raise _unreachable(target, f"cannot be reached at {target.where}: {failure.strerror}", "")


def _unreachable(target: Target, what: str, hint: str) -> HostError:
    return HostError(f"{target.name} {what}", hint=hint, host=target.name)


# -- host keys ------------------------------------------------------------------------------------------------


def _known_keys(target: Target, peer: str) -> _KnownKeys:
    """The keys that known_hosts has for a host, by its name or its address, looked up as ssh(1) does."""
    files = [target.known_hosts_file] + ([] if target.known_hosts else [_SYSTEM_KNOWN_HOSTS])
    text = ""
    for file in files:
        with suppress(FileNotFoundError):
            try:
                text += file.read_text(errors="replace") + "\n"
            except PermissionError:
                raise HostError(
                    f"{file} cannot be read", host=target.name, exit_code=ExitCode.HOST_KEY_MISMATCH
                ) from None
    try:
        known = asyncssh.import_known_hosts(text)
    except ValueError as error:
        raise HostError(
            f"{files[0]}: {error}", hint="correct or remove that line", host=target.name,
            exit_code=ExitCode.HOST_KEY_MISMATCH,
        ) from None  # fmt: skip
    if target.port == DEFAULT_PORT:
        found = known.match(target.address, peer, None)
        return _KnownKeys(found[0], found[1], found[2], bool(found[0]))
    # An entry without a port counts for every port, but only one with the port can be called outdated.
    found = known.match(target.address, peer, target.port)
    exact = known.match(f"[{target.address}]:{target.port}", "", None)[0]
    return _KnownKeys(found[0], found[1], found[2], bool(exact))


def _algorithms(known: _KnownKeys) -> list[str]:
    """Host key algorithms: those of the known keys first, or a server would show a key that we do not know."""
    own = [alg.decode() for key in known.keys for alg in key.sig_algorithms]
    wanted = dict.fromkeys([*(alg for alg in own if alg in _HOST_KEY_ALGORITHMS), *_HOST_KEY_ALGORITHMS])
    plain = list(wanted)
    if known.authorities:
        return [
            *(f"{alg}-cert-v01@openssh.com" for alg in _HOST_KEY_ALGORITHMS if alg not in own),
            *plain,
        ]
    return plain


def _bad_host_key(
    target: Target, key: asyncssh.SSHKey | None, known: _KnownKeys, jump_name: str, error: Exception
) -> HostError:
    file = target.known_hosts_file
    entry = target.address if target.port == DEFAULT_PORT else f"[{target.address}]:{target.port}"
    if jump_name:
        add = f"ssh -J {jump_name} -o UserKnownHostsFile={shlex.quote(str(file))} -p {target.port}"
        add += f" {target.user}@{target.address} true"
    else:
        port = "" if target.port == DEFAULT_PORT else f"-p {target.port} "
        add = f"ssh-keyscan {port}{target.address} >>{shlex.quote(str(file))}"
    if key is None:
        what = f"the host key of {target.name} ({target.where}) is not valid: {error}"
        hint = f"see the entries for {entry} in {file}"
        return HostError(what, hint=hint, host=target.name, exit_code=ExitCode.HOST_KEY_MISMATCH)
    shown = f"{key.get_algorithm()} {key.get_fingerprint()}"
    if known.of_port:
        what = f"the host key of {target.name} ({target.where}) has changed: it is {shown}, and {file} has another"
        hint = (
            "if you know why (the host was installed anew), remove the old key and take the new one: "
            f"ssh-keygen -f {shlex.quote(str(file))} -R {shlex.quote(entry)} && {add}"
        )
        evidence = [f"{file} has {old.get_algorithm()} {old.get_fingerprint()}" for old in known.keys]
    else:
        what = (
            f"the host key of {target.name} ({target.where}) is unknown: it is {shown}, and is not in {file}"
        )
        hint = (
            f"compare it with `ssh-keygen -lf` of /etc/ssh/ssh_host_*_key.pub on the host, then add it: {add}"
        )
        evidence = []
    return HostError(
        what, hint=hint, host=target.name, evidence=evidence, exit_code=ExitCode.HOST_KEY_MISMATCH
    )


# -- our keys -------------------------------------------------------------------------------------------------


def _client_keys(target: Target) -> tuple[list[asyncssh.SSHKeyPair], list[str]]:
    """The key pairs to offer, and how they are called in an error message."""
    pairs: list[asyncssh.SSHKeyPair] = []
    tried: list[str] = []
    for file in target.key_files:
        try:
            loaded = asyncssh.load_keypairs([str(file)])
        except asyncssh.KeyEncryptionError:
            raise _unusable_key(
                target, file, "is protected by a passphrase",
                f"load it into ssh-agent (ssh-add {shlex.quote(str(file))}) and leave `keyFiles` out",
            ) from None  # fmt: skip
        except OSError as error:
            raise _unusable_key(
                target, file, f"cannot be read: {error.strerror}", "correct `ssh.keyFiles`"
            ) from None
        except (asyncssh.KeyImportError, ValueError) as error:
            raise _unusable_key(
                target, file, f"is not a private key: {error}", "correct `ssh.keyFiles`"
            ) from None
        pairs += loaded
        tried.append(str(file))
    if target.key_files:
        return pairs, tried
    if os.environ.get("SSH_AUTH_SOCK"):
        tried.append("the agent's keys")
    for name in _USUAL_KEYS:
        file = Path("~/.ssh").expanduser() / name
        # The usual files are a guess: one that is absent, encrypted or of another kind is passed over.
        with suppress(OSError, ValueError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError):
            pairs += asyncssh.load_keypairs([str(file)])
            tried.append(str(file))
    return pairs, tried


def _unusable_key(target: Target, file: Path, what: str, hint: str) -> HostError:
    return HostError(
        f"the key file {file} for {target.name} {what}", hint=hint, host=target.name,
        exit_code=ExitCode.HOST_AUTH_REFUSED,
    )  # fmt: skip


def _refused(target: Target, tried: Sequence[str]) -> HostError:
    return HostError(
        f"{target.name} ({target.where}) refuses the login of {target.user!r}; "
        + (f"tried: {', '.join(tried)}" if tried else "there was no key to try"),
        hint=(
            f"add the public key to ~{target.user}/.ssh/authorized_keys there, or set `ssh.user` and "
            "`ssh.keyFiles`; for root, sshd must allow it (PermitRootLogin prohibit-password)"
        ),
        host=target.name, exit_code=ExitCode.HOST_AUTH_REFUSED,
    )  # fmt: skip
