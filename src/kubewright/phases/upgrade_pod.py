"""One of a control plane's programs in a newer version: its static Pod replaced, and put back where it fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ClassVar

from kubewright.clients.cri import open_cri, system_containers
from kubewright.clients.paths import Object
from kubewright.errors import ApiError, ExitCode, HostError, KubewrightError, WaitTimeoutError
from kubewright.events import Activity
from kubewright.model import upgrade as model
from kubewright.model.cert_settings import CertSettings
from kubewright.model.manifests import manifest_path
from kubewright.model.objects import read_mapping, to_yaml
from kubewright.model.pod_meaning import same_manifest
from kubewright.model.reset import TMP_DIR
from kubewright.phases.node import Node
from kubewright.phases.phase import Action, Change, Phase
from kubewright.phases.renewal import RenewCertificates
from kubewright.phases.waiting import container_evidence, unit_evidence, wait_until

MANIFEST_MODE = 0o600
BACKUPS = f"{TMP_DIR}/kubeadm-backup-manifests-"
"""The folders of replaced manifests, as kubeadm names them; their dates follow."""
_BACK = 120.0

CERTIFICATES: Mapping[str, tuple[str, ...]] = {
    "etcd": ("etcd-server", "etcd-peer", "etcd-healthcheck-client"),
    "kube-apiserver": (
        "apiserver", "apiserver-kubelet-client", "apiserver-etcd-client", "front-proxy-client",
    ),
    "kube-controller-manager": ("controller-manager.conf",),
    "kube-scheduler": ("scheduler.conf",),
}  # fmt: skip
"""The certificates that each program uses, which are renewed with it."""

Healthy = Callable[[], Awaitable[str | None]]
"""Says what is wrong with a program; None where nothing is."""
Reported = Callable[[], Awaitable[Object | None]]
"""The static Pod as the API shows it; None where it does not."""


class UpgradePod(Phase):
    """One static Pod as another version has it.

    One that means the same stays with its certificates, as in kubeadm. The old manifest is kept in `backup`; where
    the new one does not run and serve within `deadline` seconds, it is put back. Where a run was interrupted after
    it had written the new manifest, the next one waits for the program.
    """

    name: ClassVar[str] = "control-plane"
    title: ClassVar[str] = "replace a static Pod"

    def __init__(
        self,
        node: Node,
        component: str,
        pod: Object,
        *,
        cri_socket: str,
        backup: str,
        healthy: Healthy,
        reported: Reported,
        certificates: CertSettings | None = None,
        data_dir: str = "",
        deadline: float = 300.0,
    ) -> None:
        """`certificates` None renews none; `data_dir`, etcd's, is copied before anything is changed."""
        self._node = node
        self.host_name = node.name
        self.title = f"replace {component}"  # type: ignore[misc]  # one class serves all four
        self._component = component
        self._pod = pod
        self._socket = cri_socket
        self._backup = backup
        self._healthy = healthy
        self._reported = reported
        self._certificates = certificates
        self._data_dir = data_dir
        self._deadline = deadline
        self._path = manifest_path(component)
        self._old = b""
        self._replaced: frozenset[str] = frozenset()
        self._written = False

    async def look(self) -> list[Change]:
        """How it differs."""
        self._old = await self._node.host.read_file(self._path) or b""
        before = read_mapping(self._old)
        if before is not None and same_manifest(before, self._pod):
            self._written = True
            why = await self._not_by_manifest()
            return (
                [Change(Action.RUN, f"wait for {self._component}", self.host_name, (f"# {why}",))]
                if why
                else []
            )
        lines = tuple(model.manifest_diff(self._path, before, self._pod)[2:])
        action = Action.CREATE if before is None else Action.UPDATE
        changes = [Change(action, self._path, self.host_name, lines)]
        if self._certificates is not None:
            changes += await self._renewal().look()
        return changes

    def _renewal(self) -> RenewCertificates:
        assert self._certificates is not None
        return RenewCertificates(self._node.host, self._certificates, CERTIFICATES[self._component])

    async def act(self, changes: Sequence[Change], activity: Activity) -> None:
        """Copy what is needed to go back, renew, replace."""
        if self._written:
            return
        host = self._node.host
        self._replaced = frozenset(await self._containers())
        activity.progress("keep a copy")
        script = 'umask 077; mkdir -p "$1" && { [ ! -f "$2" ] || cp -p "$2" "$1/"; }'
        await host.shell(script, self._backup, self._path)
        if self._data_dir:
            await self._copy_data()
        if self._certificates is not None:
            renewal = self._renewal()
            if found := await renewal.look():
                activity.progress("renew its certificates")
                await renewal.act(found, activity)
        activity.progress("replace it")
        await host.write_file(self._path, to_yaml(self._pod), mode=MANIFEST_MODE)

    async def _copy_data(self) -> None:
        """kubeadm's backup of a member's data, beside the manifest's. A disk without room for it stops all."""
        script = 'umask 077; mkdir -p "$2" && cp -a "$1/." "$2/"'
        copy = f"{self._backup.replace('kubeadm-backup-manifests', 'kubeadm-backup-etcd')}/etcd"
        done = await self._node.host.shell(script, self._data_dir, copy, check=False, timeout=600)
        if not done.ok:
            raise HostError(
                f"{self.host_name}: {self._data_dir} could not be copied to {copy}, and nothing was changed",
                host=self.host_name, evidence=done.err.splitlines()[-3:], exit_code=ExitCode.HOST_DISK_FULL,
                hint="make room, or leave etcd as it is: --etcd-upgrade=false",
            )  # fmt: skip

    async def _containers(self) -> dict[str, str]:
        """This program's running containers: their ids, and the uid of each one's Pod."""
        async with open_cri(self._node.host, self._socket) as cri:
            found = await system_containers(cri, [self._component])
        return {one.id: pod.uid for one, pod in found if one.running}

    async def _not_by_manifest(self) -> str | None:
        """Why the program does not run by the manifest that is there, or does not serve; None where it does.

        The kubelet gives a static Pod the hash of its manifest for an id, and shows the hash in the API: kubeadm,
        too, tells by it that the kubelet has read a new manifest.
        """
        try:
            shown = await self._reported()
        except ApiError as error:
            if not error.passes:
                raise
            return error.message
        if shown is None or not model.same_program(shown, self._pod, self._component):
            return "the kubelet has not read its manifest yet"
        uids, wanted = set((await self._containers()).values()), model.manifest_hash(shown)
        if wanted not in uids:
            return "no container of its manifest runs"
        if uids != {wanted}:
            return self._ending
        return await self._healthy()

    @property
    def _ending(self) -> str:
        """The kubelet may start the new one before the old one has ended, which answers for it until then."""
        return f"the {self._component} before it has not ended yet"

    async def verify(self, activity: Activity) -> None:
        """Wait until it runs anew and serves; put the old one back where it does not, if this run replaced it."""
        if self._written:
            await self._verify_written(activity)
            return

        async def missing() -> str | None:
            running = (await self._containers()).keys()
            if running <= self._replaced:
                return f"the kubelet has not started the new {self._component} yet"
            if running & self._replaced:
                return self._ending
            return await self._healthy()

        try:
            await wait_until(
                missing, f"{self.host_name}: {self._component} to run in its new version", deadline=self._deadline,
                interval=0.25, diagnose=self._diagnose, progress=activity.progress,
            )  # fmt: skip
        except (WaitTimeoutError, HostError) as error:
            await self._put_back(error, activity)

    async def _verify_written(self, activity: Activity) -> None:
        """Wait for a program whose manifest an earlier run has written. What that one replaced is not put back: it
        may be long ago, and the program may have failed since for another reason."""
        try:
            await wait_until(
                self._not_by_manifest, f"{self.host_name}: {self._component} to run by its manifest",
                deadline=self._deadline, interval=0.25, diagnose=self._diagnose, progress=activity.progress,
            )  # fmt: skip
        except WaitTimeoutError as error:
            search = f'ls -d {BACKUPS}*/"$1" 2>/dev/null | tail -n 1'
            kept = (await self._node.host.shell(search, f"{self._component}.yaml", check=False)).text
            raise HostError(
                f"{self.host_name}: {self._component} does not run by {self._path}, its manifest in this version",
                host=self.host_name, exit_code=ExitCode.COMPONENT_FAILED,
                evidence=[error.message, *error.evidence, *([f"the manifest before it: {kept}"] if kept else [])],
                hint="mend what its last lines say, then run the same command again"
                + ("; or copy the manifest before it back, then run it again" if kept else ""),
            ) from error  # fmt: skip

    async def _diagnose(self) -> list[str]:
        host = self._node.host
        return [
            *await container_evidence(host, self._component),
            *await unit_evidence(host, "kubelet", lines=5),
        ]

    async def _put_back(self, why: KubewrightError, activity: Activity) -> None:
        """Restore the old manifest, wait until it serves, and raise `HostError` that says how it ended."""
        activity.progress("put the old one back")
        host = self._node.host
        kept = f"the manifest as it was: {self._backup}/{self._component}.yaml"
        if not self._old:
            await host.run(["rm", "-f", self._path])
        else:
            await host.write_file(self._path, self._old, mode=MANIFEST_MODE)
        ended = "its old manifest was put back, and it serves again"
        try:
            await wait_until(
                self._healthy, f"{self.host_name}: the old {self._component} to serve again", deadline=_BACK
            )
        except (WaitTimeoutError, HostError) as again:
            ended = f"its old manifest was put back, and it does not serve yet: {again.message}"
        raise HostError(
            f"{self.host_name}: {self._component} could not be upgraded; {ended}",
            host=self.host_name, evidence=[why.message, *why.evidence, kept], exit_code=ExitCode.COMPONENT_FAILED,
            hint="mend what its last lines say, then run the same command again: what is upgraded stays",
        ) from why  # fmt: skip
