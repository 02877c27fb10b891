"""kubeadm's ClusterConfiguration as one model for all API versions: what any of them can say."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from kubewright.model.config import syntax
from kubewright.model.config.duration import normal_duration
from kubewright.model.config.strict import Strict
from kubewright.model.extra_args import ExtraArgs

AbsolutePath = Annotated[str, AfterValidator(syntax.absolute_path)]
AlternativeNames = list[Annotated[str, AfterValidator(syntax.alternative_name)]]
Flag = Annotated[bool, Field(strict=True)]
Duration = Annotated[str, AfterValidator(normal_duration)]
EncryptionAlgorithm = Literal["RSA-2048", "RSA-3072", "RSA-4096", "ECDSA-P256", "ECDSA-P384"]


class HostPathMount(Strict):
    """A path of the host, mounted into a control plane's static Pod."""

    name: str
    """The volume's name inside the Pod."""
    host_path: AbsolutePath
    """The path on the host."""
    mount_path: AbsolutePath
    """The path inside the container."""
    read_only: bool = Field(default=False, strict=True)
    """Whether the container can only read it."""
    path_type: Literal[
        "", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"
    ] = ""
    """What stands at the path, or is made there; empty for no check."""


class FieldRef(Strict):
    """A field of the Pod."""

    api_version: str = "v1"
    """The API version in which its path is written."""
    field_path: str
    """Its path, such as `status.podIP`."""


class ResourceFieldRef(Strict):
    """A resource of a container."""

    container_name: str = ""
    """The container; by default the one that gets the variable."""
    resource: str
    """The resource, such as `limits.cpu`."""
    divisor: str = ""
    """The unit in which it is given."""


class KeyRef(Strict):
    """A key of a ConfigMap or Secret."""

    name: str = ""
    """The object's name."""
    key: str
    """The key in it."""
    optional: Flag = False
    """Whether it may be missing."""


class EnvVarSource(Strict):
    """Where a variable's value comes from: exactly one of these."""

    field_ref: FieldRef | None = None
    """A field of the Pod."""
    resource_field_ref: ResourceFieldRef | None = None
    """A resource of a container."""
    config_map_key_ref: KeyRef | None = None
    """A key of a ConfigMap; the kubelet gives static Pods none."""
    secret_key_ref: KeyRef | None = None
    """A key of a Secret; the kubelet gives static Pods none."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len([name for name in type(self).model_fields if getattr(self, name) is not None]) != 1:
            raise ValueError(
                "must say exactly one of fieldRef, resourceFieldRef, configMapKeyRef and secretKeyRef"
            )
        return self


class EnvVar(Strict):
    """An environment variable of a static Pod's container."""

    name: Annotated[str, Field(min_length=1)]
    """Its name."""
    value: str = ""
    """Its value."""
    value_from: EnvVarSource | None = None
    """Where its value comes from instead."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.value and self.value_from:
            raise ValueError("value and valueFrom exclude each other")
        return self


class ControlPlaneComponent(Strict):
    """What is added to one of the control plane's programs."""

    extra_args: ExtraArgs = Field(default=ExtraArgs())
    """Flags without their dashes, over kubeadm's own."""
    extra_volumes: list[HostPathMount] = Field(default=[])
    """Paths of the host to mount."""
    extra_envs: list[EnvVar] = Field(default=[])
    """Environment variables, over kubeadm's own (v1beta4)."""


class APIServer(ControlPlaneComponent):
    """What is added to kube-apiserver and its certificate."""

    cert_sans: list[Annotated[str, AfterValidator(lambda name: syntax.alternative_name(name.lower()))]] = (
        Field(default=[], alias="certSANs")
    )
    """Further names and addresses for the serving certificate."""
    timeout_for_control_plane: Duration = "4m0s"
    """How long a start of the API server may take (until v1beta3; then `timeouts` of InitConfiguration)."""


class DNS(Strict):
    """The cluster DNS add-on."""

    type: Literal["CoreDNS"] = "CoreDNS"
    """The server (v1beta2 only); kube-dns has ended."""
    image_repository: str = ""
    """Where its image is, instead of the cluster's `imageRepository`."""
    image_tag: str = ""
    """Its image's tag, instead of the version's own."""
    disabled: Flag = False
    """Whether it is left out (v1beta4)."""


class Proxy(Strict):
    """kube-proxy, as an add-on (v1beta4)."""

    disabled: Flag = False
    """Whether it is left out."""


