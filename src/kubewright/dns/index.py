"""The cluster as the names see it: services, endpoints, namespaces and pods, indexed. Pure; no I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator

from kubewright.dns.objects import Endpoint, Pod, Port, Service, Slice

Tag = tuple[str, str]

NAMESPACES: Tag = ("", "")
"""The tag of answers that depend on nothing but which namespaces exist."""


class Index:
    """Lookups take constant time; a change costs as much as what it changes.

    Every `put_…` and `drop_…` returns the tags of the answers that may differ from now on: (namespace, service),
    ("", address), or `NAMESPACES` where any answer may.
    """

    def __init__(self) -> None:
        self.changes = 1
        """How many changes there were: the zone's serial number."""
        self._services: dict[tuple[str, str], Service] = {}
        self._slices: dict[tuple[str, str], dict[str, Slice]] = {}
        self._slice_owner: dict[tuple[str, str], str] = {}
        self._cluster_ips: dict[str, tuple[str, str]] = {}
        # address -> (namespace, service, slice, label) -> ready
        self._reverse: dict[str, dict[tuple[str, str, str, str], bool]] = {}
        self._namespaces: set[str] = set()
        self._pods: dict[tuple[str, str], Pod] = {}
        self._pod_ips: dict[tuple[str, str], set[str]] = {}

    # -- questions --------------------------------------------------------------------------------------------

    def service(self, namespace: str, name: str) -> Service | None:
        """One service."""
        return self._services.get((namespace, name))

    def live(self, service: Service) -> Iterator[tuple[tuple[Port, ...], Endpoint]]:
        """The endpoints that a service's names lead to, each with its ports."""
        for one in self._slices.get((service.namespace, service.name), {}).values():
            for subset in one.subsets:
                for endpoint in subset.endpoints:
                    if endpoint.ready or service.publish_not_ready:
                        yield subset.ports, endpoint

    def owners(self, address: str) -> Iterator[tuple[str, ...]]:
        """Whose address it is: (service, namespace), or else (label, service, namespace) of each endpoint."""
        if key := self._cluster_ips.get(address):
            yield key[1], key[0]
            return
        for (namespace, service, _, label), ready in self._reverse.get(address, {}).items():
            if (owner := self._services.get((namespace, service))) and (ready or owner.publish_not_ready):
                yield label, service, namespace

    def has_namespace(self, name: str) -> bool:
        """Whether the namespace exists."""
        return name in self._namespaces

    def has_pod_at(self, namespace: str, address: str) -> bool:
        """Whether a pod of that namespace has that address."""
        return (namespace, address) in self._pod_ips

    # -- changes ----------------------------------------------------------------------------------------------

    def put_service(self, new: Service) -> list[Tag]:
        """Add or replace a service."""
        key = (new.namespace, new.name)
        old = self._services.get(key)
        if old == new:
            return []
        tags = [key, *self._forget_addresses(key, old)]
        self._services[key] = new
        for address in new.addresses:
            self._cluster_ips[address] = key
            tags.append(("", address))
        return self._changed(tags + self._reverse_tags(key))

    def drop_service(self, namespace: str, name: str) -> list[Tag]:
        """Remove a service, if there is one."""
        key = (namespace, name)
        old = self._services.pop(key, None)
        if old is None:
            return []
        return self._changed([key, *self._forget_addresses(key, old), *self._reverse_tags(key)])

    def put_slice(self, new: Slice) -> list[Tag]:
        """Add or replace endpoints of the service that the slice names, whether that is known yet or not."""
        owner = self._slice_owner.get((new.namespace, new.name))
        if owner is not None and self._slices[new.namespace, owner][new.name] == new:
            return []
        tags = self.drop_slice(new.namespace, new.name)
        if not new.service:
            return tags
        key = (new.namespace, new.service)
        self._slice_owner[new.namespace, new.name] = new.service
        self._slices.setdefault(key, {})[new.name] = new
        for endpoint in _endpoints(new):
            entry = (*key, new.name, endpoint.label)
            self._reverse.setdefault(endpoint.address, {})[entry] = endpoint.ready
            tags.append(("", endpoint.address))
        return self._changed([*tags, key])

    def drop_slice(self, namespace: str, name: str) -> list[Tag]:
        """Remove endpoints, if there are any of that name."""
        owner = self._slice_owner.pop((namespace, name), None)
        if owner is None:
            return []
        key = (namespace, owner)
        old = self._slices[key].pop(name)
        if not self._slices[key]:
            del self._slices[key]
        tags = [key]
        for endpoint in _endpoints(old):
            entries = self._reverse.get(endpoint.address, {})
            entries.pop((*key, name, endpoint.label), None)
            if not entries:
                self._reverse.pop(endpoint.address, None)
            tags.append(("", endpoint.address))
        return self._changed(tags)

    def put_namespace(self, name: str) -> list[Tag]:
        """Add a namespace."""
        if name in self._namespaces:
            return []
        self._namespaces.add(name)
        return self._changed([NAMESPACES])

    def drop_namespace(self, name: str) -> list[Tag]:
        """Remove a namespace, if it is known."""
        if name not in self._namespaces:
            return []
        self._namespaces.discard(name)
        return self._changed([NAMESPACES])

    def put_pod(self, new: Pod) -> list[Tag]:
        """Add or replace a pod; needed in the mode "verified" only."""
        key = (new.namespace, new.name)
        if self._pods.get(key) == new:
            return []
        tags = self.drop_pod(*key)
        self._pods[key] = new
        for address in new.addresses:
            self._pod_ips.setdefault((new.namespace, address), set()).add(new.name)
            tags.append(("", address))
        return tags

    def drop_pod(self, namespace: str, name: str) -> list[Tag]:
        """Remove a pod, if it is known."""
        old = self._pods.pop((namespace, name), None)
        for address in old.addresses if old else ():
            names = self._pod_ips[namespace, address]
            names.discard(name)
            if not names:
                del self._pod_ips[namespace, address]
        return [("", address) for address in old.addresses] if old else []

    def services(self) -> list[tuple[str, str]]:
        """The namespace and name of each service."""
        return list(self._services)

    def slices(self) -> list[tuple[str, str]]:
        """The namespace and name of each set of endpoints."""
        return list(self._slice_owner)

    def namespaces(self) -> list[str]:
        """All known namespaces."""
        return list(self._namespaces)

    def pods(self) -> list[tuple[str, str]]:
        """The namespace and name of each pod."""
        return list(self._pods)

    def _changed(self, tags: list[Tag]) -> list[Tag]:
        self.changes += 1
        return tags

    def _forget_addresses(self, key: tuple[str, str], old: Service | None) -> Iterator[Tag]:
        for address in old.addresses if old else ():
            if self._cluster_ips.get(address) == key:
                del self._cluster_ips[address]
            yield ("", address)

    def _reverse_tags(self, key: tuple[str, str]) -> list[Tag]:
        """Endpoints' PTR records depend on their service: on its existence and on publishNotReadyAddresses."""
        slices = self._slices.get(key, {}).values()
        return [("", endpoint.address) for one in slices for endpoint in _endpoints(one)]


def _endpoints(one: Slice) -> Iterator[Endpoint]:
    for subset in one.subsets:
        yield from subset.endpoints
