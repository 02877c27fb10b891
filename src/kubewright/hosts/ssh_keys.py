"""Keys of SSH: which sshd we are to reach, what known_hosts says of it, and the keys that we log in with."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from kubewright.errors import ExitCode, HostError

DEFAULT_PORT = 22
_USUAL_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk")
_SYSTEM_KNOWN_HOSTS = Path("/etc/ssh/ssh_known_hosts")
_HOST_KEY_ALGORITHMS = (
    "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512",
    "rsa-sha2-256",
)  # fmt: skip


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


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """What known_hosts says of one host."""

    keys: Sequence[asyncssh.SSHKey]
    authorities: Sequence[asyncssh.SSHKey]
    revoked: Sequence[asyncssh.SSHKey]
    of_port: bool
    """Whether an entry names this very port."""


# -- host keys ------------------------------------------------------------------------------------------------


def known_keys(target: Target, peer: str) -> KnownKeys:
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
        return KnownKeys(found[0], found[1], found[2], bool(found[0]))
    # An entry without a port counts for every port, but only one with the port can be called outdated.
    found = known.match(target.address, peer, target.port)
    exact = known.match(f"[{target.address}]:{target.port}", "", None)[0]
    return KnownKeys(found[0], found[1], found[2], bool(exact))


def algorithms(known: KnownKeys) -> list[str]:
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


def bad_host_key(
    target: Target, key: asyncssh.SSHKey | None, known: KnownKeys, jump_name: str, error: Exception
) -> HostError:
    """The error for a host key that is unknown or another one than before, with the commands that mend it."""
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


def client_keys(target: Target) -> tuple[list[asyncssh.SSHKeyPair], list[str]]:
    """The key pairs to offer, and how they are called in an error message."""
    pairs: list[asyncssh.SSHKeyPair] = []
    tried: list[str] = []
    for file in target.key_files:
        try:
            loaded = asyncssh.load_keypairs([str(file)])
        except OSError as error:
            raise _unusable_key(
                target,
                file,
                f"cannot be read: {error.strerror}",
                "name another in `ssh.keyFiles`, or with --ssh-key",
            ) from None
        except (asyncssh.KeyEncryptionError, ValueError) as error:
            if "passphrase" in str(error).lower() or isinstance(error, asyncssh.KeyEncryptionError):
                raise _unusable_key(
                    target, file, "is protected by a passphrase",
                    f"load it into ssh-agent (ssh-add {shlex.quote(str(file))}) and leave `ssh.keyFiles` "
                    "or --ssh-key out",
                ) from None  # fmt: skip
            raise _unusable_key(
                target,
                file,
                f"is not a private key: {error}",
                "name another in `ssh.keyFiles`, or with --ssh-key",
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
        with suppress(OSError, ValueError, asyncssh.KeyEncryptionError):
            pairs += asyncssh.load_keypairs([str(file)])
            tried.append(str(file))
    return pairs, tried


def _unusable_key(target: Target, file: Path, what: str, hint: str) -> HostError:
    return HostError(
        f"the key file {file} for {target.name} {what}", hint=hint, host=target.name,
        exit_code=ExitCode.HOST_AUTH_REFUSED,
    )  # fmt: skip


def login_refused(target: Target, tried: Sequence[str]) -> HostError:
    """The error for a login that no key opened."""
    return HostError(
        f"{target.name} ({target.where}) refuses the login of {target.user!r}; "
        + (f"tried: {', '.join(tried)}" if tried else "there was no key to try"),
        hint=(
            f"add the public key to ~{target.user}/.ssh/authorized_keys there, or name another user or key "
            "(`ssh.user` and `ssh.keyFiles`, or --host USER@ADDRESS and --ssh-key); for root, sshd must allow "
            "it (PermitRootLogin prohibit-password)"
        ),
        host=target.name, exit_code=ExitCode.HOST_AUTH_REFUSED,
    )  # fmt: skip
