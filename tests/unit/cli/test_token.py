"""`token create`: nothing is made that cannot be told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from kubewright.cli import cli, token
from kubewright.errors import ConfigError, ExitCode


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


@pytest.mark.parametrize(
    ("words", "option", "value"),
    [
        (["token", "create"], "--ttl", "soon"),
        (["token", "create"], "--ttl", "-1s"),
        (["token", "create", "--print-join-command"], "--certificate-key", "0af3"),
        (["kubeconfig", "user", "--client-name", "jane"], "--validity-period", "soon"),
        (["kubeconfig", "user", "--client-name", "jane"], "--validity-period", "0"),
        (["init"], "--token-ttl", "soon"),
        (["init"], "--certificate-key", "0af3"),
    ],
)
def test_a_wrong_value_of_a_field_has_one_exit_code(words: list[str], option: str, value: str) -> None:
    """As docs/exit-codes.md has it: each of these options stands for a field of a configuration."""
    done = CliRunner().invoke(cli, [*words, option, value])
    assert done.exit_code == ExitCode.CONFIG_INVALID, done.output
    assert f"error: {option}: " in done.output
