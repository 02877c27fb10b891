"""The administrators' kubeconfigs of a control plane move to another address of the cluster's API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from kubewright.errors import ConfigError, ExitCode, HostError
from kubewright.events import Activity
from kubewright.hosts import FileWrite
from kubewright.model import kubeconfig
from kubewright.model.kubeconfig import ADMIN, KUBERNETES_DIR, SUPER_ADMIN
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase

_HOME = "cd ~root && pwd"
_OWN = ".kube/config"


class KubeconfigServer(Phase):
    """Kubeconfigs below /etc/kubernetes name the API's address `server`, and keep everything else.

    So does root's ~/.kube/config where it is a copy of one of them, byte for byte, as kubeadm tells its users to
    make it. Another one is the user's own: after `look`, `left_alone` is its path where it names another address.
    """

    name: ClassVar[str] = "kubeconfig-server"
    title: ClassVar[str] = "let administrators use the endpoint"

    def __init__(self, node: Node, server: str, files: Sequence[str] = (ADMIN, SUPER_ADMIN)) -> None:
        """`server` is a URL. Of `files`, below /etc/kubernetes, the first must be there."""
        self._node = node
        self.host_name = node.name
        self._server = server
        self._paths = [f"{KUBERNETES_DIR}/{file}" for file in files]
        self._wanted: list[FileWrite] = []
        self.left_alone = ""

    async def look(self) -> list[Change]:
        """Which of them name another. Raises `HostError` where the first is not there, `ConfigError` where one
        cannot be read."""
        host = self._node.host
        home = (await host.shell(_HOME, check=False)).text
        own = f"{home}/{_OWN}" if home else ""
        found = await host.read_files([*self._paths, *([own] if own else [])])
        stats = await host.stat_files(found, digest=False)
        if self._paths[0] not in found:
            raise HostError(
                f"{self.host_name}: there is no {self._paths[0]}", host=self.host_name,
                exit_code=ExitCode.HOST_NOT_FIT,
                hint="is this a control plane? `kubewright init phase kubeconfig admin` makes the file anew",
            )  # fmt: skip
        copies = {found[path]: path for path in self._paths if path in found}
        self.left_alone = ""
        # Root's copy is known by what admin.conf is before, so that it comes first: a killed run leaves both.
        wanted = [path for path in self._paths if path in found]
        if own in found and stats[own].kind == "file":
            if found[own] in copies:
                wanted.insert(0, own)
            elif _server_of(found[own]) != self._server:
                self.left_alone = own
        self._wanted, changes = [], []
        for path in wanted:
            document = kubeconfig.load(found[path], path)
            try:
                before = kubeconfig.current_server(document)
                moved = kubeconfig.with_current_server(document, self._server)
            except ConfigError as error:
                raise ConfigError(
                    f"{self.host_name}: {path}: {error.message}", host=self.host_name, hint=error.hint
                ) from error
            if before != self._server:
                stat = stats[path]
                self._wanted.append(
                    FileWrite(
                        path, kubeconfig.dump(moved), kubeconfig.KUBECONFIG_MODE, stat.owner, stat.group
                    )
                )
                why = f"# {before} becomes {self._server}"
                changes.append(Change(Action.UPDATE, path, self.host_name, (why,)))
        return changes

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Write them."""
        await self._node.host.write_files(self._wanted)
        if self.left_alone:
            activity.summary(f"{self.title}; {self.left_alone} is no copy of theirs, and is left as it is")


def _server_of(content: bytes) -> str:
    """Where a user's own kubeconfig leads; empty where that cannot be told."""
    try:
        return kubeconfig.current_server(kubeconfig.load(content, _OWN))
    except ConfigError:
        return ""
