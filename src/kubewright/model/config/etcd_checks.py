"""What must hold between a cluster's etcd, its hosts, and kubeadm's configuration of it."""

from __future__ import annotations

from collections.abc import Iterator

from kubewright.model.config.cluster import ClusterSpec, Role
from kubewright.model.config.findings import Finding
from kubewright.model.config.kubeadm import FIELD, ClusterConfiguration

_STACKED = (
    "leave the role etcd out for an etcd on the control planes themselves, or give it to hosts of its own"
)


def etcd_findings(spec: ClusterSpec, cc: ClusterConfiguration) -> list[Finding]:
    """All mistakes; `cc` is the cluster's complete ClusterConfiguration."""
    return [*_roles(spec), *_one_place(spec), *_endpoints(spec), *_encrypted(spec, cc)]


def _roles(spec: ClusterSpec) -> Iterator[Finding]:
    for index, host in enumerate(spec.hosts):
        if Role.ETCD not in host.roles:
            continue
        path = ("hosts", index, "roles")
        if host.is_control_plane:
            yield Finding(path, "etcd and control-plane do not go together on one host", hint=_STACKED)
        elif host.is_node:
            yield Finding(
                path,
                "etcd and worker do not go together on one host: pods would take its disk and memory",
                hint="leave one of them out; load-balancer goes with etcd",
            )


def _one_place(spec: ClusterSpec) -> Iterator[Finding]:
    said = spec.cluster_configuration.get("etcd")
    if spec.etcd is not None and spec.etcd_hosts:
        names = ", ".join(host.name for host in spec.etcd_hosts)
        yield Finding(
            ("etcd",), f"an etcd of your own, and hosts with the role etcd ({names}): which is it?",
            hint="leave out either",
        )  # fmt: skip
    if said and spec.etcd is not None:
        yield Finding(
            (FIELD, "etcd"), "etcd is said twice, here and in `etcd`", hint="say it in one place only: etcd"
        )
    elif said and spec.etcd_hosts:
        yield Finding(
            (FIELD, "etcd"),
            "contradicts the hosts with the role etcd, of which all of this follows",
            hint="leave it out",
        )


def _endpoints(spec: ClusterSpec) -> Iterator[Finding]:
    urls = spec.etcd.endpoints if spec.etcd is not None else []
    for index, url in enumerate(urls):
        if url in urls[:index]:
            yield Finding(("etcd", "endpoints", index), f"{url!r} stands here twice")


def _encrypted(spec: ClusterSpec, cc: ClusterConfiguration) -> Iterator[Finding]:
    """P01: whoever reaches an etcd without client certificates reads all Secrets and can be anybody."""
    external = cc.etcd.external
    if external is None or spec.etcd is not None or spec.etcd_hosts:
        return
    path = (FIELD, "etcd", "external")
    files = {"caFile": external.ca_file, "certFile": external.cert_file, "keyFile": external.key_file}
    missing = [name for name, file in files.items() if not file]
    if missing:
        yield Finding(
            path,
            f"{', '.join(missing)} missing: an etcd without TLS in both directions is open to all (P01)",
            hint="give caFile, certFile and keyFile, paths on the control planes; or use the field `etcd`, whose "
            "files are on this computer",
        )
