"""This computer as a host, for real, in a folder of its own; with busybox's tools too where they are installed."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from kubewright.errors import CommandError, ExitCode, HostError, WaitTimeoutError
from kubewright.hosts import FileWrite
from kubewright.hosts.local import LocalHost
from kubewright.hosts.shell import MAX_OUTPUT, ShellHost, shown
from kubewright.secret import Secret

ODD = 'it\'s a "file"\nwith $(everything) * \\'

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="files are given owners: root only")


@pytest.fixture(scope="module")
def busyboxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of busybox's tools: some hundred links, which no test changes."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    tools = tmp_path_factory.mktemp("busybox")
    subprocess.run([busybox, "--install", "-s", str(tools)], check=True)
    return tools


@pytest.fixture(params=["coreutils", "busybox"])
def host(request: pytest.FixtureRequest) -> LocalHost:
    host = LocalHost()
    if request.param == "busybox":
        host._env["PATH"] = str(request.getfixturevalue("busyboxes"))
    return host


async def test_run_gives_code_and_output(host: LocalHost) -> None:
    done = await host.run(["sh", "-c", "cat; echo oops >&2; exit 3"], stdin=b"in\n", check=False)
    assert (done.exit_code, done.stdout, done.err) == (3, b"in\n", "oops")


async def test_arguments_are_never_read_by_a_shell(host: LocalHost) -> None:
    assert (await host.run(["printf", "%s", ODD])).stdout == ODD.encode()
    assert (await host.shell('printf %s "$2"', "a", ODD)).stdout == ODD.encode()


async def test_environment(host: LocalHost) -> None:
    assert (await host.run(["sh", "-c", "echo $GREETING"], env={"GREETING": "a b"})).text == "a b"


async def test_a_failed_command_says_why_and_shows_no_input(host: LocalHost) -> None:
    script = "cat >/dev/null; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i >&2; done; exit 4"
    with pytest.raises(CommandError) as caught:
        await host.run(["sh", "-c", script], stdin=Secret(b"hunter2"))
    error = caught.value
    assert error.evidence == tuple(f"line {number}" for number in range(3, 13))
    assert "exit code 4" in error.message
    assert "line 12" in error.message
    assert error.host == "local"
    assert "hunter2" not in f"{error}{error.evidence}{error.hint}"
    assert len(error.message) < 250


async def test_a_missing_program(host: LocalHost) -> None:
    with pytest.raises(CommandError, match="exit code 127") as caught:
        await host.run(["no-such-program"])
    assert "installed" in caught.value.hint


async def test_a_signal_is_128_and_its_number(host: LocalHost) -> None:
    assert (await host.run(["sh", "-c", "kill -9 $$"], check=False)).exit_code == 137


async def test_a_timeout_kills_the_whole_group_and_shows_the_last_output(
    host: LocalHost, tmp_path: Path
) -> None:
    script = 'sleep 300 & echo $! >"$1"; echo working on it; sleep 300'
    with pytest.raises(WaitTimeoutError, match=r"did not end within 0.3 s") as caught:
        await host.shell(script, str(tmp_path / "pid"), timeout=0.3)
    assert caught.value.evidence == ("working on it",)
    assert caught.value.exit_code == ExitCode.TIMED_OUT
    assert not alive(int((tmp_path / "pid").read_text()))


async def test_a_command_that_ignores_sigterm_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host = LocalHost()
    monkeypatch.setattr("kubewright.hosts.local._GRACE", 0.3)
    with pytest.raises(WaitTimeoutError):
        await host.shell("trap '' TERM; echo $$ >\"$1\"; while :; do sleep 0.2; done", str(tmp_path / "pid"),
                         timeout=0.3)  # fmt: skip
    assert not alive(int((tmp_path / "pid").read_text()))


async def test_cancelling_ends_the_command(host: LocalHost, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    task = asyncio.create_task(host.shell('echo $$ >"$1"; exec sleep 300', str(pid)))
    await until(lambda: pid.exists() and bool(pid.read_text()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(int(pid.read_text()))


async def test_output_is_bounded(host: LocalHost) -> None:
    with pytest.raises(HostError, match=f"more than {MAX_OUTPUT >> 20} MiB"):
        await host.run(["yes", "x" * 1000])


async def test_fifty_commands_at_once(host: LocalHost) -> None:
    done = await asyncio.gather(*(host.run(["echo", str(number)]) for number in range(50)))
    assert [each.text for each in done] == [str(number) for number in range(50)]


async def test_a_command_line_that_is_too_long_is_refused(host: LocalHost) -> None:
    with pytest.raises(HostError, match="too long"):
        await host.run(["echo", "x" * 130_000])


async def test_files_are_written_with_mode_and_owner_and_read_again(host: LocalHost, tmp_path: Path) -> None:
    folder = tmp_path / "new folder" / ODD
    files = [
        FileWrite(str(folder / "empty"), b""),
        FileWrite(str(folder / "secret"), Secret(b"\x00\xff\n" * 50_000), 0o600),
        FileWrite(str(folder / ODD), b"no newline at the end", 0o755, "nobody", "nogroup"),
        FileWrite(str(tmp_path / "-dash"), b"-\n"),
    ]
    await host.write_files(files)
    paths = [file.path for file in files]
    assert await host.read_files(paths) == {file.path: file.data for file in files}
    assert await ShellHost.read_files(host, paths) == {file.path: file.data for file in files}
    stats = await host.stat_files([file.path for file in files])
    for file in files:
        stat = stats[file.path]
        assert (stat.kind, stat.mode, stat.owner, stat.group) == ("file", file.mode, file.owner, file.group)
        assert (stat.size, stat.sha256) == (len(file.data), hashlib.sha256(file.data).hexdigest())
    assert (folder.stat().st_mode & 0o777, folder.parent.stat().st_mode & 0o777) == (0o755, 0o755)
    assert leftovers(tmp_path) == []


async def test_a_file_is_replaced_by_a_new_one(host: LocalHost, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    reader = path.open("rb")
    path.chmod(0o644)
    await host.write_file(str(path), b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    with reader:
        assert reader.read() == b"old"


async def test_a_link_is_replaced_and_its_target_left_alone(host: LocalHost, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"theirs")
    (tmp_path / "link").symlink_to("target")
    await host.write_file(str(tmp_path / "link"), b"ours")
    assert (tmp_path / "target").read_bytes() == b"theirs"
    assert not (tmp_path / "link").is_symlink()


async def test_one_bad_file_leaves_all_as_they_were(host: LocalHost, tmp_path: Path) -> None:
    (tmp_path / "first").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(HostError, match=r"folder could not be written on local.*directory"):
        await host.write_files(
            [FileWrite(str(tmp_path / "first"), b"new"), FileWrite(str(tmp_path / "folder"), b"x")]
        )
    assert (tmp_path / "first").read_bytes() == b"old"
    assert leftovers(tmp_path) == []


async def test_an_unknown_owner_is_named(host: LocalHost, tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"file could not be written.*nosuchuser"):
        await host.write_file(str(tmp_path / "file"), b"x", owner="nosuchuser")
    assert list(tmp_path.iterdir()) == []


async def test_what_is_not_there_is_not_in_the_answer(host: LocalHost, tmp_path: Path) -> None:
    path = str(tmp_path / "none")
    assert await host.read_file(path) is None
    assert await host.read_file(str(tmp_path)) is None
    assert await host.stat_files([path]) == {}
    assert await host.stat_files([]) == {}
    assert await host.read_files([]) == {}
    assert await ShellHost.read_files(host, [path, str(tmp_path)]) == {}


async def test_stat_tells_kinds_apart(host: LocalHost, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    found = await host.stat_files([str(tmp_path), str(tmp_path / "link"), str(tmp_path / "fifo")])
    assert [stat.kind for stat in found.values()] == ["directory", "symlink", "other"]


async def test_stat_without_digest(host: LocalHost, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    found = await host.stat_files([str(tmp_path / "file")], digest=False)
    assert found[str(tmp_path / "file")].sha256 == ""


async def test_the_digest_of_a_large_file(host: LocalHost, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 5
    (tmp_path / "file").write_bytes(data)
    found = await host.stat_files([str(tmp_path / "file")])
    assert found[str(tmp_path / "file")].sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("path", ["relative", "/folder/", "", "/nul\0"])
async def test_paths_must_be_absolute(path: str) -> None:
    with pytest.raises(HostError, match="absolute path"):
        await LocalHost().write_file(path, b"")


async def test_upload_verifies_and_reports_progress(host: LocalHost, tmp_path: Path) -> None:
    local, remote = tmp_path / "local", tmp_path / "new" / ODD
    data = os.urandom(1_000_001)
    local.write_bytes(data)
    seen: list[tuple[int, int]] = []
    await host.upload(
        local, str(remote), mode=0o755, sha256=hashlib.sha256(data).hexdigest(),
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert remote.read_bytes() == data
    assert remote.stat().st_mode & 0o7777 == 0o755
    assert seen[-1] == (len(data), len(data))
    assert seen == sorted(seen)


async def test_an_upload_with_another_checksum_changes_nothing(host: LocalHost, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"new")
    (tmp_path / "remote").write_bytes(b"old")
    with pytest.raises(HostError, match="SHA-256"):
        await host.upload(tmp_path / "local", str(tmp_path / "remote"), sha256="0" * 64)
    assert (tmp_path / "remote").read_bytes() == b"old"
    assert leftovers(tmp_path) == []


async def test_a_cancelled_upload_leaves_nothing(host: LocalHost, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"x" * 20_000_000)
    reached = asyncio.Event()
    task = asyncio.create_task(
        host.upload(tmp_path / "local", str(tmp_path / "remote"), progress=lambda *_: reached.set())
    )
    await asyncio.wait_for(reached.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(path.name for path in tmp_path.iterdir()) == ["local"]


async def test_a_missing_local_file_is_named(host: LocalHost, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="none cannot be read: No such file"):
        await host.upload(tmp_path / "none", str(tmp_path / "remote"))


async def test_run_with_file(host: LocalHost, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"x" * 3_000_000)
    assert (await host.run_with_file(["wc", "-c"], tmp_path / "local")).text.strip() == "3000000"
    # A command that does not read all of it is judged by its exit code alone.
    assert (await host.run_with_file(["true"], tmp_path / "local")).ok
    with pytest.raises(CommandError):
        await host.run_with_file(["false"], tmp_path / "local")


async def test_a_full_disk_in_a_command_has_its_own_exit_code() -> None:
    with pytest.raises(CommandError) as caught:
        await LocalHost().run(["dd", "if=/dev/zero", "of=/dev/full", "bs=1", "count=1"])
    assert caught.value.exit_code == ExitCode.HOST_DISK_FULL


async def test_forwards_lead_straight_there(tmp_path: Path) -> None:
    host = LocalHost()
    async with host.forward_tcp("192.0.2.1", 6443) as where:
        assert where == ("192.0.2.1", 6443)
    server = await asyncio.start_unix_server(lambda _, writer: writer.close(), tmp_path / "socket")
    async with server, host.forward_unix(str(tmp_path / "socket")) as path:
        assert path == tmp_path / "socket"
    with pytest.raises(HostError, match="not a socket"):
        async with host.forward_unix(str(tmp_path / "none")):
            pass


def without_root(monkeypatch: pytest.MonkeyPatch, tools: Path, sudo: str) -> LocalHost:
    """A host that takes us for another user than root, with a stand-in for sudo."""
    (tools / "sudo").write_text(f"#!/bin/sh\n{sudo}\n")
    (tools / "sudo").chmod(0o755)
    monkeypatch.setattr("kubewright.hosts.local.os.geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return LocalHost()


async def test_without_root_commands_go_through_sudo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = f'printf "%s\\n" "$*" >>{tmp_path}/log; shift; [ "$1" != -- ] || shift; exec "$@"'
    host = without_root(monkeypatch, tmp_path, script)
    assert (await host.run(["printf", "%s", "a b"])).text == "a b"
    assert (await host.run(["true"])).ok
    assert (tmp_path / "log").read_text() == "-n true\n-n -- printf %s a b\n-n -- true\n"
    with pytest.raises(WaitTimeoutError):
        await host.shell('echo $$ >"$1"; sleep 300', str(tmp_path / "pid"), timeout=0.2)
    assert not alive(int((tmp_path / "pid").read_text()))


async def test_without_root_and_sudo_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    host = without_root(monkeypatch, tmp_path, "echo 'sudo: a password is required' >&2; exit 1")
    with pytest.raises(HostError, match="not root here") as caught:
        await host.run(["touch", str(tmp_path / "file")])
    assert caught.value.exit_code == ExitCode.HOST_NO_PRIVILEGE
    assert caught.value.evidence == ("sudo: a password is required",)
    assert not (tmp_path / "file").exists()


async def test_facts_are_kept(host: LocalHost) -> None:
    facts = await host.facts()
    assert facts.is_root
    assert await host.facts() is facts
    await host.close()
    await host.close()


def test_shown_commands_are_short_and_quoted() -> None:
    assert shown(["echo", "a b", "$x"]) == "echo 'a b' '$x'"
    long = shown(["sh", "-c", "one\n  two\n" + "x" * 500])
    assert long.startswith("sh -c 'one two xxx")
    assert len(long) == 120


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".kubewright-")]


async def until(condition: Callable[[], bool], timeout: float = 5.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_what_we_may_read_needs_no_sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who is not root has a kubeconfig of his own, and perhaps no sudo."""
    ours, nothing = tmp_path / "ours", tmp_path / "nothing"
    ours.write_bytes(b"x")
    host = LocalHost()
    monkeypatch.setattr(host, "_spawn", None)
    assert await host.read_files([str(ours), str(nothing), str(tmp_path)]) == {str(ours): b"x"}


