"""`preflight`: what it tells of a fleet, and what it mends when it is asked to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from tests.unit.workflows.test_inspect_fleet import Fleet, pytestmark  # noqa: F401

from kubewright.cli import cli
from kubewright.errors import ConfigError, ExitCode, HostError
from kubewright.events import Activity, Events
from kubewright.model.fleet_look import FleetLook
from kubewright.model.preflight import Belonging
from kubewright.phases.make_fit import FirewallOpen
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.workflows import fleet_preflight, inspect_fleet
from kubewright.workflows.fleet_preflight import preflight_fleet


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Bare hosts, whose kernel settings are not looked at."""
    monkeypatch.setattr(inspect_fleet, "check_settings", lambda *_: [])
    return Fleet(monkeypatch)


@pytest.fixture
def mended(world: Fleet, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done, where a phase turns swap off on a machine of ours."""
    done: list[str] = []

    class Off(Phase):
        name, title = "swap", "turn swap off"

        def __init__(self, node: Node) -> None:
            self.host_name = node.name

        async def look(self) -> Sequence[Change]:
            return [Change(Action.RUN, "swapoff -a", self.host_name)]

        async def act(self, changes: Sequence[Change], activity: Activity) -> None:
            world.machines[self.host_name].swap = 0
            done.append(self.host_name)

    monkeypatch.setattr(fleet_preflight, "SwapOff", Off)
    return done


async def test_a_fleet_that_is_fit(world: Fleet) -> None:
    report = await preflight_fleet(world.spec, Events())
    assert report.findings == []
    assert report.as_dict() == {
        "cluster": "kubernetes", "hosts": ["cp1", "w2", "w3"], "fit": True, "findings": [], "changes": [],
    }  # fmt: skip


async def test_nothing_is_mended_unless_that_is_asked_for(world: Fleet, mended: list[str]) -> None:
    world.machines["w2"].swap = 1 << 30
    report = await preflight_fleet(world.spec, Events())
    (found,) = report.errors
    assert (found.host, found.check) == ("w2", "Swap")
    assert found.as_dict()["fixable"]
    dry = await preflight_fleet(world.spec, Events(), fix=True, dry=True)
    assert [change.target for change in dry.changes] == ["swapoff -a"]
    assert dry.errors
    assert mended == []


async def test_what_can_be_mended_is_and_the_hosts_are_looked_at_again(
    world: Fleet, mended: list[str]
) -> None:
    world.machines["w2"].swap = world.machines["w3"].swap = 1 << 30
    report = await preflight_fleet(world.spec, Events(), hosts=["w2"], fix=True)
    assert mended == ["w2"]
    assert report.findings == []
    assert [(change.host, change.target) for change in report.changes] == [("w2", "swapoff -a")]


async def test_a_firewall_is_opened_for_the_hosts_that_need_it(
    world: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class Open(FirewallOpen):
        def __init__(self, node: Node, firewall: str, openings: Any) -> None:
            asked.append((node.name, firewall, {one.user: one.ports for one in openings}))
            super().__init__(node, firewall, openings)

    look = FleetLook(firewall="ufw")
    monkeypatch.setattr(inspect_fleet, "parse_fleet_look", lambda _: look)
    monkeypatch.setattr(fleet_preflight, "FirewallOpen", Open)
    world.firewall("cp1", 6443)
    report = await preflight_fleet(world.spec, Events(), fix=True, dry=True)
    assert asked == [("cp1", "ufw", {"w2": ("6443", "30000-32767"), "w3": ("6443", "30000-32767")})]
    assert len(report.changes) == 2
    other = await preflight_fleet(world.spec, Events(), hosts=["w2"], fix=True, dry=True)
    assert [one.host for one in other.errors] == ["cp1"]
    assert other.changes == [], "a host that was not named is not changed"


async def test_with_a_host_named_only_what_concerns_it_is_told(world: Fleet) -> None:
    world.firewall("cp1", 6443, users=("w2",))
    world.machines["w3"].swap = 1 << 30
    (found,) = (await preflight_fleet(world.spec, Events(), hosts=["w2"])).findings
    assert found.host == "cp1"
    with pytest.raises(ConfigError, match="no host 'w9'") as caught:
        await preflight_fleet(world.spec, Events(), hosts=["w9"])
    assert caught.value.exit_code is ExitCode.USAGE


async def test_a_host_that_cannot_be_reached_is_a_finding_beside_the_others(
    world: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> Any:
        raise HostError("cp1: no route to host", hint="is it up?", host="cp1")

    monkeypatch.setattr(world.machines["cp1"], "facts", away)
    world.machines["w3"].swap = 1 << 30
    report = await preflight_fleet(world.spec, Events())
    assert [(one.host, one.exit_code) for one in report.errors] == [
        ("cp1", ExitCode.HOST_UNREACHABLE), ("w3", ExitCode.HOST_NOT_FIT),
    ]  # fmt: skip


async def test_without_a_control_plane_nobody_is_said_to_be_anothers(
    world: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> Any:
        raise HostError("cp1: no route to host", hint="is it up?", host="cp1")

    monkeypatch.setattr(world.machines["cp1"], "facts", away)
    files = {
        "/etc/kubernetes/kubelet.conf": {"clusters": [{"cluster": {"server": "https://192.0.2.9:6443"}}]}
    }
    joined = Belonging(b"ours", files, False, "system:node:w2")
    world.belonging |= {"w2": joined, "w3": replace(joined, user="system:node:w3")}
    report = await preflight_fleet(world.spec, Events())
    assert [one.host for one in report.errors] == ["cp1"]


# -- the command --------------------------------------------------------------------------------------------------


def command(world: Fleet, directory: Path, *words: str) -> Result:
    file = directory / "cluster.yaml"
    hosts = [
        {"name": host.name, "address": host.address, "roles": [str(role) for role in host.roles]}
        for host in world.spec.hosts
    ]
    file.write_text(yaml.safe_dump({"hosts": hosts}))
    return CliRunner().invoke(cli, ["preflight", "-f", str(file), *words])


def test_the_command_says_that_all_is_well(world: Fleet, tmp_path: Path) -> None:
    done = command(world, tmp_path)
    assert done.exit_code == 0, done.output
    assert "cluster kubernetes: 3 hosts, all fit\n" in done.stdout


def test_the_command_tells_each_finding_with_its_mend(world: Fleet, tmp_path: Path) -> None:
    world.machines["w2"].swap = 1 << 30
    world.machines["w3"].ahead = 9
    done = command(world, tmp_path)
    assert done.exit_code == ExitCode.HOST_NOT_FIT
    assert "w2\n  error    Swap: swap is on (1024 MiB)" in done.stdout
    assert "take swap out of /etc/fstab  [--fix]" in done.stdout
    assert "  warning  Clock: its clock is 9 s ahead of" in done.stdout
    assert "1 error, 1 warning" in done.stdout
    assert "--fix` mend what it can" in done.stderr


def test_the_command_as_a_document(world: Fleet, tmp_path: Path) -> None:
    world.machines["w2"].swap = 1 << 30
    done = command(world, tmp_path, "-o", "json")
    document = json.loads(done.stdout)
    assert not document["fit"]
    (found,) = document["findings"]
    assert (found["host"], found["check"], found["severity"], found["fixable"]) == (
        "w2",
        "Swap",
        "error",
        True,
    )


def test_what_is_ignored_is_a_warning(world: Fleet, tmp_path: Path) -> None:
    world.machines["w2"].swap = 1 << 30
    done = command(world, tmp_path, "--ignore-preflight-errors", "swap")
    assert done.exit_code == 0, done.output
    assert "0 errors, 1 warning" in done.stdout


def test_a_dry_run_is_for_mending(world: Fleet, tmp_path: Path) -> None:
    assert command(world, tmp_path, "--dry-run").exit_code == ExitCode.USAGE


def test_a_dry_run_shows_what_would_be_changed(world: Fleet, mended: list[str], tmp_path: Path) -> None:
    world.machines["w2"].swap = 1 << 30
    done = command(world, tmp_path, "--fix", "--dry-run")
    assert "w2\n  run    swapoff -a\n\nThat would be changed; nothing was." in done.stdout
    assert mended == []
