"""`SshHost` against a real sshd: every method, and every way to fail."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncssh
import pytest
from ssh_fixtures import Sshd, World, write_key
from tests.free_ports import free_port
from waiting import until

from kubewright.errors import CommandError, ExitCode, HostError, WaitTimeoutError
from kubewright.hosts import FileWrite
from kubewright.hosts.local import LocalHost
from kubewright.hosts.ssh import MAX_CHANNELS, SshHost
from kubewright.hosts.ssh_keys import Target
from kubewright.secret import Secret

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes mounts: root only"),
]

ODD = 'it\'s a "file"\nwith $(everything) * \\'


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    # Not pytest's folder, which is closed to the users that log in below.
    with tempfile.TemporaryDirectory(prefix="kubewright-test-") as folder:
        Path(folder).chmod(0o755)
        yield World(Path(folder))


@pytest.fixture(scope="module")
def shared(world: World) -> Iterator[Sshd]:
    with Sshd(world, world.folder / "shared") as sshd:
        yield sshd


def host_of(sshd: Sshd, user: str = "root", **changes: object) -> SshHost:
    options: dict[str, object] = {
        "port": sshd.port, "user": user, "key_files": [sshd.key], "known_hosts": sshd.known_hosts,
        "connect_timeout": 5.0,
    }  # fmt: skip
    return SshHost("web1", "127.0.0.1", **(options | changes))  # type: ignore[arg-type]


@pytest.fixture(params=["root", "sudoer"])
async def host(request: pytest.FixtureRequest, shared: Sshd) -> AsyncIterator[SshHost]:
    async with host_of(shared, request.param) as opened:
        assert isinstance(opened, SshHost)
        yield opened


async def error_of(host: SshHost) -> HostError:
    async with host:
        with pytest.raises(HostError) as caught:
            await host.run(["true"])
    assert caught.value.host
    return caught.value


# -- what works -----------------------------------------------------------------------------------------------


async def test_run_as_root(host: SshHost) -> None:
    done = await host.run(["sh", "-c", "id -u; cat; echo oops >&2; exit 3"], stdin=b"in", check=False)
    assert (done.exit_code, done.stdout, done.err) == (3, b"0\nin", "oops")
    assert (await host.run(["printf", "%s", ODD])).stdout == ODD.encode()
    assert (await host.run(["sh", "-c", "echo $A"], env={"A": "b c"})).text == "b c"
    assert (await host.run(["sh", "-c", "kill -9 $$"], check=False)).exit_code == 137
    assert (await host.run(["true"])).stderr == b""


async def test_a_failed_command_says_why_and_shows_no_input(host: SshHost) -> None:
    with pytest.raises(CommandError) as caught:
        await host.run(["sh", "-c", "cat >/dev/null; echo no >&2; exit 4"], stdin=Secret(b"hunter2"))
    assert caught.value.evidence == ("no",)
    assert "on web1 ended with exit code 4: no" in caught.value.message
    assert "hunter2" not in repr(vars(caught.value))
    with pytest.raises(CommandError, match="127"):
        await host.run(["no-such-program"])


async def test_the_administrators_folders_are_in_the_path(host: SshHost) -> None:
    assert "/usr/sbin" in (await host.run(["sh", "-c", "echo $PATH"])).text


async def test_a_timeout_kills_the_whole_group(host: SshHost, tmp_path: Path) -> None:
    script = 'sleep 300 & echo $! >"$1"; echo working on it; sleep 300'
    with pytest.raises(WaitTimeoutError, match="did not end within") as caught:
        await host.shell(script, str(tmp_path / "pid"), timeout=0.5)
    assert caught.value.evidence == ("working on it",)
    assert gone(int((tmp_path / "pid").read_text()))


async def test_cancelling_ends_the_command(host: SshHost, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    task = asyncio.create_task(host.shell('echo $$ >"$1"; exec sleep 300', str(pid)))
    await until(lambda: pid.exists() and pid.read_text(), "the command to start", 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gone(int(pid.read_text()))


async def test_output_is_bounded(host: SshHost) -> None:
    with pytest.raises(HostError, match="more than 64 MiB"):
        await host.run(["yes"])


async def test_files(host: SshHost, tmp_path: Path) -> None:
    folder = tmp_path / "new" / ODD
    files = [
        FileWrite(str(folder / "empty"), b""),
        FileWrite(str(folder / "secret"), Secret(os.urandom(3_000_000)), 0o600),
        FileWrite(str(folder / ODD), b"x", 0o755, "nobody", "nogroup"),
    ]
    await host.write_files(files)
    assert await host.read_files([*(file.path for file in files), str(folder / "none")]) == {
        file.path: file.data for file in files
    }
    stats = await host.stat_files([file.path for file in files])
    assert [(stat.mode, stat.owner) for stat in stats.values()] == [
        (0o644, "root"),
        (0o600, "root"),
        (0o755, "nobody"),
    ]
    assert stats[files[1].path].sha256 == hashlib.sha256(files[1].data).hexdigest()


async def test_upload_and_its_speed(host: SshHost, tmp_path: Path) -> None:
    local, remote = tmp_path / "local", tmp_path / "remote"
    data = os.urandom(1 << 20) * 64
    local.write_bytes(data)
    seen: list[tuple[int, int]] = []
    started = time.monotonic()
    await host.upload(
        local, str(remote), mode=0o755, sha256=hashlib.sha256(data).hexdigest(),
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    print(f"upload: {64 / (time.monotonic() - started):.0f} MiB/s")
    assert seen[-1] == (len(data), len(data))
    assert remote.stat().st_mode & 0o777 == 0o755
    assert hashlib.sha256(remote.read_bytes()).digest() == hashlib.sha256(data).digest()
    done = await host.run_with_file(["sha256sum"], local)
    assert done.text.split()[0] == hashlib.sha256(data).hexdigest()
    with pytest.raises(HostError, match="SHA-256"):
        await host.upload(local, str(tmp_path / "other"), sha256="0" * 64)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["local", "remote"]


async def test_a_cancelled_upload_leaves_nothing(host: SshHost, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with (tmp_path / "local").open("wb") as file:
        file.truncate(1 << 30)
    reached = asyncio.Event()
    task = asyncio.create_task(
        host.upload(tmp_path / "local", str(tmp_path / "there" / "x"), progress=lambda *_: reached.set())
    )
    await asyncio.wait_for(reached.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not list((tmp_path / "there").iterdir()), "the unfinished file to go", 5)


async def test_facts(host: SshHost) -> None:
    facts = await host.facts()
    assert facts.is_root
    assert facts.hostname == socket.gethostname()
    assert facts.cpus >= 1
    assert await host.facts() is facts


async def test_fifty_commands_at_once_take_one_connection(host: SshHost, tmp_path: Path) -> None:
    script = 'echo x >"$1/$2"; ls "$1" | wc -l; sleep 0.05; rm "$1/$2"; echo $PPID'
    done = await asyncio.gather(*(host.shell(script, str(tmp_path), str(n)) for n in range(50)))
    assert max(int(each.text.split()[0]) for each in done) <= MAX_CHANNELS
    assert len({id(host._connection)}) == 1


async def test_forward_tcp(host: SshHost) -> None:
    async with echo_server() as port, host.forward_tcp("127.0.0.1", port) as (address, local):
        replies = await asyncio.gather(*(exchange(address, local, b"%d" % n * 50_000) for n in range(12)))
        assert replies == [b"%d" % n * 50_000 for n in range(12)]


async def test_forward_tcp_to_a_port_that_opens_later(host: SshHost) -> None:
    port = free_port()
    async with host.forward_tcp("127.0.0.1", port) as (address, local):
        assert await exchange(address, local, b"early") == b""
        async with echo_server(port):
            assert await exchange(address, local, b"late") == b"late"


async def test_forward_unix_to_roots_socket(host: SshHost, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = await asyncio.start_unix_server(echo, path)
    path.chmod(0o600)
    async with server, host.forward_unix(str(path)) as local:
        assert local.parent.stat().st_mode & 0o777 == 0o700
        for number in range(6):
            reader, writer = await asyncio.open_unix_connection(local)
            writer.write(b"%d" % number * 100_000)
            writer.write_eof()
            assert await reader.read() == b"%d" % number * 100_000
            writer.close()
        assert (await host.run(["true"])).ok
    assert not local.parent.exists()


async def test_forward_unix_to_nothing(host: SshHost, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="none on web1"):
        async with host.forward_unix(str(tmp_path / "none")):
            pass


async def test_closing_twice(shared: Sshd) -> None:
    host = host_of(shared)
    await host.close()
    await host.run(["true"])
    await host.close()
    await host.close()


# -- connections that break -----------------------------------------------------------------------------------


async def test_it_connects_again_after_the_session_was_killed(shared: Sshd) -> None:
    async with (
        host_of(shared) as host,
        echo_server() as port,
        host.forward_tcp("127.0.0.1", port) as (address, local),
    ):
        for _ in range(3):
            # The parent of a session's shell is the sshd process of the connection.
            parent = int((await host.shell("exec sh -c 'echo $PPID'")).text)
            os.kill(parent, signal.SIGKILL)
            assert (await host.run(["echo", "back"])).text == "back"
            assert await exchange(address, local, b"tunnel") == b"tunnel"


async def test_a_connection_lost_while_a_command_runs(shared: Sshd) -> None:
    async with host_of(shared) as host:
        with pytest.raises(HostError, match="web1 was lost while a command ran") as caught:
            await host.shell("echo so far; kill -9 $PPID; sleep 5")
        assert caught.value.exit_code == ExitCode.HOST_UNREACHABLE
        assert (await host.run(["true"])).ok


async def test_an_upload_that_breaks_off_changes_nothing(shared: Sshd, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("old")
    with (tmp_path / "local").open("wb") as file:
        file.truncate(1 << 30)
    async with host_of(shared) as host:
        parent = int((await host.shell("exec sh -c 'echo $PPID'")).text)

        def kill(*_: int) -> None:
            with suppress(ProcessLookupError):
                os.kill(parent, signal.SIGKILL)

        with pytest.raises(HostError, match="lost"):
            await host.upload(tmp_path / "local", str(tmp_path / "there" / "file"), progress=kill)
    await until(
        lambda: [path.name for path in (tmp_path / "there").iterdir()] == ["file"],
        "the unfinished file to go",
        5,
    )
    assert (tmp_path / "there" / "file").read_text() == "old"


async def test_fewer_sessions_than_we_want(world: World) -> None:
    with Sshd(world, world.folder / "few", "MaxSessions 2") as sshd:
        async with host_of(sshd) as host:
            done = await asyncio.gather(*(host.shell("sleep 0.02; echo $1", str(n)) for n in range(20)))
            assert [each.text for each in done] == [str(number) for number in range(20)]


async def test_commands_that_wait_for_one_login_share_its_failure(tmp_path: Path, shared: Sshd) -> None:
    host = host_of(shared, port=free_port())
    found = await asyncio.gather(*(host.run(["true"]) for _ in range(10)), return_exceptions=True)
    assert {type(each) for each in found} == {HostError}
    await host.close()


# -- jump hosts -----------------------------------------------------------------------------------------------


async def test_jump_host(world: World, shared: Sshd, tmp_path: Path) -> None:
    with Sshd(world, world.folder / "jump") as jump:
        known = tmp_path / "known"
        known.write_text(jump.known_hosts.read_text() + shared.known_hosts.read_text())
        keys = (jump.key, shared.key)
        target = Target("jump host", "127.0.0.1", jump.port, "plain", keys, known)
        async with host_of(shared, known_hosts=known, key_files=keys, jump=target) as host:
            assert (await host.run(["id", "-u"])).text == "0"
            (tmp_path / "local").write_bytes(b"x" * 5_000_000)
            assert (await host.run_with_file(["wc", "-c"], tmp_path / "local")).text == "5000000"

        error = await error_of(
            host_of(shared, known_hosts=known, key_files=keys, jump=target, port=free_port())
        )
        assert error.exit_code == ExitCode.HOST_UNREACHABLE
        assert "from the jump host plain@127.0.0.1" in error.message

        stranger = host_of(shared, known_hosts=jump.known_hosts, key_files=keys, jump=target)
        error = await error_of(stranger)
        assert error.exit_code == ExitCode.HOST_KEY_MISMATCH
        assert f"ssh -J plain@127.0.0.1:{jump.port} " in error.hint


# -- each way to fail -----------------------------------------------------------------------------------------


async def test_a_refused_port(shared: Sshd) -> None:
    port = free_port()
    error = await error_of(host_of(shared, port=port))
    assert error.exit_code == ExitCode.HOST_UNREACHABLE
    assert error.message == f"web1 refused the connection to 127.0.0.1:{port}"


async def test_an_address_that_does_not_answer(shared: Sshd) -> None:
    # A listener whose queue is full drops what comes: the same as a firewall that drops packets.
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        error = await error_of(host_of(shared, port=full.getsockname()[1], connect_timeout=0.5))
    assert error.exit_code == ExitCode.HOST_UNREACHABLE
    assert "did not answer at 127.0.0.1" in error.message


async def test_a_name_that_does_not_resolve(shared: Sshd) -> None:
    host = SshHost("web1", "no-such-host.invalid", user="root", key_files=[shared.key], connect_timeout=5)
    error = await error_of(host)
    assert error.exit_code == ExitCode.HOST_UNREACHABLE
    assert "does not resolve: no-such-host.invalid" in error.message


@pytest.fixture
def no_route() -> Iterator[str]:
    route = ["unreachable", "198.51.100.77/32"]
    subprocess.run(["ip", "route", "add", *route], check=True)
    yield "198.51.100.77"
    subprocess.run(["ip", "route", "del", *route], check=True)


async def test_no_route(shared: Sshd, no_route: str) -> None:
    error = await error_of(SshHost("web1", no_route, user="root", key_files=[shared.key]))
    assert error.exit_code == ExitCode.HOST_UNREACHABLE
    assert "no route to 198.51.100.77" in error.message


async def test_a_server_that_is_not_sshd(shared: Sshd) -> None:
    def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        error = await error_of(host_of(shared, port=server.sockets[0].getsockname()[1]))
    assert error.exit_code == ExitCode.HOST_UNREACHABLE
    assert "closed the connection before login" in error.message


async def test_a_key_that_is_refused(shared: Sshd, tmp_path: Path) -> None:
    write_key(tmp_path / "other")
    error = await error_of(host_of(shared, key_files=[tmp_path / "other"]))
    assert error.exit_code == ExitCode.HOST_AUTH_REFUSED
    assert "refuses the login of 'root'" in error.message
    assert str(tmp_path / "other") in error.message


async def test_key_files_that_cannot_be_used(shared: Sshd, tmp_path: Path) -> None:
    error = await error_of(host_of(shared, key_files=[tmp_path / "none"]))
    assert error.exit_code == ExitCode.HOST_AUTH_REFUSED
    assert "none for web1 cannot be read: No such file" in error.message
    (tmp_path / "text").write_text("not a key")
    error = await error_of(host_of(shared, key_files=[tmp_path / "text"]))
    assert "is not a private key" in error.message


async def test_an_unknown_host_key(shared: Sshd, tmp_path: Path) -> None:
    known = tmp_path / "known hosts"
    for text in (None, "", f"[127.0.0.1]:{free_port()} {Path(f'{shared.host_key}.pub').read_text()}"):
        if text is not None:
            known.write_text(text)
        error = await error_of(host_of(shared, known_hosts=known))
        assert error.exit_code == ExitCode.HOST_KEY_MISMATCH
        assert "is unknown: it is ssh-ed25519 SHA256:" in error.message
        assert str(known) in error.message
        assert f"ssh-keyscan -p {shared.port} 127.0.0.1 >>'{known}'" in error.hint


async def test_a_changed_host_key_and_its_mend(world: World, tmp_path: Path) -> None:
    with Sshd(world, world.folder / "changed") as sshd:
        async with host_of(sshd) as host:
            assert (await host.run(["true"])).ok
        sshd.change_host_key()
        error = await error_of(host_of(sshd))
        assert error.exit_code == ExitCode.HOST_KEY_MISMATCH
        assert "has changed: it is ssh-ed25519 SHA256:" in error.message
        assert any("has ssh-ed25519 SHA256:" in line for line in error.evidence)
        command = error.hint.partition(": ")[2]
        assert f"-R '[127.0.0.1]:{sshd.port}'" in command
        assert (await LocalHost().shell(command)).ok
        async with host_of(sshd) as host:
            assert (await host.run(["true"])).ok


async def test_a_host_key_of_another_kind_has_changed_too(world: World) -> None:
    with Sshd(world, world.folder / "kind") as sshd:
        rsa = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
        sshd.known_hosts.write_text(f"[127.0.0.1]:{sshd.port} {rsa.export_public_key().decode()}")
        error = await error_of(host_of(sshd))
        assert error.exit_code == ExitCode.HOST_KEY_MISMATCH
        assert "has changed" in error.message


async def test_a_revoked_host_key(shared: Sshd, tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text(f"@revoked * {Path(f'{shared.host_key}.pub').read_text()}")
    error = await error_of(host_of(shared, known_hosts=known))
    assert error.exit_code == ExitCode.HOST_KEY_MISMATCH
    assert "revoked" in error.message


async def test_a_user_without_sudo(shared: Sshd) -> None:
    error = await error_of(host_of(shared, "plain"))
    assert error.exit_code == ExitCode.HOST_NO_PRIVILEGE
    assert "'plain' on web1 is not root" in error.message
    assert any("sudo" in line for line in error.evidence)


async def test_forwarding_that_sshd_forbids(world: World, tmp_path: Path) -> None:
    with Sshd(world, world.folder / "closed", "DisableForwarding yes") as sshd:
        async with host_of(sshd) as host:
            with pytest.raises(HostError, match="forbids a tunnel to") as caught:
                async with host.forward_tcp("127.0.0.1", 1):
                    pass
            assert "AllowTcpForwarding" in caught.value.hint
            with pytest.raises(HostError, match="cannot be connected to") as caught:
                async with host.forward_unix("/run/x.sock"):
                    pass
            assert "AllowStreamLocalForwarding" in caught.value.hint


async def test_a_full_disk(host: SshHost, tmp_path: Path) -> None:
    # In sshd's own mount namespace: it is gone with sshd whatever happens.
    disk = tmp_path / "disk"
    disk.mkdir()
    await host.shell('mount -t tmpfs -o size=1m tmpfs "$1"', str(disk))
    try:
        await host.write_file(str(disk / "file"), b"old")
        (tmp_path / "local").write_bytes(b"x" * 4_000_000)
        for attempt in (
            host.write_file(str(disk / "file"), b"x" * 4_000_000),
            host.upload(tmp_path / "local", str(disk / "file")),
        ):
            with pytest.raises(
                HostError, match=f"{disk}/file could not be written.*full.*bytes free"
            ) as caught:
                await attempt
            assert caught.value.exit_code == ExitCode.HOST_DISK_FULL
            assert caught.value.host == "web1"
            assert await host.read_file(str(disk / "file")) == b"old"
            assert (await host.shell('ls -A "$1"', str(disk))).text == "file"
        with pytest.raises(CommandError) as failed:
            await host.run_with_file(["dd", f"of={disk}/other"], tmp_path / "local")
        assert failed.value.exit_code == ExitCode.HOST_DISK_FULL
    finally:
        await host.run(["umount", str(disk)])


# -- tools ----------------------------------------------------------------------------------------------------


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
    writer.close()


@asynccontextmanager
async def echo_server(port: int = 0) -> AsyncIterator[int]:
    server = await asyncio.start_server(echo, "127.0.0.1", port)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def exchange(address: str, port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
