"""kubeadm's configuration files: read strictly, written in each API version, converted without loss."""

# ruff: noqa: E501 (a case is a row of its table)

from __future__ import annotations

import copy
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.config.kubeadm_files import (
    FULL,
    HASH,
    SOURCE,
    TOKEN,
    check_file,
    mutated,
    same,
    text_of,
)

from kubewright.errors import ConfigError, ExitCode
from kubewright.model.config.api_versions import API_VERSIONS, GROUP, V1BETA2, V1BETA3, V1BETA4
from kubewright.model.config.conversion import not_kept, unsayable
from kubewright.model.config.documents import (
    Documents,
    default_documents,
    not_read_by,
    read_documents,
    write_documents,
)
from kubewright.model.config.findings import FindingsError, shown


def read(*documents: dict[str, Any]) -> Documents:
    return read_documents(text_of(list(documents)), source=SOURCE)


def kind(name: str, api_version: str = "v1beta3", **fields: Any) -> dict[str, Any]:
    return {"apiVersion": f"{GROUP}/{api_version}", "kind": name, **fields}


def findings(*documents: dict[str, Any]) -> FindingsError:
    with pytest.raises(FindingsError) as caught:
        read(*documents)
    return caught.value


@pytest.mark.parametrize("api_version", sorted(FULL))
def test_a_full_file_is_read_and_written_as_it_was(api_version: str) -> None:
    documents = read(*FULL[api_version])
    assert documents.api_version == f"{GROUP}/{api_version}"
    written = {
        one["kind"]: one for one in yaml.safe_load_all(write_documents(documents, documents.api_version))
    }
    assert list(written) == [one["kind"] for one in FULL[api_version]]
    for original in FULL[api_version]:
        assert said_in(written[original["kind"]], original)
    assert same(read(*written.values()), documents)


