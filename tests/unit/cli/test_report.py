"""Errors as users see them: one place, one form, one exit code each, and no traceback."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from kubewright.cli.report import INTERRUPTED, report
from kubewright.errors import ConfigError, ExitCode, HostError, KubewrightError, WaitTimeoutError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("KUBEWRIGHT_DEBUG", raising=False)
    return tmp_path / "kubewright" / "crash"


def test_message_evidence_and_mend(capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    error = WaitTimeoutError(
        "waited 5 s for etcd", host="cp1", evidence=["last seen: x"], hint="look at its log"
    )
    assert report(error) == ExitCode.TIMED_OUT
    assert capsys.readouterr().err.splitlines() == [
        "error: cp1: waited 5 s for etcd", "    last seen: x", "mend: look at its log",
    ]  # fmt: skip
    assert not cache.exists(), "an expected error is no crash"


def test_each_error_of_a_group_is_shown_once_and_the_first_gives_the_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    group = BaseExceptionGroup("x", [
        asyncio.CancelledError(),
        ExceptionGroup("y", [HostError("refused", host="w1", exit_code=ExitCode.HOST_AUTH_REFUSED),
                             HostError("refused", host="w2"), HostError("refused", host="w2")]),
        ConfigError("bad field"),
    ])  # fmt: skip
    assert report(group) == ExitCode.HOST_AUTH_REFUSED
    assert capsys.readouterr().err.splitlines() == [
        "error: w1: refused",
        "error: w2: refused",
        "error: bad field",
    ]


def test_json_errors_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(HostError("gone", host="w1", hint="plug it in"), output="json") == ExitCode.HOST_UNREACHABLE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err) == {
        "kind": "error", "message": "gone", "exitCode": 20, "host": "w1", "hint": "plug it in",
    }  # fmt: skip


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError()])
def test_an_interruption_is_no_error(
    error: BaseException, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    assert report(error) == ExitCode.INTERRUPTED
    assert capsys.readouterr().err == INTERRUPTED + "\n"
    assert not cache.exists()


def test_what_should_not_happen_leaves_a_private_traceback_in_a_file(
    capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    try:
        os.environ["NO_SUCH_VARIABLE"]
    except KeyError as error:
        assert report(error) == ExitCode.FAILURE
    shown = capsys.readouterr().err
    (file,) = cache.iterdir()
    assert str(file) in shown
    assert "Traceback" not in shown
    assert len(shown.splitlines()) == 2
    assert file.stat().st_mode & 0o777 == 0o600
    assert "Traceback" in file.read_text()


def test_the_traceback_is_on_the_terminal_where_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEWRIGHT_DEBUG", "1")
    report(RuntimeError("boom"))
    assert "RuntimeError: boom" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_hides_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert report(RuntimeError("boom")) == ExitCode.FAILURE
    assert "RuntimeError: boom" in capsys.readouterr().err


def test_every_exit_code_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "exit-codes.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    documented = {int(row[1]): row[2].strip().strip("`") for row in rows if row[1].strip().isdigit()}
    assert documented == {int(code): code.name for code in ExitCode}
    assert all(row[3].strip().endswith(".") for row in rows if row[1].strip().isdigit())


def test_the_exit_code_of_an_error_can_be_its_own() -> None:
    assert KubewrightError("x", exit_code=ExitCode.BUSY).exit_code is ExitCode.BUSY
    assert KubewrightError("x").exit_code is ExitCode.FAILURE
