"""A tree of phases: its order, what is left out, and a part of it alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from kubewright.errors import ExitCode, KubewrightError
from kubewright.workflows.tree import Step, find, paths, run_steps

Log = list[str]


def note(name: str) -> Callable[[Log], Awaitable[None]]:
    async def run(log: Log) -> None:
        log.append(name)

    return run


TREE: tuple[Step[Log], ...] = (
    Step("preflight", "check", note("preflight")),
    Step(
        "certs",
        "make certificates",
        note("certs itself"),
        steps=(Step("ca", "the CA", note("ca")), Step("apiserver", "its server", note("apiserver"))),
    ),
    Step("addon", "deploy", steps=(Step("dns", "dns", note("dns"), hidden=True),)),
)


def ran(skip: tuple[str, ...] = (), only: str = "") -> Log:
    log: Log = []
    asyncio.run(run_steps(TREE, log, skip, only=only))
    return log


def test_paths_are_in_order() -> None:
    assert [path for path, _ in paths(TREE)] == [
        "preflight", "certs", "certs/ca", "certs/apiserver", "addon", "addon/dns",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("skip", "only", "expected"),
    [
        ((), "", ["preflight", "certs itself", "ca", "apiserver", "dns"]),
        (("certs",), "", ["preflight", "dns"]),
        (("certs/ca", "preflight"), "", ["certs itself", "apiserver", "dns"]),
        ((), "certs", ["certs itself", "ca", "apiserver"]),
        ((), "certs/apiserver", ["apiserver"]),
        (("certs/ca",), "certs", ["certs itself", "apiserver"]),
        ((), "addon/dns", ["dns"]),
    ],
)
def test_what_runs(skip: tuple[str, ...], only: str, expected: Log) -> None:
    assert ran(skip, only) == expected


@pytest.mark.parametrize(
    ("path", "meant"), [("cert", "certs"), ("ca", "certs/ca"), ("certs/apisever", "certs/apiserver")]
)
def test_a_phase_that_is_not_there_is_refused_before_anything_runs(path: str, meant: str) -> None:
    log: Log = []
    with pytest.raises(KubewrightError, match=f"did you mean '{meant}'") as caught:
        asyncio.run(run_steps(TREE, log, (path,)))
    assert caught.value.exit_code is ExitCode.USAGE
    assert caught.value.message.startswith("--skip-phases: ")
    assert "addon/dns" not in caught.value.hint  # hidden
    assert log == []


def test_find_names_its_field() -> None:
    assert find(TREE, "addon/dns").name == "dns"
    with pytest.raises(KubewrightError, match=r"^skipPhases"):
        find(TREE, "zzzz", field="skipPhases")
