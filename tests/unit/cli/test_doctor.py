"""`kubewright doctor`: what is printed, the exit code, and what is asked before a fix."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from tests.unit.model.doctor.doctor_world import facts
from tests.unit.phases.memory_host import MemoryHost

from kubewright.cli import cli, doctor
from kubewright.cli import node as cli_node
from kubewright.cli.doctor_text import finding_lines
from kubewright.cli.node import NodeOptions
from kubewright.errors import ExitCode
from kubewright.events import Events
from kubewright.model.config.cluster import HostSpec
from kubewright.model.doctor.facts import DoctorFacts
from kubewright.model.doctor.finding import Finding, Fix, Severity
from kubewright.workflows.doctor import Doctor, Examination

LEAK = Finding(
    "addresses-leaked", Severity.ERROR, "addresses are reserved for Pods that are gone", ("w1",), "P37",
    ("251 of 253 are reserved", "for example 10.244.1.2"), "no Pod gets a network", ("kubewright doctor --fix",),
    (Fix("free-addresses", "free 251 addresses", "w1", ("cbr0",)),),
)  # fmt: skip
SPLIT = Finding(
    "cgroup-accounting", Severity.WARNING, "CPU and memory are accounted for apart", ("w1",), "P49",
    fixes=(Fix("cgroup-accounting", "turn on accounting", "w1", interrupts="the kubelet is restarted"),),
)  # fmt: skip


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[Finding]]:
    """What the examinations find, one after the other; the last one again and again."""
    results: list[Sequence[Finding]] = [()]

    def examine(*_: Any) -> Examination:
        return Examination(tuple(results.pop(0) if len(results) > 1 else results[0]), facts())

    monkeypatch.setattr(doctor, "_examine", examine)
    return results


@pytest.fixture
def repaired(monkeypatch: pytest.MonkeyPatch) -> list[Fix]:
    """The fixes that were done."""
    done: list[Fix] = []
    monkeypatch.setattr(doctor, "_repair", lambda _file, _node, fixes, _found: done.extend(fixes))
    return done


def run(*words: str, text: str = "") -> Result:
    return CliRunner().invoke(cli, ["doctor", *words], input=text, prog_name="kubewright")


def test_nothing_wrong_is_one_line_and_zero(found: list[Sequence[Finding]]) -> None:
    result = run()
    assert result.exit_code == 0
    assert result.stdout == "Nothing is wrong. 4 hosts asked; `kubewright check` tries the networks out.\n"


@pytest.mark.parametrize(
    ("findings", "code", "last"),
    [
        ([LEAK], ExitCode.DOCTOR_FOUND, "1 error; 4 hosts asked."),
        ([SPLIT], ExitCode.DOCTOR_WARNED, "1 warning; 4 hosts asked."),
        ([LEAK, LEAK, SPLIT], ExitCode.DOCTOR_FOUND, "2 errors and 1 warning; 4 hosts asked."),
    ],
)
def test_the_exit_code_tells_warnings_from_errors(
    findings: list[Finding], code: ExitCode, last: str, found: list[Sequence[Finding]]
) -> None:
    found[:] = [findings]
    result = run()
    assert result.exit_code == code
    assert result.stdout.splitlines()[-1] == last


def test_a_finding_is_shown_with_all_that_it_says() -> None:
    assert finding_lines(LEAK) == [
        "error  w1: addresses are reserved for Pods that are gone (P37)",
        "  seen    251 of 253 are reserved",
        "          for example 10.244.1.2",
        "  breaks  no Pod gets a network",
        "  mend    kubewright doctor --fix",
        "  --fix   free 251 addresses on w1",
    ]
    assert (
        finding_lines(SPLIT)[-1]
        == "  --fix   turn on accounting on w1 (asks before: the kubelet is restarted)"
    )


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_the_document_has_the_findings(form: str, found: list[Sequence[Finding]]) -> None:
    found[:] = [[LEAK]]
    result = run("-o", form)
    document = json.loads(result.stdout) if form == "json" else yaml.safe_load(result.stdout)
    assert (document["healthy"], document["severity"]) == (False, "error")
    [one] = document["findings"]
    assert (one["kind"], one["pitfall"], one["hosts"]) == ("addresses-leaked", "P37", ["w1"])
    assert one["fix"] == [
        {"name": "free-addresses", "title": "free 251 addresses", "host": "w1", "interrupts": None}
    ]


def test_nothing_is_changed_without_fix(found: list[Sequence[Finding]], repaired: list[Fix]) -> None:
    found[:] = [[LEAK, SPLIT]]
    run()
    assert repaired == []


def test_what_interrupts_nothing_is_fixed_and_then_it_is_looked_again(
    found: list[Sequence[Finding]], repaired: list[Fix]
) -> None:
    found[:] = [[LEAK], []]
    result = run("--fix")
    assert repaired == [*LEAK.fixes]
    assert (result.exit_code, "Nothing is wrong" in result.stdout) == (0, True)


def test_what_interrupts_is_left_out_where_nobody_can_be_asked(
    found: list[Sequence[Finding]], repaired: list[Fix]
) -> None:
    found[:] = [[LEAK, SPLIT]]
    result = run("--fix")
    assert repaired == [*LEAK.fixes]
    assert "left out, for nobody can be asked: turn on accounting (the kubelet is restarted)" in result.stderr


@pytest.mark.parametrize(("answer", "done"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_what_interrupts_is_asked_for_on_a_terminal(
    answer: str,
    done: bool,
    found: list[Sequence[Finding]],
    repaired: list[Fix],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Sys:
        class stdin:  # noqa: N801
            @staticmethod
            def isatty() -> bool:
                return True

    monkeypatch.setattr(doctor, "sys", Sys)
    found[:] = [[SPLIT]]
    result = run("--fix", text=answer)
    assert repaired == [*SPLIT.fixes] * done
    assert "w1: turn on accounting? the kubelet is restarted" in result.stderr


def test_yes_answers_for_the_user(found: list[Sequence[Finding]], repaired: list[Fix]) -> None:
    found[:] = [[SPLIT]]
    run("--fix", "--yes")
    assert repaired == [*SPLIT.fixes]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hosts are reached, and nothing is wrong with them."""

    class Well(Doctor):
        async def ask(self, _activity: Any, *, again: bool = False) -> DoctorFacts:
            return facts()

        async def probe(self, facts: DoctorFacts) -> DoctorFacts:
            return facts

    @asynccontextmanager
    async def open_(*_: Any) -> AsyncIterator[tuple[Doctor, dict[str, Any]]]:
        yield Well([]), {}

    monkeypatch.setattr(doctor, "_opened", open_)


