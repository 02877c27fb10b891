"""What is looked at of an etcd outside the control planes before `apply` changes anything."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from kubewright.clients.etcd import Credentials, EtcdClient, EtcdError
from kubewright.errors import ExitCode, HostError
from kubewright.events import Events
from kubewright.model.config.cluster import ClusterSpec
from kubewright.model.config.etcd import even_or_single
from kubewright.model.config.kubeadm_types import ClusterConfiguration, ExternalEtcd
from kubewright.model.etcd_endpoints import findings, leftovers, switched, used_endpoints, warnings
from kubewright.model.etcd_hosts import EtcdHostLook, host_findings, is_formed
from kubewright.model.manifests import API_SERVER, ETCD, manifest_path
from kubewright.model.objects import read_mapping
from kubewright.model.preflight import Finding, refuse
from kubewright.phases.etcd_hosts import EtcdHosts
from kubewright.phases.etcd_outside import ask, host_credentials, local_credentials
from kubewright.phases.node import Node

_API_SERVER_PATH, _ETCD_PATH = manifest_path(API_SERVER), manifest_path(ETCD)


class EtcdCheck:
    """Whether the etcd of cluster.yaml will do, for these control planes."""

    def __init__(
        self,
        spec: ClusterSpec,
        cluster: ClusterConfiguration,
        planes: Sequence[Node],
        hosts: EtcdHosts,
        absent: Sequence[str],
        events: Events,
    ) -> None:
        self._spec = spec
        self._cluster = cluster
        self._planes = planes
        self._hosts = hosts
        self._absent = absent
        self._events = events
        self.new = False
        """Whether none of the control planes has a cluster yet."""
        self.used: list[str] = []
        """The endpoints of etcd that API servers have."""

    async def run(self) -> dict[str, Credentials]:
        """The files by which each control plane uses an etcd of the user's own, by name; none for any other.

        Raises `ConfigError` and `HostError`, all that is wrong with hosts or endpoints in one.
        """
        external = self._cluster.etcd.external
        manifests = {
            node.name: await node.host.read_files([_API_SERVER_PATH, _ETCD_PATH]) for node in self._planes
        }
        looks = await self._hosts.looks()
        if self._absent and not looks:
            raise HostError(
                f"none of the hosts of etcd can be reached: {', '.join(self._absent)}",
                exit_code=ExitCode.HOST_UNREACHABLE, hint="start one of them, or name its address as it is now",
            )  # fmt: skip
        found = host_findings(looks, self._absent) if looks else []
        refuse(found + self._of_planes(external, manifests, looks))
        self.new = not any(_API_SERVER_PATH in files for files in manifests.values())
        if external is None:
            return {}
        if looks:
            self._say_number(len(self._spec.etcd_hosts))
            if self.new and is_formed(looks):
                async with self._hosts.client() as etcd:
                    await self.refuse_another_cluster(etcd)
            return {}
        return await self._endpoints(external)

    def _of_planes(
        self,
        external: ExternalEtcd | None,
        manifests: Mapping[str, Mapping[str, bytes]],
        looks: Sequence[EtcdHostLook],
    ) -> list[Finding]:
        found = []
        for name, files in manifests.items():
            used = used_endpoints(read_mapping(files.get(_API_SERVER_PATH, b"")))
            self.used += [url for url in used if url not in self.used]
            if external is not None:
                founded = not looks or is_formed(looks)
                found += leftovers(name, _ETCD_PATH in files)
                found += switched(name, used, external.endpoints, founded=founded)
            elif _ETCD_PATH not in files and not all("127.0.0.1:" in url or "[::1]:" in url for url in used):
                found += switched(name, used, [])
        return found

    async def _endpoints(self, external: ExternalEtcd) -> dict[str, Credentials]:
        keys = await self._keys(external)
        async with self._events.phase("etcd-check", "check the endpoints of etcd") as activity:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(ask(node, url, keys[node.name]))
                    for node in self._planes
                    for url in external.endpoints
                ]
            answers = [task.result() for task in tasks]
            refuse(findings(answers, len(external.endpoints)))
            if self.new:
                first = self._planes[0]
                async with EtcdClient(external.endpoints, keys[first.name], first.host.forward_tcp) as etcd:
                    await self.refuse_another_cluster(etcd)
            activity.summary(f"etcd serves, with {max(one.voters for one in answers)} members")
        for text in warnings(answers):
            self._events.warn(text)
        self._say_number(max(one.voters for one in answers))
        return keys

    async def _keys(self, external: ExternalEtcd) -> dict[str, Credentials]:
        if self._spec.etcd is None:
            return await host_credentials(self._planes, external)
        return dict.fromkeys([node.name for node in self._planes], local_credentials(self._spec.etcd))

    def _say_number(self, count: int) -> None:
        if text := even_or_single(count):
            self._events.warn(text)

    async def refuse_another_cluster(self, etcd: EtcdClient) -> None:
        """A new cluster must not find the objects of another one, which it would take for its own (P35).

        Raises `HostError`; an etcd that does not serve is not asked.
        """
        extra = self._cluster.api_server.extra_args
        prefix = "/" + extra.get("etcd-prefix", "/registry").strip("/") + "/"
        try:
            full = await etcd.has_keys(prefix)
        except EtcdError as error:
            if error.passes:
                return
            raise
        if full:
            raise HostError(
                f"etcd holds the objects of a cluster below {prefix}, and no control plane of cluster.yaml is in "
                "it (P35)",
                exit_code=ExitCode.HOST_IN_OTHER_CLUSTER,
                hint="give this cluster another prefix (clusterConfiguration.apiServer.extraArgs.etcd-prefix), or "
                f"remove what is there if nobody needs it: etcdctl del --prefix {prefix}",
            )
