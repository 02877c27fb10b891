"""`etcd` of a cluster.yaml: an etcd cluster outside the control planes, and what kubeadm is told of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from kubewright.model.config import syntax
from kubewright.model.config.kubeadm_types import ClusterConfiguration, Etcd, ExternalEtcd
from kubewright.model.config.strict import Strict
from kubewright.model.node import host_port

if TYPE_CHECKING:
    from kubewright.model.config.cluster import ClusterSpec

CLIENT_PORT = 2379

LocalFile = Annotated[str, AfterValidator(syntax.path)]


class EtcdSpec(Strict):
    """An etcd cluster of your own. The three files are on this computer, and are brought to the control planes."""

    endpoints: list[Annotated[str, AfterValidator(syntax.https_url)]] = Field(
        min_length=1,
        description="The client URLs of its members.",
        examples=[["https://10.0.0.21:2379", "https://10.0.0.22:2379", "https://10.0.0.23:2379"]],
    )
    ca_file: LocalFile = Field(
        description="The authority that has signed the members' certificates. A path is relative to the directory "
        "of this file; `~` is your home directory.",
        examples=["etcd/ca.crt"],
    )
    cert_file: LocalFile = Field(
        description="The client certificate by which the API servers use it.", examples=["etcd/client.crt"]
    )
    key_file: LocalFile = Field(description="That certificate's key.", examples=["etcd/client.key"])


def with_external_etcd(spec: ClusterSpec, cc: ClusterConfiguration) -> ClusterConfiguration:
    """A ClusterConfiguration that names the etcd of `etcd` or of the hosts with the role `etcd`, if there is one.

    The files are where kubeadm's guide to external etcd puts them. Of a host without a `nodeIP` the endpoint is a
    guess until the host has been looked at (`with_endpoints`).
    """
    if spec.etcd is not None:
        endpoints = list(spec.etcd.endpoints)
    elif spec.etcd_hosts:
        endpoints = [f"https://{host_port(h.node_ip or h.address, CLIENT_PORT)}" for h in spec.etcd_hosts]
    else:
        return cc
    return with_endpoints(cc, endpoints)


def with_endpoints(cc: ClusterConfiguration, endpoints: list[str]) -> ClusterConfiguration:
    """The same cluster with these members of an etcd outside the control planes."""
    directory = cc.certificates_dir
    external = ExternalEtcd(
        endpoints=endpoints,
        ca_file=f"{directory}/etcd/ca.crt",
        cert_file=f"{directory}/apiserver-etcd-client.crt",
        key_file=f"{directory}/apiserver-etcd-client.key",
    )
    return cc.model_copy(update={"etcd": Etcd(external=external)})


def even_or_single(count: int) -> str:
    """What is to be said of an etcd with so many members that vote; empty where nothing is (P01)."""
    if count == 1:
        return "etcd has one member: when it is lost, so is the cluster (P01); give it three"
    if count and count % 2 == 0:
        return (
            f"etcd has {count} members, an even number, which bears no more losses than {count - 1} do (P01); "
            f"give it {count - 1} or {count + 1}"
        )
    return ""
