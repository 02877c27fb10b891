"""`kubewright adopt`: the file that it writes, and when it writes none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.unit.model.test_adopt import seen
from tests.unit.phases.memory_host import MemoryHost
from tests.unit.workflows.test_adopt_workflow import Kube, plane

from kubewright.cli import cli, upgrade_shared
from kubewright.cli.node import NodeOptions
from kubewright.errors import ExitCode, HostError
from kubewright.model.config.load import load_cluster
from kubewright.phases.host_kubeconfig import read_kubeconfig


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[NodeOptions]:
    """A cluster that is found through any host; with which options it was asked for."""
    found: list[NodeOptions] = []

    @asynccontextmanager
    async def opened(options: NodeOptions, **_: Any) -> AsyncIterator[Any]:
        found.append(options)
        yield plane(), Kube(seen())

    monkeypatch.setattr(upgrade_shared, "opened_with_api", opened)
    monkeypatch.chdir(tmp_path)
    return found


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["adopt", *words], prog_name="kubewright")


def test_a_file_is_written_that_can_be_read(asked: list[NodeOptions]) -> None:
    done = run("--host", "root@10.0.0.11", "--ssh-key", "id")
    assert done.exit_code == 0, done.output
    assert [options.host for options in asked] == ["root@10.0.0.11"]
    file = Path("cluster.yaml")
    assert [host.name for host in load_cluster(file).hosts] == ["cp1", "w1"]
    assert file.read_text().startswith("# Cluster kubernetes, as `kubewright adopt` found it on 20")
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(Path().iterdir()) == [file]
    assert done.stdout.startswith("cluster.yaml describes cluster kubernetes: 1 control plane, 1 worker.\n")
    assert "status -f cluster.yaml" in done.stdout
    assert "plan -f cluster.yaml" in done.stdout
    assert "the pod network is another's" in done.stderr


def test_standard_output_has_the_file_alone(asked: list[NodeOptions], tmp_path: Path) -> None:
    done = run("-f", "-")
    assert done.exit_code == 0
    file = tmp_path / "read.yaml"
    file.write_text(done.stdout)
    assert load_cluster(file).name == "kubernetes"


def test_a_file_that_is_there_is_replaced_only_where_that_is_said(asked: list[NodeOptions]) -> None:
    file = Path("mine.yaml")
    file.write_text("mine")
    done = run("-f", "mine.yaml")
    assert done.exit_code == ExitCode.USAGE
    assert "mine.yaml is there already" in done.output
    assert "--force" in done.output
    assert (file.read_text(), asked) == ("mine", [])
    assert run("-f", "mine.yaml", "--force").exit_code == 0
    assert load_cluster(file).name == "kubernetes"


def test_a_place_where_nothing_can_be_written(asked: list[NodeOptions]) -> None:
    done = run("-f", "nowhere/cluster.yaml")
    assert done.exit_code == ExitCode.CONFIG_INVALID
    assert "nowhere/cluster.yaml: cannot be written" in done.output


def test_ssh_options_are_for_a_host(asked: list[NodeOptions]) -> None:
    done = run("--ssh-key", "id")
    assert done.exit_code == ExitCode.USAGE
    assert "the --ssh options are for --host" in done.output


async def test_a_host_that_is_no_control_plane() -> None:
    """What `opened_with_api` says of one."""
    with pytest.raises(HostError, match=r"there is no /etc/kubernetes/admin\.conf") as caught:
        await read_kubeconfig(MemoryHost(), "/etc/kubernetes/admin.conf")
    assert "is this a control plane?" in caught.value.hint
