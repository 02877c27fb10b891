"""The administrators' kubeconfigs of a control plane move to another address of the API, and root's copy too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import pytest
import yaml
from tests.unit.phases.memory_host import KilledError, MemoryHost

from kubewright.errors import ConfigError, HostError
from kubewright.events import Event, Events
from kubewright.hosts import Completed, FileStat, FileWrite, HostFacts
from kubewright.model.config.cluster import HostSpec
from kubewright.phases.kubeconfig_server import KubeconfigServer
from kubewright.phases.node import Node
from kubewright.phases.phase import Change
from kubewright.secret import Secret

OLD, NEW = "https://192.0.2.1:6443", "https://api.example.com:6443"
ADMIN, SUPER = "/etc/kubernetes/admin.conf", "/etc/kubernetes/super-admin.conf"
HOME = "/root/.kube/config"


def config(server: str = OLD, user: str = "kubernetes-admin") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "mine", "cluster": {"certificate-authority-data": "Q0E=", "server": server}}],
        "contexts": [{"name": f"{user}@mine", "context": {"cluster": "mine", "user": user}}],
        "current-context": f"{user}@mine",
        "preferences": {},
        "users": [{"name": user, "user": {"client-certificate-data": "Q0VSVA==", "client-key-data": "S0VZ"}}],
    }


def text(document: dict[str, Any]) -> bytes:
    return yaml.safe_dump(document).encode()


class Plane(MemoryHost):
    """A control plane with kubeconfigs, and a home of root's."""

    def __init__(self) -> None:
        super().__init__()
        self.linked: set[str] = set()

    def put(self, path: str, content: bytes, mode: int = 0o600, group: str = "root") -> None:
        self.files[path] = FileWrite(path, content, mode, "root", group)

    def said(self, path: str) -> Any:
        return yaml.safe_load(self.files[path].data)

    async def run(self, argv: Any, **options: Any) -> Completed:
        assert "~root" in argv[2]
        return Completed(tuple(argv), 0, b"/root\n")

    async def stat_files(self, paths: Iterable[str], *, digest: bool = True) -> dict[str, FileStat]:
        return {
            path: FileStat(
                path, "symlink" if path in self.linked else "file", file.mode, file.owner, file.group, 1,
                hashlib.sha256(file.data).hexdigest(),
            )
            for path in paths
            if (file := self.files.get(path)) is not None
        }  # fmt: skip


def plane() -> Plane:
    host = Plane()
    host.put(ADMIN, text(config()))
    return host


def phase(host: Plane) -> KubeconfigServer:
    facts = HostFacts.__new__(HostFacts)
    node = Node(HostSpec(name="cp1", address="192.0.2.1"), host, facts, "192.0.2.1")
    return KubeconfigServer(node, NEW)


async def run(host: Plane) -> tuple[list[Change], str]:
    """The changes, and what the phase says at its end."""
    heard: list[Event] = []
    changes = await phase(host).run(Events(heard.append))
    return list(changes), heard[-1].message


async def test_the_address_changes_and_nothing_else() -> None:
    host = plane()
    host.put(SUPER, text(config(user="kubernetes-super-admin")), 0o600)
    changes, _ = await run(host)
    assert [(change.target, change.diff) for change in changes] == [
        (ADMIN, (f"# {OLD} becomes {NEW}",)),
        (SUPER, (f"# {OLD} becomes {NEW}",)),
    ]
    assert host.said(ADMIN) == config(NEW)
    assert host.said(SUPER) == config(NEW, "kubernetes-super-admin")
    assert await phase(host).look() == []


async def test_a_file_that_others_could_read_is_closed_and_keeps_its_group() -> None:
    host = plane()
    host.put(ADMIN, text(config()), 0o644, "adm")
    await run(host)
    written = host.files[ADMIN]
    assert (written.mode, written.group, written.secret) == (0o600, "adm", True)


async def test_other_clusters_in_the_file_stay() -> None:
    document = config()
    document["clusters"].append({"name": "theirs", "cluster": {"server": "https://other:6443"}})
    document["clusters"].append({"name": "again", "cluster": {"server": OLD}})
    host = plane()
    host.put(ADMIN, text(document))
    await run(host)
    assert [one["cluster"]["server"] for one in host.said(ADMIN)["clusters"]] == [
        NEW, "https://other:6443", NEW,
    ]  # fmt: skip


async def test_roots_copy_goes_along() -> None:
    host = plane()
    host.put(HOME, text(config()), 0o644)
    changes, said = await run(host)
    assert [change.target for change in changes] == [HOME, ADMIN]
    assert host.files[HOME].data == host.files[ADMIN].data
    assert host.files[HOME].mode == 0o600
    assert HOME not in said


async def test_roots_own_is_left_alone_and_told() -> None:
    own = text(config(user="me"))
    host = plane()
    host.put(HOME, own)
    one = phase(host)
    heard: list[Event] = []
    await one.run(Events(heard.append))
    assert host.files[HOME].data == own
    assert one.left_alone == HOME
    assert HOME in heard[-1].message
    again = phase(host)
    assert await again.look() == []
    assert again.left_alone == HOME


async def test_roots_own_that_names_the_endpoint_is_no_matter() -> None:
    host = plane()
    host.put(HOME, text(config(NEW, "me")))
    one = phase(host)
    assert len(await one.look()) == 1
    assert one.left_alone == ""


async def test_a_link_to_admin_conf_follows_it() -> None:
    host = plane()
    host.put(HOME, text(config()))
    host.linked.add(HOME)
    one = phase(host)
    assert [change.target for change in await one.look()] == [ADMIN]
    assert one.left_alone == ""


@pytest.mark.parametrize("written", [0, 1, 2])
async def test_a_run_that_was_killed_is_finished(written: int) -> None:
    host = plane()
    host.put(HOME, text(config()))
    host.put(SUPER, text(config()))
    host.dies_after = written
    with pytest.raises(KilledError):
        await run(host)
    host.dies_after = None
    again = phase(host)
    await again.run(Events())
    assert again.left_alone == ""
    assert {host.said(path)["clusters"][0]["cluster"]["server"] for path in (ADMIN, SUPER, HOME)} == {NEW}


async def test_a_host_without_admin_conf_is_refused() -> None:
    host = Plane()
    with pytest.raises(HostError, match="there is no /etc/kubernetes/admin"):
        await phase(host).look()


async def test_a_file_that_cannot_be_read_is_named_without_its_content() -> None:
    host = plane()
    document = config()
    document["current-context"] = "gone"
    host.put(SUPER, text(document))
    with pytest.raises(ConfigError, match="super-admin") as caught:
        await phase(host).look()
    assert "S0VZ" not in str(caught.value)


async def test_no_key_is_in_what_is_shown() -> None:
    host = plane()
    heard: list[Event] = []
    changes = await phase(host).run(Events(heard.append))
    assert "S0VZ" not in repr([*changes, *heard])
    assert isinstance(host.files[ADMIN].content, Secret)