class LocalEtcd(Strict):
    """etcd as a static Pod on each control plane."""

    image_repository: str = ""
    """Where its image is, instead of the cluster's `imageRepository`."""
    image_tag: str = ""
    """Its image's tag, instead of the version's own."""
    data_dir: AbsolutePath = "/var/lib/etcd"
    """Where it keeps its data on the host."""
    extra_args: ExtraArgs = Field(default=ExtraArgs())
    """Flags without their dashes, over kubeadm's own."""
    extra_envs: list[EnvVar] = Field(default=[])
    """Environment variables, over kubeadm's own (v1beta4)."""
    server_cert_sans: AlternativeNames = Field(default=[], alias="serverCertSANs")
    """Further names and addresses for its serving certificate."""
    peer_cert_sans: AlternativeNames = Field(default=[], alias="peerCertSANs")
    """Further names and addresses for its peer certificate."""


class ExternalEtcd(Strict):
    """An etcd cluster that stands by itself."""

    endpoints: list[str] = Field(default=[])
    """The URLs of its members."""
    http_endpoints: list[str] = Field(default=[])
    """The URLs of their metrics and health, where those are elsewhere (v1beta4, from Kubernetes 1.35 on)."""
    ca_file: str = ""
    """The certificate authority of its servers."""
    cert_file: str = ""
    """The API server's client certificate."""
    key_file: str = ""
    """That certificate's key."""


class Etcd(Strict):
    """Where the cluster's state is kept: exactly one of the two."""

    local: LocalEtcd | None = None
    """etcd on the control planes; the default."""
    external: ExternalEtcd | None = None
    """etcd elsewhere."""


class Networking(Strict):
    """The cluster's networks."""

    service_subnet: Annotated[str, AfterValidator(syntax.subnet)] = "10.96.0.0/12"
    """As `network.serviceSubnet`."""
    pod_subnet: Annotated[str, AfterValidator(syntax.or_empty(syntax.subnet))] = ""
    """As `network.podSubnet`."""
    dns_domain: Annotated[str, AfterValidator(syntax.dns_domain)] = "cluster.local"
    """As `network.dnsDomain`."""


class ClusterConfiguration(Strict):
    """What holds for the whole control plane. The field names in files are those of v1beta2."""

    etcd: Etcd = Etcd(local=LocalEtcd())
    """Where the cluster's state is kept."""
    networking: Networking = Networking()
    """The cluster's networks."""
    kubernetes_version: Annotated[str, AfterValidator(syntax.kubernetes_version)] = "v1.20.2"
    """As `kubernetesVersion`."""
    control_plane_endpoint: Annotated[str, AfterValidator(syntax.or_empty(syntax.endpoint))] = ""
    """As `endpoint`; empty for the one control plane's address."""
    api_server: APIServer = APIServer()
    """What is added to kube-apiserver."""
    controller_manager: ControlPlaneComponent = ControlPlaneComponent()
    """What is added to kube-controller-manager."""
    scheduler: ControlPlaneComponent = ControlPlaneComponent()
    """What is added to kube-scheduler."""
    dns: DNS = DNS()
    """Cluster DNS's image."""
    proxy: Proxy = Proxy()
    """kube-proxy (v1beta4)."""
    certificates_dir: AbsolutePath = "/etc/kubernetes/pki"
    """Where the certificates and keys are on a control plane."""
    image_repository: str = "k8s.gcr.io"
    """Where all images are."""
    use_hyper_kube_image: bool = Field(default=False, strict=True)
    """No such image exists any more (v1beta2 only)."""
    feature_gates: dict[str, Annotated[bool, Field(strict=True)]] = Field(default={})
    """kubeadm's own feature gates."""
    cluster_name: Annotated[str, AfterValidator(syntax.cluster_name)] = "kubernetes"
    """As `name`."""
    encryption_algorithm: EncryptionAlgorithm = "RSA-2048"
    """The algorithm of all keys that are made (v1beta4; before, the feature gate PublicKeysECDSA)."""
    certificate_validity_period: Duration = "8760h0m0s"
    """How long certificates live that are no CA's (v1beta4)."""
    ca_certificate_validity_period: Duration = Field(
        default="87600h0m0s", alias="caCertificateValidityPeriod"
    )
    """How long those of CAs live (v1beta4)."""
