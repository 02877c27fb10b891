"""A real sshd on a high port of 127.0.0.1, with users and keys of its own, that changes nothing on this computer.

It runs in a private mount namespace, in which overlays on /usr and /etc add the packages that are not installed
here and the users that the tests need. All of it is gone when sshd ends.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import time
from pathlib import Path

import asyncssh
from tests.free_ports import free_port

PACKAGES = {
    "openssh-server": "/usr/sbin/sshd",
    "libwrap0": "/usr/lib/*/libwrap.so.0",
    "sudo": "/usr/bin/sudo",
}
USERS = {"root": 0, "sudoer": 47001, "plain": 47002}
_NO_LOGIN = 47000


class World:
    """The overlays' upper parts, made once for all of the sshds of a test run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "usr").mkdir(parents=True)
        (folder / "etc" / "sudoers.d").mkdir(parents=True)
        self._packages()
        self._users()

    def _packages(self) -> None:
        for name, pattern in PACKAGES.items():
            if any(Path("/").glob(pattern.lstrip("/"))):
                continue
            subprocess.run(
                ["apt-get", "download", "-q", name], cwd=self.folder, check=True, capture_output=True
            )
            for package in self.folder.glob(f"{name}_*.deb"):
                subprocess.run(["dpkg-deb", "--extract", str(package), str(self.folder)], check=True)
        # Debian's packages before usrmerge have /lib of their own.
        if (self.folder / "lib").is_dir():
            shutil.copytree(self.folder / "lib", self.folder / "usr" / "lib", dirs_exist_ok=True)

    def _users(self) -> None:
        etc = self.folder / "etc"
        passwd = [
            line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith("root:")
        ]
        if not any(line.startswith("sshd:") for line in passwd):
            passwd.append(f"sshd:x:{_NO_LOGIN}:65534::/run/sshd:/usr/sbin/nologin")
        shadow = [
            line for line in Path("/etc/shadow").read_text().splitlines() if not line.startswith("root:")
        ]
        for name, uid in USERS.items():
            home = "/root" if uid == 0 else "/nonexistent"
            passwd.append(f"{name}:x:{uid}:{uid if uid == 0 else 65534}::{home}:/bin/sh")
            shadow.append(f"{name}:*:19000:0:99999:7:::")
        (etc / "passwd").write_text("\n".join(passwd) + "\n")
        (etc / "shadow").write_text("\n".join(shadow) + "\n")
        (etc / "shadow").chmod(0o600)
        (etc / "sudoers").unlink(missing_ok=True)
        (etc / "sudoers").write_text("root ALL=(ALL) ALL\nsudoer ALL=(ALL) NOPASSWD: ALL\n")
        (etc / "sudoers").chmod(0o440)


class Sshd:
    """One sshd. `key` logs in as any of `USERS`."""

    def __init__(self, world: World, folder: Path, *settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        self.folder = folder
        self.world = world
        self.port = free_port()
        self.key = folder / "client_key"
        self.known_hosts = folder / "known_hosts"
        if not self.key.exists():
            write_key(self.key)
            shutil.copy(f"{self.key}.pub", folder / "authorized_keys")
            (folder / "authorized_keys").chmod(0o644)
        self.host_key = folder / "host_key"
        write_key(self.host_key)
        self._config = folder / "sshd_config"
        lines = [
            f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {self.host_key}", "StrictModes no",
            f"AuthorizedKeysFile {folder}/authorized_keys", "UsePAM no", "PidFile none", "UseDNS no",
            "PermitRootLogin prohibit-password", "PasswordAuthentication no", "MaxStartups 100", *settings,
        ]  # fmt: skip
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Sshd:
        self.start()
        self.trust()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        upper = self.world.folder
        script = " && ".join(
            [
                f"mount -t overlay overlay -o lowerdir={shlex.quote(str(upper))}/usr:/usr /usr",
                f"mount -t overlay overlay -o lowerdir={shlex.quote(str(upper))}/etc:/etc /etc",
                "mount -t tmpfs -o mode=755 tmpfs /run",
                "mkdir /run/sshd",
                f"exec /usr/sbin/sshd -D -e -f {shlex.quote(str(self._config))}",
            ]
        )
        log = (self.folder / "log").open("wb")
        self._process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                probe.recv(4)
                break
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"sshd does not start: {(self.folder / 'log').read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it; connections that are open end with their clients."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def trust(self) -> None:
        """Write the host key into known_hosts."""
        public = Path(f"{self.host_key}.pub").read_text()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}")

    def change_host_key(self) -> None:
        """Give it another host key, as after a new installation."""
        self.stop()
        write_key(self.host_key)
        self.start()


def write_key(path: Path) -> None:
    """A fresh key pair in `path` and `path`.pub."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key.export_private_key())
    Path(f"{path}.pub").write_bytes(key.export_public_key())