@pytest.mark.usefixtures("opened")
def test_progress_is_told_beside_the_report() -> None:
    result = run()
    assert result.stdout == "Nothing is wrong. 4 hosts asked; `kubewright check` tries the networks out.\n"
    lines = [line.split("s  ", 1)[1] for line in result.stderr.splitlines()]
    assert lines[0] == "doctor  look for what is wrong, and why"
    assert [line.split("  ")[0] for line in lines] == ["doctor", "doctor-ask", "doctor"]
    assert "\x1b" not in result.stderr


async def test_to_connect_to_one_host_is_a_stage_and_it_stays_open_until_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []
    host = MemoryHost()
    host.name = "w1"

    @asynccontextmanager
    async def opened_node(*_: Any, **__: Any) -> AsyncIterator[Any]:
        order.append("open")
        yield SimpleNamespace(spec=HostSpec(name="w1", address="192.0.2.7"), ip="192.0.2.7", host=host)
        order.append("closed")

    monkeypatch.setattr(cli_node, "opened_node", opened_node)
    events = Events(lambda event: order.append(f"{event.name} {event.kind}"))
    async with doctor._opened(None, NodeOptions(), events) as (_, hosts):
        assert hosts["w1"]() is host
        order.append("used")
    assert order == ["connect phase.started", "open", "connect phase.done", "used", "closed"]


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_document_comes_without_progress(form: str) -> None:
    result = run("-o", form)
    document = json.loads(result.stdout) if form == "json" else yaml.safe_load(result.stdout)
    assert document["healthy"] is True
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-f", "x.yaml", "--host", "a"), "leave --host out"),
        (("--yes",), "--yes is for --fix"),
        (("--ssh-key", "x"), "--ssh options are for --host"),
    ],
)
def test_options_that_do_not_go_together(words: tuple[str, ...], message: str) -> None:
    result = run(*words)
    assert result.exit_code == ExitCode.USAGE
    assert message in result.stderr


def test_a_bundle_is_written_where_it_is_asked_for(tmp_path: Path, found: list[Sequence[Finding]]) -> None:
    path = tmp_path / "bundle.tar.gz"
    result = run("--collect", str(path))
    assert result.exit_code == 0
    assert path.stat().st_size > 0
    assert str(path) in result.stderr


def test_the_page_of_a_pitfall_is_printed_and_nobody_is_asked() -> None:
    result = run("--explain", "p37")
    assert result.exit_code == 0
    assert result.stdout.startswith("# P37")
    assert run("--explain", "none").exit_code == ExitCode.USAGE
