"""kubeadm's kinds that say what one node is to do: Init-, Join-, Reset- and UpgradeConfiguration, in v1beta4."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from kubewright.model.config import syntax
from kubewright.model.config.duration import normal_duration
from kubewright.model.config.strict import Strict
from kubewright.model.extra_args import ExtraArgs
from kubewright.model.node import is_address
from kubewright.model.tokens import parse_token
from kubewright.secret import Secret

Flag = Annotated[bool, Field(strict=True)]
Duration = Annotated[str, AfterValidator(normal_duration)]
Texts = list[str]
PullPolicy = Literal["Always", "IfNotPresent", "Never"]
TOKEN_GROUP = "system:bootstrappers:kubeadm:default-node-token"  # noqa: S105
_LISTS = ("usages", "groups")
_CERTIFICATE_KEY_BYTES = 32


def _secret(value: Any) -> Secret[str]:
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise ValueError("must be text: write it in quotes")  # noqa: TRY004 (pydantic takes a ValueError)
    return Secret(value)


def _token(value: Secret[str]) -> Secret[str]:
    try:
        parse_token(value)
    except Exception as error:
        raise ValueError(
            "not a bootstrap token: six and sixteen lower-case letters or digits with a dot between"
        ) from error
    return value


def _certificate_key(value: Secret[str]) -> Secret[str]:
    try:
        right = len(bytes.fromhex(value.reveal())) == _CERTIFICATE_KEY_BYTES
    except ValueError:
        right = False
    if not right:
        raise ValueError("not a certificate key: 64 hexadecimal digits (`kubewright certs certificate-key`)")
    return value


SecretText = Annotated[
    Secret[str],
    PlainValidator(_secret),
    PlainSerializer(lambda secret: secret.reveal(), return_type=str),
    WithJsonSchema({"type": "string"}),
]
"""A text that is never shown in messages; written files hold it."""
Token = Annotated[SecretText, AfterValidator(_token)]
CertificateKey = Annotated[SecretText, AfterValidator(_certificate_key)]


def _moment(value: Any) -> datetime:
    """A time as Kubernetes has it: RFC 3339, to the second."""
    if isinstance(value, datetime):
        return value.replace(microsecond=0)
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) and "T" in value else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("is not a time such as 2030-01-02T15:04:05Z")
    return moment.replace(microsecond=0)


Moment = Annotated[datetime, PlainValidator(_moment), WithJsonSchema({"type": "string"})]


def _advertise_address(text: str) -> str:
    if not is_address(text):
        raise ValueError(f"{text[:64]!r} is not an IP address")
    return text


def _node_name(text: str) -> str:
    return syntax.node_name(text.strip().lower())


class Taint(Strict):
    """A taint that the Node is registered with."""

    key: Annotated[str, AfterValidator(syntax.qualified_name)]
    """`[prefix/]name`."""
    value: Annotated[str, AfterValidator(syntax.label_value)] = ""
    """What a toleration is compared with."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
    """What happens to pods that do not tolerate it."""
    time_added: str = ""
    """Set by the cluster for NoExecute taints; of no use here."""


class LocalAPIEndpoint(Strict):
    """Where this node's own API server listens."""

    advertise_address: Annotated[str, AfterValidator(syntax.or_empty(_advertise_address))] = ""
    """The address that it announces; empty for that of the default route."""
    bind_port: Annotated[int, Field(ge=1, le=65535, strict=True)] = 6443
    """Its port."""


class NodeRegistrationOptions(Strict):
    """How the node is registered, and what its kubelet is told."""

    name: Annotated[str, AfterValidator(syntax.or_empty(_node_name))] = ""
    """The Node's name, which is put into lower case; empty for the host's."""
    cri_socket: str = ""
    """The container runtime's socket; empty for the one that is found on the host."""
    taints: list[Taint] | None = None
    """None for kubeadm's own of a control plane; an empty list for none at all."""
    kubelet_extra_args: ExtraArgs = Field(default=ExtraArgs())
    """Flags of the kubelet, over kubeadm's own."""
    ignore_preflight_errors: Texts = Field(default=[])
    """Names of checks whose errors are only warned of; `all` for every one."""
    image_pull_policy: PullPolicy = "IfNotPresent"
    """When the images of the control plane are pulled (from v1beta3 on)."""
    image_pull_serial: Flag = True
    """Whether one image is pulled after the other (v1beta4)."""


