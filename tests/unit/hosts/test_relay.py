"""The relay that carries a connection to a socket which only root may open."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

import pytest

from kubewright.hosts.ssh_tunnel import RELAY


async def relay(tools: Path, socket: Path, data: bytes) -> tuple[bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", RELAY, "sh", str(socket), env={"PATH": str(tools)},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(10):
        return await process.communicate(data)


@pytest.mark.parametrize("tool", ["perl", "python3"])
async def test_it_carries_both_ways_to_the_end(tool: str, tmp_path: Path) -> None:
    found = sys.executable if tool == "python3" else shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed")
    (tmp_path / tool).write_text(f'#!/bin/sh\nexec {found} "$@"\n')
    (tmp_path / tool).chmod(0o755)

    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    server = await asyncio.start_unix_server(upper, tmp_path / "socket")
    async with server:
        assert (await relay(tmp_path, tmp_path / "socket", b"x" * 300_000))[0] == b"+" + b"X" * 300_000
    output, errors = await relay(tmp_path, tmp_path / "none", b"")
    assert output == b""
    assert b"No such file" in errors


async def test_without_a_tool_it_says_so(tmp_path: Path) -> None:
    output, errors = await relay(tmp_path, tmp_path / "socket", b"")
    assert output == b""
    assert b"neither perl nor python3" in errors
