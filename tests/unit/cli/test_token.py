"""`token create`: nothing is made that cannot be told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from kubewright.cli import cli, token
from kubewright.errors import ConfigError


@pytest.mark.parametrize("whole", [True, False])
def test_no_token_is_left_where_the_join_command_cannot_be_printed(
    monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    made: list[str] = []

    class Kube:
        async def create(self, secret: dict[str, Any]) -> None:
            made.append(secret["metadata"]["name"])

    @asynccontextmanager
    async def opened(_: object) -> AsyncIterator[tuple[None, Kube]]:
        yield None, Kube()

    async def endpoint(*_: object) -> tuple[str, list[str]]:
        if whole:
            return "https://192.0.2.1:6443", ["sha256:0"]
        raise ConfigError("admin.conf holds no CA: a join command needs its hash")

    monkeypatch.setattr(token, "_opened", opened)
    monkeypatch.setattr(token, "_endpoint", endpoint)
    words = ["token", "create", "abcdef.0123456789abcdef", "--print-join-command"]
    done = CliRunner().invoke(cli, words)
    assert (done.exit_code == 0, made == ["bootstrap-token-abcdef"]) == (whole, whole), done.output
    assert ("join 192.0.2.1:6443 --token abcdef.0123456789abcdef" in done.output) is whole