class BootstrapTokenSpec(Strict):
    """A token that `init` makes, by which nodes can join."""

    token: Token | None = None
    """The token itself; a random one where it is missing."""
    description: str = ""
    """What it is for."""
    ttl: Duration | None = None
    """How long it lives; `0s` for ever. Without it and without `expires`: 24 hours."""
    expires: Moment | None = None
    """Until when it lives, instead of `ttl`."""
    usages: Texts = Field(default=["signing", "authentication"])
    """`signing` of cluster-info, and `authentication` of a joining kubelet."""
    groups: Texts = Field(default=[TOKEN_GROUP])
    """The groups that its bearer is in."""

    @model_validator(mode="before")
    @classmethod
    def _groups_of_usages(cls, data: Any) -> Any:
        """Empty lists are not said, as in kubeadm; a token that authenticates nobody is in no group."""
        if not isinstance(data, dict):
            return data
        kept = {name: value for name, value in data.items() if name not in _LISTS or value != []}
        usages = kept.get("usages")
        if "groups" not in kept and isinstance(usages, list) and "authentication" not in usages:
            kept["groups"] = []
        return kept


class Patches(Strict):
    """Changes to the files that kubeadm writes."""

    directory: str = ""
    """A directory of files named `target[suffix][+patchtype].extension`, such as `kube-apiserver0+merge.yaml`."""


class Timeouts(Strict):
    """How long to wait for what (v1beta4)."""

    control_plane_component_health_check: Duration = "4m0s"
    """For each of the control plane's programs to answer."""
    kubelet_health_check: Duration = "4m0s"
    """For the kubelet to answer."""
    kubernetes_api_call: Duration = Field(default="1m0s", alias="kubernetesAPICall")
    """For a request to the API server."""
    etcd_api_call: Duration = Field(default="2m0s", alias="etcdAPICall")
    """For a request to etcd."""
    tls_bootstrap: Duration = Field(default="5m0s", alias="tlsBootstrap")
    """For a joining kubelet to get its certificate."""
    discovery: Duration = "5m0s"
    """For a joining node to know its cluster."""
    upgrade_manifests: Duration = "5m0s"
    """For a static Pod to run again after its manifest has been changed."""


class InitConfiguration(Strict):
    """What `init` does on its node."""

    bootstrap_tokens: Annotated[
        list[BootstrapTokenSpec], AfterValidator(lambda tokens: tokens or [BootstrapTokenSpec()])
    ] = Field(default=[BootstrapTokenSpec()])
    """The tokens to make; an empty list is the default's one, as with kubeadm."""
    dry_run: Flag = False
    """Whether to only say what would be done."""
    node_registration: NodeRegistrationOptions = NodeRegistrationOptions()
    """How the node is registered."""
    local_api_endpoint: LocalAPIEndpoint = Field(default=LocalAPIEndpoint(), alias="localAPIEndpoint")
    """Where its API server listens."""
    certificate_key: CertificateKey | None = None
    """The key under which the phase upload-certs encrypts the certificates."""
    skip_phases: Texts = Field(default=[])
    """Phases to leave out; the flag goes before it."""
    patches: Patches = Patches()
    """Changes to the files that are written."""
    timeouts: Timeouts = Timeouts()
    """How long to wait for what."""


class BootstrapTokenDiscovery(Strict):
    """Knowing the cluster by a token."""

    token: Token
    """The token."""
    api_server_endpoint: str = Field(default="", alias="apiServerEndpoint")
    """`host:port` of the API."""
    ca_cert_hashes: Texts = Field(default=[], alias="caCertHashes")
    """`sha256:` and 64 hexadecimal digits each: the public keys of which the cluster's CA must have one."""
    unsafe_skip_ca_verification: Flag = Field(default=False, alias="unsafeSkipCAVerification")
    """Whether to do without such a hash."""


class FileDiscovery(Strict):
    """Knowing the cluster by a kubeconfig."""

    kube_config_path: str
    """The file's path, or an `https` URL of it."""


class Discovery(Strict):
    """How a joining node gets to know the cluster: by exactly one of token and file."""

    bootstrap_token: BootstrapTokenDiscovery | None = None
    """By a token."""
    file: FileDiscovery | None = None
    """By a kubeconfig."""
    tls_bootstrap_token: Token | None = Field(default=None, alias="tlsBootstrapToken")
    """The token with which the kubelet asks for its certificate; by default that of the discovery."""


class JoinControlPlane(Strict):
    """What makes a joining node a control plane."""

    local_api_endpoint: LocalAPIEndpoint = Field(default=LocalAPIEndpoint(), alias="localAPIEndpoint")
    """Where its API server listens."""
    certificate_key: CertificateKey | None = None
    """The key by which the uploaded certificates are decrypted."""


class JoinConfiguration(Strict):
    """What `join` does on its node."""

    dry_run: Flag = False
    """Whether to only say what would be done."""
    node_registration: NodeRegistrationOptions = NodeRegistrationOptions()
    """How the node is registered."""
    ca_cert_path: str = Field(default="/etc/kubernetes/pki/ca.crt", alias="caCertPath")
    """Where the cluster's CA is put."""
    discovery: Discovery
    """How the node gets to know the cluster."""
    control_plane: JoinControlPlane | None = None
    """Set for a further control plane."""
    skip_phases: Texts = Field(default=[])
    """Phases to leave out; the flag goes before it."""
    patches: Patches = Patches()
    """Changes to the files that are written."""
    timeouts: Timeouts = Timeouts()
    """How long to wait for what."""


