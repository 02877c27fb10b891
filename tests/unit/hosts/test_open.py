"""From `cluster.yaml` to a host: what a host's own `ssh` leaves out comes from the cluster's."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubewright.hosts.local import LocalHost
from kubewright.hosts.open import open_host
from kubewright.hosts.ssh import SshHost
from kubewright.model.config.cluster import HostSpec, SshSpec


def ssh_host(own: SshSpec, defaults: SshSpec) -> SshHost:
    host = open_host(HostSpec(name="web1", address="10.0.0.1", ssh=own), defaults)
    assert isinstance(host, SshHost)
    return host


def test_local_is_this_computer() -> None:
    host = open_host(HostSpec(name="here", address="local"), SshSpec(user="x"))
    assert isinstance(host, LocalHost)
    assert host.name == "here"


def test_a_hosts_own_settings_come_first() -> None:
    defaults = SshSpec(
        user="root", port=2222, key_files=["~/.ssh/lab"], known_hosts="/lab/known", jump="ops@gate:2200"
    )
    target = ssh_host(SshSpec(user="admin", key_files=[]), defaults)._target
    assert (target.name, target.address, target.port, target.user) == ("web1", "10.0.0.1", 2222, "admin")
    assert (target.key_files, target.known_hosts) == ((), Path("/lab/known"))

    host = ssh_host(SshSpec(port=22), defaults)
    assert host._target.port == 22
    assert host._target.key_files == (Path("~/.ssh/lab").expanduser(),)
    jump = host._jump_target
    assert jump is not None
    assert (jump.address, jump.port, jump.user, jump.known_hosts) == ("gate", 2200, "ops", Path("/lab/known"))
    assert jump.key_files == host._target.key_files


def test_without_settings_it_is_as_with_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "alice")
    host = ssh_host(SshSpec(), SshSpec())
    target = host._target
    assert (target.user, target.port, target.key_files, target.known_hosts) == ("alice", 22, (), None)
    assert host._jump_target is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gate", ("root", "gate", 22)),
        ("ops@gate", ("ops", "gate", 22)),
        ("ops@10.0.0.1:2200", ("ops", "10.0.0.1", 2200)),
        ("ops@corp@gate:2200", ("ops@corp", "gate", 2200)),
        ("ops@[2001:db8::1]:2200", ("ops", "2001:db8::1", 2200)),
        ("2001:db8::1", ("root", "2001:db8::1", 22)),
    ],
)
def test_jump(text: str, expected: tuple[str, str, int]) -> None:
    jump = ssh_host(SshSpec(jump=text), SshSpec(user="root"))._jump_target
    assert jump is not None
    assert (jump.user, jump.address, jump.port) == expected
