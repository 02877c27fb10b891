"""kubeadm's configuration file: its kinds, read out of one YAML stream and written as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kubewright.errors import ConfigError
from kubewright.model.config.api_versions import API_VERSIONS, GROUP, V1BETA4, kinds_in, written
from kubewright.model.config.components import kube_proxy_findings, kubelet_findings
from kubewright.model.config.findings import Finding, FindingsError, did_you_mean, shown
from kubewright.model.config.kinds import KINDS, read_kind
from kubewright.model.config.kubeadm import completed, for_api_version
from kubewright.model.config.kubeadm_checks import (
    cluster_findings,
    init_findings,
    join_findings,
    subnet_findings,
)
from kubewright.model.config.kubeadm_nodes import (
    InitConfiguration,
    JoinConfiguration,
    ResetConfiguration,
    UpgradeConfiguration,
)
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.model.config.strict import Strict, with_defaults
from kubewright.model.config.yamltext import Document, Path
from kubewright.model.config.yamltext import read_documents as read_yaml
from kubewright.model.objects import to_yaml
from kubewright.model.versions import VersionFacts, facts_for

DEFAULT_VERSION: str = ClusterConfiguration.model_fields["kubernetes_version"].default
"""The Kubernetes version where nobody says one."""

KUBELET, KUBE_PROXY = "KubeletConfiguration", "KubeProxyConfiguration"
COMPONENT_KINDS: Mapping[str, str] = {
    KUBELET: "kubelet.config.k8s.io",
    KUBE_PROXY: "kubeproxy.config.k8s.io",
}
"""The kinds of other groups that may stand in the same file, and their groups."""


@dataclass(frozen=True, slots=True)
class Documents:
    """What a configuration file holds; None for a kind that it does not.

    kubeadm's kinds are complete: what is not said has kubeadm's default, as far as it depends on no host. Init-
    and ClusterConfiguration are there both if one of them is in the file.
    """

    init: InitConfiguration | None = None
    join: JoinConfiguration | None = None
    cluster: ClusterConfiguration | None = None
    reset: ResetConfiguration | None = None
    upgrade: UpgradeConfiguration | None = None
    kubelet: Mapping[str, Any] | None = None
    """The user's KubeletConfiguration, as it stands in the file; `components.kubelet_document` completes it."""
    kube_proxy: Mapping[str, Any] | None = None
    """The user's KubeProxyConfiguration; `components.kube_proxy_document` completes it."""
    api_version: str = ""
    """The newest of kubeadm's API versions in the file; empty where it has none of kubeadm's kinds."""

    @property
    def facts(self) -> VersionFacts:
        """The facts of the Kubernetes version that the file says, else of the default one."""
        return facts_for(self.cluster.kubernetes_version if self.cluster else DEFAULT_VERSION)

    def without_cluster(self) -> Documents:
        """The same without Init- and ClusterConfiguration."""
        return replace(self, init=None, cluster=None)

    def kinds(self) -> dict[str, Strict]:
        """kubeadm's kinds that are there, by their names, in the order in which a file has them."""
        models = (self.init, self.cluster, self.join, self.reset, self.upgrade)
        return {kind: model for kind, model in zip(KINDS, models, strict=True) if model is not None}


def read_documents(
    text: str, *, source: str = "kubeadm.yaml", kubernetes_version: str = DEFAULT_VERSION
) -> Documents:
    """The kinds of a file of kubeadm's.

    `kubernetes_version` holds where the file names none. Raises `ConfigError` with every mistake: its kind, path
    and line, the exit code being that of the first one.
    """
    found: list[Finding] = []
    read: dict[str, tuple[Document, str]] = {}
    streams = read_yaml(text, source)
    if not streams:
        raise ConfigError(
            f"{source}: the file is empty",
            hint="`kubewright config print init-defaults` prints one to begin with",
        )
    for number, document in enumerate(streams):
        wrong, kind, api_version = _kind_of(document)
        if not wrong and kind in read:
            line = read[kind][0].line(())
            wrong = Finding(("kind",), f"{kind} stands here twice (first on line {line})")
        if wrong:
            inside: Path = ("documents", number) if len(streams) > 1 or not wrong.path else ()
            found.append(wrong.placed(document, *inside))
        else:
            read[kind] = (document, api_version)

    models: dict[str, Any] = {}
    for kind, (document, api_version) in read.items():
        if kind in KINDS:
            model, findings = read_kind(document.value, KINDS[kind], (api_version,))
            models[kind] = model
            found += [finding.placed(document, kind) for finding in findings]
    cluster = models.get("ClusterConfiguration")
    if cluster is not None and "kubernetes_version" in cluster.model_fields_set:
        kubernetes_version = cluster.kubernetes_version
    try:
        facts = facts_for(kubernetes_version, field="kubernetesVersion")
    except ConfigError as error:
        where = read["ClusterConfiguration"][0] if cluster is not None else Document(None)
        problem = error.message.removeprefix("kubernetesVersion: ")
        finding = Finding(("kubernetesVersion",), problem, error.exit_code, error.hint)
        found.append(finding.placed(where, "ClusterConfiguration"))
        raise FindingsError(found, source) from error
    for kind, (document, _) in read.items():
        for finding in _between(kind, models.get(kind), document.value, facts):
            found.append(finding.placed(document, kind) if kind in KINDS else _line(finding, document))
    if found:
        raise FindingsError(found, source)
    return _documents(read, models, kubernetes_version, facts)