class ResetConfiguration(Strict):
    """What `reset` does on its node (v1beta4)."""

    cleanup_tmp_dir: Flag = False
    """Whether `/etc/kubernetes/tmp` is emptied, too."""
    certificates_dir: str = "/etc/kubernetes/pki"
    """The directory of certificates to empty."""
    cri_socket: str = ""
    """The container runtime's socket; empty for the one that is found on the host."""
    dry_run: Flag = False
    """Whether to only say what would be done."""
    force: Flag = False
    """Whether to do it without asking."""
    ignore_preflight_errors: Texts = Field(default=[])
    """Names of checks whose errors are only warned of; `all` for every one."""
    skip_phases: Texts = Field(default=[])
    """Phases to leave out; the flag goes before it."""
    unmount_flags: list[Literal["MNT_FORCE", "MNT_DETACH", "MNT_EXPIRE", "UMOUNT_NOFOLLOW"]] = Field(
        default=[]
    )
    """Flags of umount2(2) for the kubelet's mounts."""
    timeouts: Timeouts = Timeouts()
    """How long to wait for what."""


class UpgradeApply(Strict):
    """What `upgrade apply` does."""

    kubernetes_version: str = ""
    """The version to go to."""
    allow_experimental_upgrades: Flag = False
    """Whether alpha, beta and release candidates are allowed."""
    allow_rc_upgrades: Flag = Field(default=False, alias="allowRCUpgrades")
    """Whether release candidates are allowed."""
    certificate_renewal: Flag = True
    """Whether certificates are renewed on the way."""
    dry_run: Flag = False
    """Whether to only say what would be done."""
    etcd_upgrade: Flag = True
    """Whether etcd is upgraded, too."""
    force_upgrade: Flag = False
    """Whether to do it without asking, against what the plan advises."""
    ignore_preflight_errors: Texts = Field(default=[])
    """Names of checks whose errors are only warned of; `all` for every one."""
    patches: Patches = Patches()
    """Changes to the files that are written."""
    print_config: Flag = False
    """Whether the configuration is printed."""
    skip_phases: Texts = Field(default=[])
    """Phases to leave out."""
    image_pull_policy: PullPolicy = "IfNotPresent"
    """When images are pulled."""
    image_pull_serial: Flag = True
    """Whether one image is pulled after the other."""


class UpgradeDiff(Strict):
    """What `upgrade diff` shows."""

    kubernetes_version: str = ""
    """The version to compare with."""
    context_lines: Annotated[int, Field(ge=0, strict=True)] = 3
    """How many unchanged lines are shown around a change."""


class UpgradeNode(Strict):
    """What `upgrade node` does."""

    certificate_renewal: Flag = True
    """Whether certificates are renewed on the way."""
    dry_run: Flag = False
    """Whether to only say what would be done."""
    etcd_upgrade: Flag = True
    """Whether etcd is upgraded, too."""
    ignore_preflight_errors: Texts = Field(default=[])
    """Names of checks whose errors are only warned of; `all` for every one."""
    skip_phases: Texts = Field(default=[])
    """Phases to leave out."""
    patches: Patches = Patches()
    """Changes to the files that are written."""
    image_pull_policy: PullPolicy = "IfNotPresent"
    """When images are pulled."""
    image_pull_serial: Flag = True
    """Whether one image is pulled after the other."""


class UpgradePlan(Strict):
    """What `upgrade plan` shows."""

    kubernetes_version: str = ""
    """The version to go to."""
    allow_experimental_upgrades: Flag = False
    """Whether alpha, beta and release candidates are shown."""
    allow_rc_upgrades: Flag = Field(default=False, alias="allowRCUpgrades")
    """Whether release candidates are shown."""
    dry_run: Flag = False
    """Whether to only say what would be done."""
    etcd_upgrade: Flag = True
    """Whether etcd is upgraded, too."""
    ignore_preflight_errors: Texts = Field(default=[])
    """Names of checks whose errors are only warned of; `all` for every one."""
    print_config: Flag = False
    """Whether the configuration is printed."""


class UpgradeConfiguration(Strict):
    """What the commands of `upgrade` do (v1beta4)."""

    apply: UpgradeApply = UpgradeApply()
    """`upgrade apply`."""
    diff: UpgradeDiff = UpgradeDiff()
    """`upgrade diff`."""
    node: UpgradeNode = UpgradeNode()
    """`upgrade node`."""
    plan: UpgradePlan = UpgradePlan()
    """`upgrade plan`."""
    timeouts: Timeouts = Timeouts()
    """How long to wait for what."""
