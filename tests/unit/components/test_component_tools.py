"""Tools: what is missing is named with its mend, and what was started does not outlive us."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kubewright.components import tools
from kubewright.components.rootfs import Rootfs, parse_loader_list
from kubewright.components.tools import require, run_tool
from kubewright.errors import ComponentError

ROOT = Path(__file__).parents[3]


def test_every_package_that_code_asks_for_is_installed_by_make() -> None:
    lines = (line.partition("#")[0].strip() for line in (ROOT / "packages.txt").read_text().splitlines())
    assert set(tools.PACKAGES.values()) <= {line for line in lines if line}


def test_a_missing_tool_is_named_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "PACKAGES", {"/nowhere/go": "golang-go", "/bin/sh": "dash", "/nowhere/x": "x"})
    require("building Kubernetes", "dash")
    with pytest.raises(ComponentError, match="golang-go") as caught:
        require("building Kubernetes", "dash", "golang-go")
    assert caught.value.hint == "apt-get install golang-go"


async def test_output_lines_and_failure(tmp_path: Path) -> None:
    lines: list[str] = []
    script = "echo one; printf 'two\\r' >&2; echo $PWD"
    output = await run_tool("trying", ["sh", "-c", script], cwd=tmp_path, on_line=lines.append)
    assert output == f"one\n{tmp_path}\n"
    assert sorted(lines) == sorted(["one", "two", str(tmp_path)])
    with pytest.raises(ComponentError, match="trying: sh ended with code 3") as caught:
        await run_tool("trying", ["sh", "-c", "echo because >&2; exit 3"])
    assert caught.value.evidence == ("because",)
    with pytest.raises(ComponentError, match=r"/nowhere/program"):
        await run_tool("trying", ["/nowhere/program"])


async def test_the_users_go_and_python_settings_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOFLAGS", "-mod=mod")
    monkeypatch.setenv("PYTHONPATH", "/x")
    monkeypatch.setenv("https_proxy", "http://proxy.example")
    output = await run_tool("trying", ["env"], env={"OWN": "1"})
    names = {line.partition("=")[0] for line in output.splitlines()}
    assert {"https_proxy", "OWN", "PATH", "HOME"} <= names
    assert not names & {"GOFLAGS", "PYTHONPATH"}


async def test_a_timeout_and_a_cancel_end_grandchildren_too(tmp_path: Path) -> None:
    script = f"(while :; do echo x >> {tmp_path}/alive; sleep 0.02; done) & wait"
    with pytest.raises(ComponentError, match="did not end within"):
        await run_tool("trying", ["sh", "-c", script], timeout=0.5)
    assert still(tmp_path / "alive")
    (tmp_path / "alive").unlink()
    task = asyncio.create_task(run_tool("trying", ["sh", "-c", script]))
    while not (tmp_path / "alive").exists():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert still(tmp_path / "alive")


@pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace needs root")
def test_being_killed_ends_grandchildren_too(tmp_path: Path) -> None:
    script = f"(while :; do echo x >> {tmp_path}/alive; sleep 0.02; done) & wait"
    program = (
        "import asyncio, sys\n"
        "from kubewright.components.tools import run_tool\n"
        "asyncio.run(run_tool('trying', ['sh', '-c', sys.argv[1]]))"
    )
    process = subprocess.Popen([sys.executable, "-c", program, script])
    deadline = time.monotonic() + 10
    while not (tmp_path / "alive").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert still(tmp_path / "alive")


def still(path: Path) -> bool:
    """Whether nobody writes to the file any more, within a second of grace."""
    for _ in range(10):
        size = path.stat().st_size
        time.sleep(0.1)
        if path.stat().st_size == size:
            return True
    return False


def test_links_are_followed_inside_the_root(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/real").write_text("content")
    (tmp_path / "lib").symlink_to("/usr/lib")
    (tmp_path / "usr/lib/one").symlink_to("../../../../lib/real")
    (tmp_path / "usr/lib/loop").symlink_to("loop")
    root = Rootfs(tmp_path)
    assert root.find("/lib/one") == tmp_path / "usr/lib/real"
    for path in ("/lib/loop", "/lib/absent", "/etc/passwd"):
        with pytest.raises(ComponentError, match=f"lacks {path}"):
            root.find(path)


def test_libraries_come_from_the_root_and_from_nowhere_else() -> None:
    listing = (
        "\tlinux-vdso.so.1 (0x00007f1934b8c000)\n"
        "\tlibmnl.so.0 => /r/usr/lib/libmnl.so.0 (0x00007f1934ac7000)\n"
        "\t/lib64/ld-linux-x86-64.so.2 => /r/lib/ld.so (0x00007f1934b8e000)\n"
    )
    assert parse_loader_list(listing, Path("/r"), "x") == ["/usr/lib/libmnl.so.0"]
    assert parse_loader_list("\tstatically linked\n", Path("/r"), "x") == []
    for rest in ("/lib/libxtables.so.12 (0x00007f)", "not found"):
        with pytest.raises(ComponentError, match=r"x needs the library libxtables\.so\.12"):
            parse_loader_list(f"\tlibxtables.so.12 => {rest}\n", Path("/r"), "x")