def _kind_of(document: Document) -> tuple[Finding | None, str, str]:
    """A document's kind and API version, or what is wrong with them."""
    value = document.value
    if not isinstance(value, dict):
        return Finding((), f"a mapping of fields is expected, not {shown(value)}"), "", ""
    for name in ("apiVersion", "kind"):
        if value.get(name) is None:
            hint = "every document begins with apiVersion and kind"
            return Finding((name,), "is missing", hint=hint), "", ""
        if not isinstance(value[name], str):
            return Finding((name,), f"must be text, not {shown(value[name])}"), "", ""
    kind, api_version = str(value["kind"]), str(value["apiVersion"])
    group, _, number = api_version.rpartition("/")
    if group == GROUP:
        return _of_kubeadm(kind, api_version, number), kind, api_version
    if COMPONENT_KINDS.get(kind) == group:
        return None, kind, api_version
    if group == "kubewright.dev":
        hint = "give it to `kubewright apply -f`; this command reads kubeadm's kinds"
        return Finding(("kind",), "this is a cluster.yaml", hint=hint), "", ""
    known = [*KINDS, *COMPONENT_KINDS]
    if kind in known:
        right = COMPONENT_KINDS.get(kind, GROUP)
        return Finding(("apiVersion",), f"{shown(api_version)}: {kind} is of the group {right}"), "", ""
    return Finding(("kind",), f"{shown(kind)} of {shown(api_version)} is not one of kubeadm's kinds"), "", ""


def _of_kubeadm(kind: str, api_version: str, number: str) -> Finding | None:
    if api_version not in API_VERSIONS:
        hint = f"write {V1BETA4}, or one of v1beta3 and v1beta2"
        if number.startswith("v1alpha") or number == "v1beta1":
            hint = f"kubeadm 1.20 or older migrates it: `kubeadm config migrate --old-config FILE`; {hint}"
            return Finding(("apiVersion",), f"{shown(api_version)} is too old to be read", hint=hint)
        meant = did_you_mean(api_version, API_VERSIONS)
        return Finding(("apiVersion",), f"{shown(api_version)} is not known{meant}", hint=hint)
    if kind == "ClusterStatus":
        hint = "leave it out"
        return Finding(("kind",), "ClusterStatus is kept by the cluster itself", hint=hint)
    if kind not in kinds_in(api_version):
        if kind in KINDS:
            return Finding(
                ("kind",), f"{kind} is a kind of v1beta4, not of {number}", hint=f"write {V1BETA4}"
            )
        meant = did_you_mean(kind, [*kinds_in(api_version)])
        return Finding(("kind",), f"{shown(kind)} is not a kind of kubeadm's{meant}")
    return None


def _line(finding: Finding, document: Document) -> Finding:
    """A finding whose path begins with the document's kind, with its line."""
    return replace(replace(finding, path=finding.path[1:]).placed(document), path=finding.path)


def _between(kind: str, model: Any, value: Mapping[str, Any], facts: VersionFacts) -> Sequence[Finding]:
    """What is wrong between the fields of a kind, once each of them is right."""
    match kind, model:
        case "KubeletConfiguration", _:
            return kubelet_findings(value, facts, (KUBELET,))
        case "KubeProxyConfiguration", _:
            return kube_proxy_findings(value, facts, (KUBE_PROXY,))
        case _, ClusterConfiguration():
            return [*cluster_findings(model, facts), *subnet_findings(model)]
        case _, InitConfiguration():
            return init_findings(model)
        case _, JoinConfiguration():
            return join_findings(model)
        case _:
            return ()


def _documents(
    read: Mapping[str, tuple[Document, str]],
    models: Mapping[str, Any],
    kubernetes_version: str,
    facts: VersionFacts,
) -> Documents:
    init: InitConfiguration | None = models.get("InitConfiguration")
    cluster: ClusterConfiguration | None = models.get("ClusterConfiguration")
    if init is not None or cluster is not None:
        init, cluster = init or InitConfiguration(), cluster or ClusterConfiguration()
        cluster = _with_version(cluster, kubernetes_version, facts)
        init, cluster = _one_timeout(init, cluster)
        init = _with_token_lives(init)
    versions = [api_version for kind, (_, api_version) in read.items() if kind in KINDS]
    return Documents(
        init=init,
        join=_with_kubelet_token(models.get("JoinConfiguration")),
        cluster=cluster,
        reset=models.get("ResetConfiguration"),
        upgrade=models.get("UpgradeConfiguration"),
        kubelet=read[KUBELET][0].value if KUBELET in read else None,
        kube_proxy=read[KUBE_PROXY][0].value if KUBE_PROXY in read else None,
        api_version=max(versions, key=API_VERSIONS.index, default=""),
    )