def said_in(whole: Any, part: Any) -> bool:
    """Whether a document says all that another does, in whatever spelling of durations."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(said_in(whole[name], value) for name, value in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(said_in, whole, part))
    spelled = {
        "90s": "1m30s",
        "150s": "2m30s",
        "1m": "1m0s",
        "3m": "3m0s",
        "2h": "2h0m0s",
        "720h": "720h0m0s",
        "8760h": "8760h0m0s",
    }
    return bool(whole == part or whole == spelled.get(part))


def test_older_files_say_in_v1beta4_what_they_said() -> None:
    for old in ("v1beta2", "v1beta3"):
        documents = read(*FULL[old])
        assert unsayable(documents, V1BETA4) == []
        text = write_documents(documents, V1BETA4)
        assert same(read_documents(text), documents)
        new = {one["kind"]: one for one in yaml.safe_load_all(text)}
        assert new["InitConfiguration"]["timeouts"]["controlPlaneComponentHealthCheck"] == "1m30s"
        assert new["JoinConfiguration"]["timeouts"]["discovery"] == "2m30s"
        assert new["ClusterConfiguration"]["scheduler"]["extraArgs"] == [{"name": "v", "value": "4"}]
        assert new["ClusterConfiguration"]["encryptionAlgorithm"] == (
            "ECDSA-P256" if old == "v1beta2" else "RSA-2048"
        )
        assert "type" not in new["ClusterConfiguration"]["dns"]


def test_what_an_older_version_cannot_say_is_named() -> None:
    documents = read(*FULL["v1beta4"])
    paths = [".".join(str(part) for part in finding.path) for finding in unsayable(documents, V1BETA2)]
    assert paths == [
        "InitConfiguration.dryRun", "InitConfiguration.nodeRegistration.imagePullPolicy",
        "InitConfiguration.nodeRegistration.imagePullSerial", "InitConfiguration.skipPhases",
        "InitConfiguration.patches", "InitConfiguration.timeouts.tlsBootstrap",
        "ClusterConfiguration.etcd.local.extraEnvs", "ClusterConfiguration.apiServer.extraEnvs",
        "ClusterConfiguration.scheduler.extraArgs.v", "ClusterConfiguration.dns.disabled",
        "ClusterConfiguration.proxy", "ClusterConfiguration.encryptionAlgorithm",
        "ClusterConfiguration.certificateValidityPeriod", "ClusterConfiguration.caCertificateValidityPeriod",
        "JoinConfiguration.dryRun", "JoinConfiguration.nodeRegistration.imagePullPolicy",
        "JoinConfiguration.nodeRegistration.imagePullSerial", "JoinConfiguration.skipPhases",
        "JoinConfiguration.patches", "JoinConfiguration.timeouts.tlsBootstrap",
        "ResetConfiguration", "UpgradeConfiguration",
    ]  # fmt: skip
    three = {finding.path[-1] for finding in unsayable(documents, V1BETA3)}
    assert not three & {"imagePullPolicy", "skipPhases", "patches"}


def test_what_kubeadm_config_will_not_hold_is_known_beforehand() -> None:
    fields = {"encryptionAlgorithm": "ECDSA-P256", "certificateValidityPeriod": "720h"}
    kept = {"v1.20.2": [("certificateValidityPeriod",)], "v1.31.12": []}
    for version, missing in kept.items():
        cluster = read(kind("ClusterConfiguration", "v1beta4", kubernetesVersion=version, **fields)).cluster
        assert cluster is not None
        assert [finding.path for finding in not_kept(cluster)] == missing


def test_ecdsa_is_a_gate_in_older_versions_and_an_algorithm_in_v1beta4() -> None:
    new = read(kind("ClusterConfiguration", "v1beta4", encryptionAlgorithm="ECDSA-P256"))
    assert unsayable(new, V1BETA2) == []
    old = yaml.safe_load_all(write_documents(new, V1BETA2))
    gates = [one["featureGates"] for one in old if one["kind"] == "ClusterConfiguration"]
    assert gates == [{"PublicKeysECDSA": True}]
    assert same(read_documents(write_documents(new, V1BETA2)), new)


@pytest.mark.parametrize("api_version", API_VERSIONS)
def test_the_defaults_are_the_same_in_all_versions(api_version: str) -> None:
    documents = default_documents()
    assert same(read_documents(write_documents(documents, api_version)), documents)


def test_one_of_init_and_cluster_configuration_brings_the_other_and_their_defaults_are_not_said() -> None:
    documents = read_documents(text_of([kind("InitConfiguration")]), kubernetes_version="v1.29.6")
    assert documents.cluster is not None
    assert documents.init is not None
    assert documents.cluster.kubernetes_version == "v1.29.6"
    assert documents.cluster.image_repository == "registry.k8s.io"
    assert documents.cluster.model_fields_set == documents.init.model_fields_set == set()
    assert documents.init.bootstrap_tokens[0].ttl == "24h0m0s"
    assert documents.join is None


def test_the_discoverys_token_is_also_the_kubelets() -> None:
    documents = read(FULL["v1beta3"][2] | {"discovery": {"bootstrapToken": {
        "token": TOKEN, "apiServerEndpoint": "10.0.0.1:6443", "unsafeSkipCAVerification": True,
    }}})  # fmt: skip
    assert documents.join is not None
    assert documents.join.discovery.tls_bootstrap_token is not None
    assert documents.join.discovery.tls_bootstrap_token.reveal() == TOKEN
    assert TOKEN not in repr(documents)


def test_a_file_url_is_the_path_in_it() -> None:
    documents = read(kind("JoinConfiguration", discovery={"file": {"kubeConfigPath": "file:///x.conf"}}))
    assert documents.join is not None
    assert documents.join.discovery.file is not None
    assert documents.join.discovery.file.kube_config_path == "/x.conf"


def test_an_api_version_that_the_versions_kubeadm_does_not_read_is_said() -> None:
    new = kind("ClusterConfiguration", "v1beta4", kubernetesVersion="v1.20.2")
    assert not_read_by(read(new)) == "kubeadm v1.20.2 itself does not read kubeadm.k8s.io/v1beta4"
    assert not_read_by(read(new | {"kubernetesVersion": "v1.31.12"})) == ""


DISCOVERY = {"bootstrapToken": {"token": TOKEN, "apiServerEndpoint": "a:1", "caCertHashes": [HASH]}}


@pytest.mark.parametrize(
    ("name", "api_version", "fields", "path", "problem"),
    [
        ("InitConfiguration", "v1beta3", {"nodeRegistraton": {}}, "InitConfiguration", "unknown field 'nodeRegistraton' (did you mean 'nodeRegistration'?)"),
        ("InitConfiguration", "v1beta2", {"skipPhases": []}, "InitConfiguration", "field 'skipPhases' is one of v1beta3 and v1beta4, not of v1beta2"),
        ("InitConfiguration", "v1beta3", {"timeouts": {}}, "InitConfiguration", "field 'timeouts' is one of v1beta4, not of v1beta3"),
        ("InitConfiguration", "v1beta3", {"nodeRegistration": {"imagePullSerial": True}}, "InitConfiguration.nodeRegistration", "'imagePullSerial' is one of v1beta4"),
        ("InitConfiguration", "v1beta3", {"nodeRegistration": {"name": "A_1"}}, "InitConfiguration.nodeRegistration.name", "'a-1' would do"),
        ("InitConfiguration", "v1beta3", {"nodeRegistration": {"criSocket": "npipe://x"}}, "InitConfiguration.nodeRegistration.criSocket", "only unix://"),
        ("InitConfiguration", "v1beta3", {"nodeRegistration": {"criSocket": "run/x"}}, "InitConfiguration.nodeRegistration.criSocket", "not an absolute path"),
        ("InitConfiguration", "v1beta3", {"nodeRegistration": {"ignorePreflightErrors": ["all", "Swap"]}}, "InitConfiguration.nodeRegistration.ignorePreflightErrors", "'all' stands for every check"),
        ("InitConfiguration", "v1beta3", {"nodeRegistration": {"taints": [{"key": "a", "effect": "NoShedule"}]}}, "InitConfiguration.nodeRegistration.taints[0].effect", "did you mean 'NoSchedule'?"),
        ("InitConfiguration", "v1beta3", {"nodeRegistration": {"kubeletExtraArgs": [{"name": "v", "value": "4"}]}}, "InitConfiguration.nodeRegistration.kubeletExtraArgs", "v1beta4's form"),
        ("InitConfiguration", "v1beta4", {"nodeRegistration": {"kubeletExtraArgs": {"v": "4"}}}, "InitConfiguration.nodeRegistration.kubeletExtraArgs", "v1beta4 has a list"),
        ("InitConfiguration", "v1beta4", {"nodeRegistration": {"kubeletExtraArgs": [{"nam": "v"}]}}, "InitConfiguration.nodeRegistration.kubeletExtraArgs[0]", "unknown field 'nam' (did you mean 'name'?)"),
        ("InitConfiguration", "v1beta4", {"nodeRegistration": {"kubeletExtraArgs": [{"name": "--v"}]}}, "InitConfiguration.nodeRegistration.kubeletExtraArgs[0].name", "without its dashes"),
        ("InitConfiguration", "v1beta3", {"localAPIEndpoint": {"advertiseAddress": "cp1"}}, "InitConfiguration.localAPIEndpoint.advertiseAddress", "not an IP address"),
        ("InitConfiguration", "v1beta3", {"localAPIEndpoint": {"bindPort": 70000}}, "InitConfiguration.localAPIEndpoint.bindPort", "at most 65535"),
        ("InitConfiguration", "v1beta3", {"certificateKey": "abc"}, "InitConfiguration.certificateKey", "64 hexadecimal digits"),
        ("InitConfiguration", "v1beta3", {"bootstrapTokens": [{"token": "a.b"}]}, "InitConfiguration.bootstrapTokens[0].token", "not a bootstrap token"),
        ("InitConfiguration", "v1beta3", {"bootstrapTokens": [{"token": 123456}]}, "InitConfiguration.bootstrapTokens[0].token", "must be text"),
        ("InitConfiguration", "v1beta3", {"bootstrapTokens": [{"ttl": "1h", "expires": "2030-01-01T00:00:00Z"}]}, "InitConfiguration.bootstrapTokens[0]", "exclude each other"),
        ("InitConfiguration", "v1beta3", {"bootstrapTokens": [{"expires": "soon"}]}, "InitConfiguration.bootstrapTokens[0].expires", ""),
        ("InitConfiguration", "v1beta3", {"bootstrapTokens": [{"usages": ["sign"], "groups": []}]}, "InitConfiguration.bootstrapTokens[0].usages[0]", "'sign' is not 'signing'"),
        ("InitConfiguration", "v1beta3", {"bootstrapTokens": [{"groups": ["admins"]}]}, "InitConfiguration.bootstrapTokens[0].groups[0]", "system:bootstrappers:"),
        ("InitConfiguration", "v1beta3", {"bootstrapTokens": [{"usages": ["signing"], "groups": ["system:bootstrappers:a"]}]}, "InitConfiguration.bootstrapTokens[0].groups", "tokens that authenticate"),
        ("InitConfiguration", "v1beta4", {"timeouts": {"discovery": "5"}}, "InitConfiguration.timeouts.discovery", "not a duration"),
        ("ClusterConfiguration", "v1beta4", {"apiServer": {"timeoutForControlPlane": "5m"}}, "ClusterConfiguration.apiServer", "'timeoutForControlPlane' is one of v1beta2 and v1beta3"),
        ("ClusterConfiguration", "v1beta3", {"encryptionAlgorithm": "RSA-2048"}, "ClusterConfiguration", "'encryptionAlgorithm' is one of v1beta4"),
        ("ClusterConfiguration", "v1beta3", {"useHyperKubeImage": False}, "ClusterConfiguration", "'useHyperKubeImage' is one of v1beta2"),
        ("ClusterConfiguration", "v1beta3", {"dns": {"type": "CoreDNS"}}, "ClusterConfiguration.dns", "'type' is one of v1beta2"),
        ("ClusterConfiguration", "v1beta4", {"encryptionAlgorithm": "RSA"}, "ClusterConfiguration.encryptionAlgorithm", "RSA-2048"),
        ("ClusterConfiguration", "v1beta4", {"certificateValidityPeriod": "1y"}, "ClusterConfiguration.certificateValidityPeriod", "not a duration"),
        ("ClusterConfiguration", "v1beta3", {"kubernetesVersion": "stable-1"}, "ClusterConfiguration.kubernetesVersion", "not a version"),
        ("ClusterConfiguration", "v1beta3", {"networking": {"podSubnet": "10.244.0.0/25"}}, "ClusterConfiguration.networking.podSubnet", "smaller than the /24"),
        ("ClusterConfiguration", "v1beta3", {"networking": {"serviceSubnet": "10.96.0.0/30"}}, "ClusterConfiguration.networking.serviceSubnet", "a /28 is the least"),
        ("ClusterConfiguration", "v1beta3", {"networking": {"serviceSubnet": "10.0.0.0/8"}}, "ClusterConfiguration.networking.serviceSubnet", "a /12 is the most"),
        ("ClusterConfiguration", "v1beta3", {"etcd": {"external": {"endpoints": ["http://a:1"], "caFile": "/a"}}}, "ClusterConfiguration.etcd.external.endpoints[0]", "must begin with https"),
        ("ClusterConfiguration", "v1beta3", {"etcd": {"external": {"endpoints": ["https://a:1"], "certFile": "/a"}}}, "ClusterConfiguration.etcd.external", "belong together"),
        ("ClusterConfiguration", "v1beta3", {"etcd": {"external": {"endpoints": ["https://a:1"], "certFile": "/a", "keyFile": "/b"}}}, "ClusterConfiguration.etcd.external", "need caFile"),
        ("ClusterConfiguration", "v1beta3", {"etcd": {"external": {"endpoints": ["https://a:1"], "caFile": "a"}}}, "ClusterConfiguration.etcd.external.caFile", "not an absolute path"),
        ("ClusterConfiguration", "v1beta3", {"etcd": {"external": {"endpoints": []}}}, "ClusterConfiguration.etcd.external.endpoints", "must not be empty"),
        ("ClusterConfiguration", "v1beta3", {"etcd": {"local": {}, "external": {"endpoints": ["https://a:1"]}}}, "ClusterConfiguration.etcd", "exclude each other"),
        ("ClusterConfiguration", "v1beta3", {"featureGates": {"PublicKeyECDSA": True}}, "ClusterConfiguration.featureGates.PublicKeyECDSA", "no such feature gate"),
        ("ClusterConfiguration", "v1beta3", {"apiServer": {"certSANs": ["a b"]}}, "ClusterConfiguration.apiServer.certSANs[0]", "neither an IP address nor"),
        ("ClusterConfiguration", "v1beta3", {"scheduler": {"extraArgs": {"v": 2}}}, "ClusterConfiguration.scheduler.extraArgs.v", 'write it in quotes, "2"'),
        ("JoinConfiguration", "v1beta3", {}, "JoinConfiguration", "field 'discovery' is missing"),
        ("JoinConfiguration", "v1beta3", {"discovery": {}}, "JoinConfiguration.discovery", "bootstrapToken or file must be set"),
        ("JoinConfiguration", "v1beta3", {"discovery": DISCOVERY | {"file": {"kubeConfigPath": "/x"}}}, "JoinConfiguration.discovery", "exclude each other"),
        ("JoinConfiguration", "v1beta3", {"discovery": {"file": {"kubeConfigPath": "http://x/y"}}}, "JoinConfiguration.discovery.file.kubeConfigPath", "must begin with https"),
        ("JoinConfiguration", "v1beta3", {"discovery": {"bootstrapToken": {"token": TOKEN, "apiServerEndpoint": "a:1"}}}, "JoinConfiguration.discovery.bootstrapToken", "'caCertHashes' is missing"),
        ("JoinConfiguration", "v1beta3", {"discovery": {"bootstrapToken": {"token": TOKEN, "apiServerEndpoint": "a", "caCertHashes": [HASH]}}}, "JoinConfiguration.discovery.bootstrapToken.apiServerEndpoint", "not host:port"),
        ("JoinConfiguration", "v1beta3", {"discovery": {"bootstrapToken": {"token": TOKEN, "apiServerEndpoint": "a:99999", "caCertHashes": [HASH]}}}, "JoinConfiguration.discovery.bootstrapToken.apiServerEndpoint", "not host:port"),
        ("JoinConfiguration", "v1beta3", {"discovery": {"bootstrapToken": {"token": TOKEN, "apiServerEndpoint": "https://a:6443", "caCertHashes": [HASH]}}}, "JoinConfiguration.discovery.bootstrapToken.apiServerEndpoint", "not host:port"),
        ("ClusterConfiguration", "v1beta3", {"etcd": {"external": {"endpoints": ["https://a:99999"], "caFile": "/a"}}}, "ClusterConfiguration.etcd.external.endpoints[0]", "is not a URL"),
        ("JoinConfiguration", "v1beta3", {"discovery": {"bootstrapToken": {"token": TOKEN, "apiServerEndpoint": "a:1", "caCertHashes": ["x"]}}}, "JoinConfiguration.discovery.bootstrapToken.caCertHashes[0]", "sha256:"),
        ("JoinConfiguration", "v1beta3", {"discovery": DISCOVERY | {"timeout": 5}}, "JoinConfiguration.discovery.timeout", "must be text"),
        ("JoinConfiguration", "v1beta3", {"discovery": DISCOVERY | {"timeout": "x"}}, "JoinConfiguration.discovery.timeout", "not a duration"),
        ("JoinConfiguration", "v1beta4", {"discovery": DISCOVERY | {"timeout": "5m"}}, "JoinConfiguration.discovery", "'timeout' is one of v1beta2 and v1beta3"),
        ("JoinConfiguration", "v1beta3", {"discovery": DISCOVERY, "caCertPath": "ca.crt"}, "JoinConfiguration.caCertPath", "not an absolute path"),
        ("ResetConfiguration", "v1beta4", {"unmountFlags": ["MNT_FORC"]}, "ResetConfiguration.unmountFlags[0]", "did you mean 'MNT_FORCE'?"),
        ("ResetConfiguration", "v1beta3", {}, "kind", "a kind of v1beta4, not of v1beta3"),
        ("UpgradeConfiguration", "v1beta4", {"apply": {"etcdUpgrad": True}}, "UpgradeConfiguration.apply", "did you mean 'etcdUpgrade'?"),
        ("ClusterConfigration", "v1beta3", {}, "kind", "(did you mean 'ClusterConfiguration'?)"),
        ("ClusterStatus", "v1beta2", {}, "kind", "kept by the cluster itself"),
        ("InitConfiguration", "v1beta1", {}, "apiVersion", "too old to be read"),
        ("InitConfiguration", "v1beta5", {}, "apiVersion", "is not known (did you mean"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_place(
    name: str, api_version: str, fields: dict[str, Any], path: str, problem: str
) -> None:
    error = findings(kind(name, api_version, **fields))
    assert error.message.startswith(f"{SOURCE}: {path}: ")
    assert problem in error.message
    assert ", line " in error.message


def test_all_mistakes_of_all_documents_are_named_with_their_lines() -> None:
    error = findings(
        kind("InitConfiguration", patchs={}),
        kind("ClusterConfiguration", networking={"dnsDomain": "A"}),
        {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "maxPod": 3},
        {"apiVersion": "kubeproxy.config.k8s.io/v1", "kind": "KubeProxyConfiguration"},
        {"apiVersion": "apps/v1", "kind": "Deployment"},
        {"kind": "InitConfiguration"},
        kind("InitConfiguration"),
    )
    lines = sorted(
        line.removeprefix(f"{SOURCE}: ")
        for line in (error.message.removesuffix(" (and 6 more)"), *error.evidence)
    )
    assert lines == [
        "ClusterConfiguration.networking.dnsDomain: 'A' is not a DNS domain: labels of a-z, 0-9 and '-', joined by dots, line 8",
        "InitConfiguration: unknown field 'patchs' (did you mean 'patches'?), line 3",
        "KubeProxyConfiguration.apiVersion: 'kubeproxy.config.k8s.io/v1' is not 'kubeproxy.config.k8s.io/v1alpha1', line 14",
        "KubeletConfiguration: unknown field 'maxPod' (did you mean 'maxPods'?), line 12",
        "documents[4].kind: 'Deployment' of 'apps/v1' is not one of kubeadm's kinds, line 18",
        "documents[5].apiVersion: is missing, line 20",
        "documents[6].kind: InitConfiguration stands here twice (first on line 1), line 23",
    ]
    assert error.exit_code is ExitCode.CONFIG_UNKNOWN_FIELD


def test_a_doubled_field_is_refused_with_its_path() -> None:
    text = text_of([kind("InitConfiguration")]) + "nodeRegistration:\n  name: a\n  name: b\n"
    with pytest.raises(ConfigError, match=r"line 5: nodeRegistration: field 'name' stands here twice"):
        read_documents(text)


def test_a_cluster_yaml_is_named_as_one() -> None:
    error = findings({"apiVersion": "kubewright.dev/v1alpha1", "kind": "Cluster", "hosts": []})
    assert "this is a cluster.yaml" in error.message
    assert "apply -f" in error.hint


def test_a_version_without_a_row_is_refused_at_its_place() -> None:
    error = findings(kind("ClusterConfiguration", kubernetesVersion="v1.19.3"))
    assert error.message.startswith(f"{SOURCE}: ClusterConfiguration.kubernetesVersion: ")
    assert error.exit_code is ExitCode.VERSION_UNAVAILABLE


@pytest.mark.parametrize(
    ("version", "gate", "usual"),
    [
        ("v1.22.0", "RootlessControlPlane", False),
        ("v1.31.0", "RootlessControlPlane", False),
        ("v1.23.0", "UnversionedKubeletConfigMap", False),
        ("v1.24.0", "UnversionedKubeletConfigMap", True),
    ],
)
def test_a_gate_whose_effect_nothing_here_has_is_refused(version: str, gate: str, usual: bool) -> None:
    def stated(on: bool) -> dict[str, Any]:
        return kind("ClusterConfiguration", kubernetesVersion=version, featureGates={gate: on})

    error = findings(stated(not usual))
    assert f"ClusterConfiguration.featureGates.{gate}: " in error.message
    assert "is not supported yet" in error.message
    assert read(stated(usual)).cluster is not None


def test_empty_text_is_not_said_and_an_empty_argument_is() -> None:
    documents = read(kind("ClusterConfiguration", imageRepository="", scheduler={"extraArgs": {"x": ""}}))
    assert documents.cluster is not None
    assert documents.cluster.image_repository == "k8s.gcr.io"
    assert list(documents.cluster.scheduler.extra_args) == [("x", "")]


def test_no_secret_is_in_a_message() -> None:
    wrong = copy.deepcopy(FULL["v1beta3"][0])
    wrong["bootstrapTokens"][0]["token"] = "abcdef.0123456789abcdeX"
    wrong["certificateKey"] = "q" * 64
    error = findings(wrong)
    text = " ".join((error.message, *error.evidence, error.hint))
    assert "0123456789abcdeX" not in text
    assert "qqqq" not in text


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=True))
def test_a_mutated_file_is_read_or_refused_with_a_place(random: Random) -> None:
    # tests/integration/test_config_files.py reads 5,000 of them.
    check_file(mutated(random))


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "- 1\n---\n2\n",
        "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n? [a]\n: b\n",
        "---\n",
    ],
)
def test_what_is_hardly_a_file_is_refused_with_a_place(text: str) -> None:
    assert check_file(text) is None


def test_a_nodes_name_is_put_into_lower_case() -> None:
    """`--node-name $(hostname)` is in many a script, and kubeadm does it."""
    text = "apiVersion: kubeadm.k8s.io/v1beta3\nkind: InitConfiguration\nnodeRegistration: {name: ' Node1'}\n"
    init = read_documents(text).init
    assert init is not None
    assert init.node_registration.name == "node1"


def test_a_token_in_a_wrong_field_is_not_shown() -> None:
    text = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n"
    text += "featureGates:\n  token: abcdef.0123456789abcdef\n"
    with pytest.raises(ConfigError) as raised:
        read_documents(text, source="kubeadm.yaml")
    assert "featureGates.token: must be true or false, not '<secret>'" in raised.value.message


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (f"key {'0aF3' * 16}", "'key <secret>'"),
        ("use abcdef.0123456789abcdef", "'use <secret>'"),
        (f"sha256:{'0af3' * 16}", f"'sha256:{'0af3' * 16}'"),  # a CA's hash, or an image's digest: public
    ],
)
def test_secrets_in_quoted_values_are_hidden_and_hashes_are_not(text: str, seen: str) -> None:
    assert shown(text) == seen


def test_no_tokens_are_the_default_one() -> None:
    text = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nbootstrapTokens: []\n"
    init = read_documents(text, source="kubeadm.yaml").init
    assert init is not None
    assert [token.ttl for token in init.bootstrap_tokens] == ["24h0m0s"]