async def test_what_we_may_not_look_at_is_read_by_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's own question whether there is a file says no from 3.14 on where it may not look."""
    secret, host = tmp_path / "secret", LocalHost()
    secret.write_bytes(b"x")
    stat = Path.stat

    def forbidden(path: Path, *args: object, **options: bool) -> os.stat_result:
        if path == secret:
            raise PermissionError(13, "Permission denied")
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", forbidden)
    monkeypatch.setattr(Path, "is_file", lambda path: False)
    assert await host.read_files([str(secret)]) == {str(secret): b"x"}


@pytest.mark.parametrize("command", ["true", "sleep"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_command_that_is_cancelled_leaves_nothing_that_python_complains_of(
    command: str, times: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is open when the loop closes is reported with a traceback, which a user would see after Ctrl-C."""
    reports: list[object] = []

    async def cancelled(steps: int) -> None:
        task = asyncio.ensure_future(LocalHost().run([command, *(["30"] if command == "sleep" else [])]))
        for _ in range(steps):
            await asyncio.sleep(0)
        time.sleep(0.01)  # noqa: ASYNC251 (the command may end, and the loop does not notice)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with suppress(asyncio.CancelledError):
            await task

    gc.collect()
    caplog.clear()  # what other tests left
    monkeypatch.setattr(sys, "unraisablehook", reports.append)
    for steps in range(1, 24):
        asyncio.run(cancelled(steps))
    time.sleep(0.05)
    gc.collect()
    assert not reports
    assert not caplog.records


def test_a_command_that_reads_none_of_its_input_leaves_no_report(caplog: pytest.LogCaptureFixture) -> None:
    gc.collect()
    caplog.clear()
    asyncio.run(LocalHost().run(["true"], stdin=b"x" * (1 << 20)))
    gc.collect()
    assert not caplog.records