def default_documents(kubernetes_version: str = DEFAULT_VERSION) -> Documents:
    """Init- and ClusterConfiguration with all of kubeadm's defaults. Raises `ConfigError`: VERSION_UNAVAILABLE."""
    facts = facts_for(kubernetes_version)
    cluster = _with_version(ClusterConfiguration(), str(facts.version), facts)
    return Documents(
        init=_with_token_lives(InitConfiguration()),
        cluster=cluster,
        api_version=facts.kubeadm_api_versions[0],
    )


def _with_version(
    cluster: ClusterConfiguration, kubernetes_version: str, facts: VersionFacts
) -> ClusterConfiguration:
    defaults: dict[str, Any] = {}
    if "kubernetes_version" not in cluster.model_fields_set:
        defaults["kubernetes_version"] = kubernetes_version
    if "image_repository" not in cluster.model_fields_set:
        defaults["image_repository"] = facts.image_repository
    return with_defaults(completed(cluster), defaults)


def _one_timeout(
    init: InitConfiguration, cluster: ClusterConfiguration
) -> tuple[InitConfiguration, ClusterConfiguration]:
    """How long a control plane may take to start: v1beta4 says it in one kind, older versions in the other."""
    timeouts, api_server = init.timeouts, cluster.api_server
    if "timeout_for_control_plane" in api_server.model_fields_set:
        timeout = {"control_plane_component_health_check": api_server.timeout_for_control_plane}
        return with_defaults(init, {"timeouts": with_defaults(timeouts, timeout)}), cluster
    timeout = {"timeout_for_control_plane": timeouts.control_plane_component_health_check}
    return init, with_defaults(cluster, {"api_server": with_defaults(api_server, timeout)})


def _with_token_lives(init: InitConfiguration) -> InitConfiguration:
    """A bootstrap token that nobody gives an end lives for 24 hours."""
    tokens = [
        with_defaults(token, {"ttl": "24h0m0s"}) if token.ttl is None and token.expires is None else token
        for token in init.bootstrap_tokens
    ]
    return with_defaults(init, {"bootstrap_tokens": tokens})


def _with_kubelet_token(join: JoinConfiguration | None) -> JoinConfiguration | None:
    """The token of the discovery is also the kubelet's; a `file://` URL is the path in it."""
    if join is None:
        return None
    discovery = join.discovery
    update: dict[str, Any] = {}
    if discovery.tls_bootstrap_token is None and discovery.bootstrap_token is not None:
        update["tls_bootstrap_token"] = discovery.bootstrap_token.token
    if discovery.file is not None:
        path = discovery.file.kube_config_path.removeprefix("file://")
        update["file"] = with_defaults(discovery.file, {"kube_config_path": path})
    return with_defaults(join, {"discovery": with_defaults(discovery, update)})


def document_of(model: Strict, kind: str, api_version: str) -> dict[str, Any]:
    """One of kubeadm's kinds as plain values, in alphabetical order, with its `apiVersion` and `kind`."""
    if isinstance(model, ClusterConfiguration):
        model = for_api_version(model, api_version)
    fields = written(model, api_version)
    if isinstance(model, JoinConfiguration) and api_version != V1BETA4:
        fields["discovery"] = dict(
            sorted({**fields["discovery"], "timeout": model.timeouts.discovery}.items())
        )
    return dict(sorted({**fields, "apiVersion": api_version, "kind": kind}.items()))


def write_documents(documents: Documents, api_version: str) -> str:
    """All kinds as one YAML stream, kubeadm's in one API version; what that one cannot say is left out.

    `conversion.unsayable` tells what that is. Tokens and the certificate key are in the text.
    """
    values = [
        document_of(model, kind, api_version)
        for kind, model in documents.kinds().items()
        if kind in kinds_in(api_version)
    ]
    values += [dict(sorted(user.items())) for user in (documents.kubelet, documents.kube_proxy) if user]
    return to_stream(values)


def to_stream(values: Sequence[Mapping[str, Any]]) -> str:
    """Documents of plain values as one YAML stream."""
    return "---\n".join(to_yaml(value).decode() for value in values)


def not_read_by(documents: Documents) -> str:
    """Why the kubeadm of the Kubernetes version that a file names would not read it; empty if it would."""
    cluster, facts = documents.cluster, documents.facts
    if cluster is None or "kubernetes_version" not in cluster.model_fields_set:
        return ""
    if documents.api_version in facts.kubeadm_api_versions:
        return ""
    return f"kubeadm {facts.version} itself does not read {documents.api_version}"
