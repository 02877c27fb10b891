"""ClusterConfiguration and the component configurations, against what kubeadm 1.20.2 wrote for the same input."""

# ruff: noqa: E501 (a case is a row of its table)

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kubewright.errors import ExitCode
from kubewright.model.config.components import kube_proxy_configuration, kubelet_configuration
from kubewright.model.config.findings import FindingsError
from kubewright.model.config.kubeadm import (
    cluster_status,
    default_cluster_configuration,
    from_document,
    to_stored,
)
from kubewright.model.config.load import parse_cluster
from kubewright.model.versions import facts_for

HOSTS = "hosts:\n- {name: cp1, address: 192.168.7.11, roles: [control-plane]}\n"

# The user's configuration for which `kubeadm init --dry-run` (1.20.2) gave the documents below.
FULL = """
apiServer:
  extraArgs: {audit-log-maxage: "7", v: "2"}
  extraVolumes:
  - {name: audit, hostPath: /var/log/audit, mountPath: /var/log/audit, readOnly: false, pathType: DirectoryOrCreate}
  certSANs: [api.example.org, 10.0.0.9]
  timeoutForControlPlane: 90s
controllerManager: {extraArgs: {node-cidr-mask-size: "25"}}
scheduler: {extraVolumes: [{name: a, hostPath: /a, mountPath: /b, readOnly: true}]}
dns: {type: CoreDNS, imageRepository: dns.example.org, imageTag: 1.8.0}
etcd:
  local:
    imageTag: 3.4.14-0
    dataDir: /data/etcd
    extraArgs: {quota-backend-bytes: "100"}
    serverCertSANs: [a.b]
    peerCertSANs: [c.d]
imageRepository: registry.example.org/k8s
featureGates: {}
"""
NETWORK = "network: {podSubnet: 10.244.0.0/16, serviceSubnet: 10.97.0.0/16, dnsDomain: blue.local}\n"

CLUSTER_DEFAULT = """
apiServer:
  extraArgs:
    authorization-mode: Node,RBAC
  timeoutForControlPlane: 4m0s
apiVersion: kubeadm.k8s.io/v1beta2
certificatesDir: /etc/kubernetes/pki
clusterName: kubernetes
controllerManager: {}
dns:
  type: CoreDNS
etcd:
  local:
    dataDir: /var/lib/etcd
imageRepository: k8s.gcr.io
kind: ClusterConfiguration
kubernetesVersion: v1.20.2
networking:
  dnsDomain: cluster.local
  podSubnet: 10.244.0.0/16
  serviceSubnet: 10.96.0.0/12
scheduler: {}
"""

CLUSTER_FULL = """
apiServer:
  certSANs:
  - api.example.org
  - 10.0.0.9
  extraArgs:
    audit-log-maxage: "7"
    authorization-mode: Node,RBAC
    v: "2"
  extraVolumes:
  - hostPath: /var/log/audit
    mountPath: /var/log/audit
    name: audit
    pathType: DirectoryOrCreate
  timeoutForControlPlane: 1m30s
apiVersion: kubeadm.k8s.io/v1beta2
certificatesDir: /etc/kubernetes/pki
clusterName: blue
controlPlaneEndpoint: api.example.org:6443
controllerManager:
  extraArgs:
    node-cidr-mask-size: "25"
dns:
  imageRepository: dns.example.org
  imageTag: 1.8.0
  type: CoreDNS
etcd:
  local:
    dataDir: /data/etcd
    extraArgs:
      quota-backend-bytes: "100"
    imageTag: 3.4.14-0
    peerCertSANs:
    - c.d
    serverCertSANs:
    - a.b
imageRepository: registry.example.org/k8s
kind: ClusterConfiguration
kubernetesVersion: v1.20.2
networking:
  dnsDomain: blue.local
  podSubnet: 10.244.0.0/16
  serviceSubnet: 10.97.0.0/16
scheduler:
  extraVolumes:
  - hostPath: /a
    mountPath: /b
    name: a
    readOnly: true
"""

KUBELET_DEFAULT = """
apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: false
  webhook:
    cacheTTL: 0s
    enabled: true
  x509:
    clientCAFile: /etc/kubernetes/pki/ca.crt
authorization:
  mode: Webhook
  webhook:
    cacheAuthorizedTTL: 0s
    cacheUnauthorizedTTL: 0s
clusterDNS:
- 10.96.0.10
clusterDomain: cluster.local
cpuManagerReconcilePeriod: 0s
evictionPressureTransitionPeriod: 0s
fileCheckFrequency: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
httpCheckFrequency: 0s
imageMinimumGCAge: 0s
kind: KubeletConfiguration
logging: {}
nodeStatusReportFrequency: 0s
nodeStatusUpdateFrequency: 0s
rotateCertificates: true
runtimeRequestTimeout: 0s
shutdownGracePeriod: 0s
shutdownGracePeriodCriticalPods: 0s
staticPodPath: /etc/kubernetes/manifests
streamingConnectionIdleTimeout: 0s
syncFrequency: 0s
volumeStatsAggPeriod: 0s
"""

KUBE_PROXY_DEFAULT = """
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
metricsBindAddress: ""
mode: ""
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
udpIdleTimeout: 0s
winkernel:
  enableDSR: false
  networkName: ""
  sourceVip: ""
"""


def written(text: str) -> Any:
    return yaml.safe_load(text)


def indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.strip().splitlines())


def findings(text: str) -> FindingsError:
    with pytest.raises(FindingsError) as caught:
        parse_cluster(HOSTS + text)
    return caught.value


def test_the_defaults_are_kubeadms() -> None:
    spec = parse_cluster(HOSTS)
    cc = default_cluster_configuration(spec)
    assert to_stored(cc) == written(CLUSTER_DEFAULT)
    assert kube_proxy_configuration(spec, cc) == written(KUBE_PROXY_DEFAULT)
    # What is set beyond kubeadm's output: the rotation of container logs (P03), to the kubelet's own defaults.
    rotation = {"containerLogMaxFiles": 5, "containerLogMaxSize": "10Mi"}
    assert kubelet_configuration(spec, cc) == written(KUBELET_DEFAULT) | rotation


def test_a_full_configuration_is_written_as_kubeadm_writes_it() -> None:
    text = f"name: blue\nendpoint: api.example.org:6443\n{NETWORK}clusterConfiguration:\n{indented(FULL)}"
    cc = default_cluster_configuration(parse_cluster(HOSTS + text))
    assert to_stored(cc) == written(CLUSTER_FULL)


def test_what_we_write_we_read_back() -> None:
    cc = from_document(written(CLUSTER_FULL), facts_for("v1.20.2"))
    assert to_stored(cc) == written(CLUSTER_FULL)


def test_everything_may_be_said_in_the_passed_through_kind_alone() -> None:
    passed = (
        f"{FULL}clusterName: blue\nkubernetesVersion: 1.20.2\ncontrolPlaneEndpoint: api.example.org:6443\n"
        "networking: {podSubnet: 10.244.0.0/16, serviceSubnet: 10.97.0.0/16, dnsDomain: blue.local}\n"
        "apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\n"
    )
    spec = parse_cluster(f"{HOSTS}clusterConfiguration:\n{indented(passed)}")
    assert to_stored(default_cluster_configuration(spec)) == written(CLUSTER_FULL)
    # Whoever reads the spec's own fields sees the same.
    assert spec.endpoint is not None
    assert (spec.name, spec.endpoint.address) == ("blue", "api.example.org:6443")
    assert spec.network.service_subnet == "10.97.0.0/16"
    assert spec.network.dns_domain == "blue.local"


def test_a_field_said_twice_must_say_the_same() -> None:
    same = "network: {podSubnet: 10.8.0.0/16}\nclusterConfiguration: {networking: {podSubnet: 10.8.0.0/16}}\n"
    assert parse_cluster(HOSTS + same).network.pod_subnet == "10.8.0.0/16"
    error = findings(
        "name: blue\nnetwork: {podSubnet: 10.8.0.0/16}\n"
        "clusterConfiguration: {clusterName: red, networking: {podSubnet: 10.9.0.0/16, dnsDomain: x.local}}\n"
    )
    assert error.exit_code is ExitCode.CONFIG_INVALID
    assert [(finding.path, finding.problem) for finding in error.findings] == [
        (("clusterConfiguration", "clusterName"), "'red' contradicts name, which says 'blue'"),
        (
            ("clusterConfiguration", "networking", "podSubnet"),
            "'10.9.0.0/16' contradicts network.podSubnet, which says '10.8.0.0/16'",
        ),
    ]


def test_authorization_modes_asked_for_are_kept() -> None:
    text = "clusterConfiguration: {apiServer: {extraArgs: {authorization-mode: 'Node,RBAC,Webhook'}}}\n"
    document = to_stored(default_cluster_configuration(parse_cluster(HOSTS + text)))
    assert document["apiServer"]["extraArgs"] == {"authorization-mode": "Node,RBAC,Webhook"}


def test_endpoints_get_their_port_and_certificate_names_lower_case_as_kubeadm_has_them() -> None:
    text = "clusterConfiguration: {controlPlaneEndpoint: a.example.org, apiServer: {certSANs: [LB.Example.ORG]}}\n"
    for endpoint in ("", "endpoint: a.example.org\n", "endpoint: 'a.example.org:6443'\n"):
        spec = parse_cluster(HOSTS + endpoint + text)
        document = to_stored(default_cluster_configuration(spec))
        assert spec.endpoint is not None
        assert document["controlPlaneEndpoint"] == spec.endpoint.address == "a.example.org:6443"
        assert document["apiServer"]["certSANs"] == ["lb.example.org"]


def test_an_empty_argument_stays_and_other_empty_text_is_not_said() -> None:
    text = "clusterConfiguration: {imageRepository: '', etcd: {local: {dataDir: ''}}, scheduler: {extraArgs: {x: ''}}}\n"
    document = to_stored(default_cluster_configuration(parse_cluster(HOSTS + text)))
    assert document["imageRepository"] == "k8s.gcr.io"
    assert document["etcd"] == {"local": {"dataDir": "/var/lib/etcd"}}
    assert document["scheduler"] == {"extraArgs": {"x": ""}}


def test_cluster_status_names_each_api_server() -> None:
    assert cluster_status({"cp1": ("192.168.7.11", 6443)}) == written(
        "apiEndpoints: {cp1: {advertiseAddress: 192.168.7.11, bindPort: 6443}}\n"
        "apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterStatus\n"
    )


@pytest.mark.parametrize(
    ("passed", "path", "problem"),
    [
        ("{apiServr: {}}", "clusterConfiguration", "unknown field 'apiServr' (did you mean 'apiServer'?)"),
        ("{apiServer: {certSans: []}}", "clusterConfiguration.apiServer", "did you mean 'certSANs'"),
        ("{apiServer: {certSANs: ['a b']}}", "clusterConfiguration.apiServer.certSANs[0]", "neither an IP"),
        ("{apiServer: {extraArgs: {v: 2}}}", "clusterConfiguration.apiServer.extraArgs.v", 'in quotes, "2"'),
        ("{apiServer: {extraArgs: {--v: '2'}}}", "clusterConfiguration.apiServer.extraArgs.--v", "'v'"),
        ("{apiServer: {timeoutForControlPlane: 4}}", "clusterConfiguration.apiServer.timeoutForControlPlane", '"4"'),
        ("{apiServer: {timeoutForControlPlane: 4x}}", "clusterConfiguration.apiServer.timeoutForControlPlane", "4m0s"),
        ("{etcd: {local: {dataDir: x}}}", "clusterConfiguration.etcd.local.dataDir", "not an absolute path"),
        ("{etcd: {external: {endpoints: [a]}}}", "clusterConfiguration.etcd.external.endpoints[0]", "is not a URL"),
        ("{etcd: {external: {endpoints: ['https://a:1'], caFile: /a}}}", "clusterConfiguration.etcd.external", "certFile, keyFile missing"),
        ("{etcd: {local: {}, external: {}}}", "clusterConfiguration.etcd", "exclude each other"),
        ("{dns: {type: kube-dns}}", "clusterConfiguration.dns.type", "is not 'CoreDNS'"),
        ("{useHyperKubeImage: true}", "clusterConfiguration.useHyperKubeImage", "no hyperkube image"),
        ("{useHyperKubeImage: 'yes'}", "clusterConfiguration.useHyperKubeImage", "true or false"),
        ("{featureGates: {IPv6DualStak: true}}", "clusterConfiguration.featureGates.IPv6DualStak", "IPv6DualStack"),
        ("{featureGates: {IPv6DualStack: true}}", "clusterConfiguration.featureGates.IPv6DualStack", "yet"),
        ("{networking: {podSubnet: 'fd00::/48'}}", "clusterConfiguration.networking.podSubnet", "supported yet"),
        ("{networking: {podSubnet: '10.1.2.3/16'}}", "clusterConfiguration.networking.podSubnet", "'10.1.0.0/16'"),
        ("{controlPlaneEndpoint: 'a:0'}", "clusterConfiguration.controlPlaneEndpoint", "host[:port]"),
        ("{kubernetesVersion: v1.44.0}", "clusterConfiguration.kubernetesVersion", "not supported"),
        ("{kubernetesVersion: latest}", "clusterConfiguration.kubernetesVersion", "not a version"),
        ("{apiVersion: kubeadm.k8s.io/v1beta3}", "clusterConfiguration.apiVersion", "kubeadm.k8s.io/v1beta2"),
        ("{kind: InitConfiguration}", "clusterConfiguration.kind", "'ClusterConfiguration'"),
        (
            "{scheduler: {extraVolumes: [{name: a, hostPath: /a, mountPath: /a}, {name: a, hostPath: /b, mountPath: /b}]}}",
            "clusterConfiguration.scheduler.extraVolumes[1].name",
            "twice",
        ),
    ],
)  # fmt: skip
def test_mistakes_in_cluster_configuration_are_named(passed: str, path: str, problem: str) -> None:
    error = findings(f"clusterConfiguration: {passed}\n")
    assert error.message.startswith(f"cluster.yaml: {path}: ")
    assert problem in error.message
    assert error.message.endswith(", line 3")
    assert error.evidence == ()


@pytest.mark.parametrize(
    ("version", "passed", "path", "problem"),
    [
        ("v1.20.2", "{encryptionAlgorithm: RSA-4096}", "", "field 'encryptionAlgorithm' is one of v1beta4, not of v1beta2"),
        ("v1.20.2", "{scheduler: {extraArgs: [{name: v, value: '2'}]}}", ".scheduler.extraArgs", "a list of names and values is v1beta4's form"),
        ("v1.31.2", "{proxy: {disabled: true}}", ".proxy.disabled", "not supported yet"),
        ("v1.31.2", "{dns: {disabled: true}}", ".dns.disabled", "not supported yet"),
    ],
)  # fmt: skip
def test_fields_of_v1beta4_are_for_versions_that_have_it(
    version: str, passed: str, path: str, problem: str
) -> None:
    error = findings(f"kubernetesVersion: {version}\nclusterConfiguration: {passed}\n")
    assert error.message.startswith(f"cluster.yaml: clusterConfiguration{path}: ")
    assert problem in error.message


def test_arguments_are_a_mapping_or_a_list_in_versions_with_both() -> None:
    for form in ("{v: '2', a: b}", "[{name: v, value: '2'}, {name: a, value: b}]"):
        text = f"kubernetesVersion: v1.31.2\nclusterConfiguration: {{scheduler: {{extraArgs: {form}}}}}\n"
        cc = default_cluster_configuration(parse_cluster(HOSTS + text))
        assert sorted(cc.scheduler.extra_args) == [("a", "b"), ("v", "2")]


def test_the_users_kubelet_fields_win_and_are_normalised_as_kubeadm_does() -> None:
    text = (
        f"{NETWORK}kubeletConfiguration:\n  cgroupDriver: systemd\n  cgroupRoot: /kubelet\n  containerLogMaxFiles: 3\n"
        "  runtimeRequestTimeout: 15m\n  resolvConf: /etc/own.conf\n  evictionHard: {memory.available: 100Mi}\n"
        "  authentication: {webhook: {cacheTTL: 90s}}\n  maxPods: null\n"
    )
    spec = parse_cluster(HOSTS + text)
    config = kubelet_configuration(spec, cgroup_driver="cgroupfs", resolv_conf="/run/resolv.conf")
    assert config == written(KUBELET_DEFAULT) | {
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"cacheTTL": "1m30s", "enabled": True},
            "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
        },
        "cgroupDriver": "systemd",
        "cgroupRoot": "/kubelet",
        "clusterDNS": ["10.97.0.10"],
        "clusterDomain": "blue.local",
        "containerLogMaxFiles": 3,
        "containerLogMaxSize": "10Mi",
        "evictionHard": {"memory.available": "100Mi"},
        "resolvConf": "/etc/own.conf",
        "runtimeRequestTimeout": "15m0s",
    }


def test_a_hosts_facts_fill_what_the_user_leaves_open() -> None:
    config = kubelet_configuration(
        parse_cluster(HOSTS), cgroup_driver="systemd", resolv_conf="/run/resolv.conf"
    )
    assert (config["cgroupDriver"], config["resolvConf"]) == ("systemd", "/run/resolv.conf")


def test_kube_proxy_always_has_the_pod_subnet() -> None:
    text = (
        "network: {podSubnet: 10.8.0.0/16}\nkubeProxyConfiguration:\n  mode: iptables\n  clusterCIDR: ''\n"
        "  conntrack: {maxPerCore: 0, min: 0}\n  iptables: {syncPeriod: 30s}\n"
    )
    assert kube_proxy_configuration(parse_cluster(HOSTS + text)) == written(KUBE_PROXY_DEFAULT) | {
        "clusterCIDR": "10.8.0.0/16",
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpCloseWaitTimeout": None, "tcpEstablishedTimeout": None},
        "iptables": {
            "masqueradeAll": False,
            "masqueradeBit": None,
            "minSyncPeriod": "0s",
            "syncPeriod": "30s",
        },
        "mode": "iptables",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kubeletConfiguration: {maxPod: 1}", "kubeletConfiguration: unknown field 'maxPod' (did you mean 'maxPods'?)"),
        ("kubeletConfiguration: {maxPods: '1'}", "kubeletConfiguration.maxPods: must be a whole number, not '1'"),
        ("kubeletConfiguration: {maxPods: true}", "kubeletConfiguration.maxPods: must be a whole number, not true"),
        ("kubeletConfiguration: {syncFrequency: 1d}", "kubeletConfiguration.syncFrequency: '1d' is not a duration"),
        ("kubeletConfiguration: {evictionHard: {a: 1}}", "kubeletConfiguration.evictionHard: must be a mapping from"),
        ("kubeletConfiguration: {authentication: x}", "kubeletConfiguration.authentication: must be a mapping"),
        ("kubeletConfiguration: {authentication: {x: 1}}", "kubeletConfiguration.authentication: unknown field 'x'"),
        ("kubeletConfiguration: {rotateCertificates: false}", "kubeletConfiguration.rotateCertificates: kubeadm's"),
        ("kubeletConfiguration: {cgroupDriver: system}", "kubeletConfiguration.cgroupDriver: 'system' is not"),
        ("kubeletConfiguration: {kind: Kubelet}", "kubeletConfiguration.kind: 'Kubelet' is not"),
        ("kubeProxyConfiguration: {mode: ipvz}", "kubeProxyConfiguration.mode: 'ipvz' is not 'iptables' or 'ipvs'"),
        ("kubeProxyConfiguration: {apiVersion: v1}", "kubeProxyConfiguration.apiVersion: 'v1' is not 'kubeproxy"),
        ("kubeProxyConfiguration: {clientConnection: {qps: x}}", "kubeProxyConfiguration.clientConnection.qps: must"),
    ],
)  # fmt: skip
def test_mistakes_in_component_configurations_are_named(text: str, message: str) -> None:
    assert findings(text).message.startswith(f"cluster.yaml: {message}")


@pytest.mark.parametrize(
    ("version", "text", "message"),
    [
        ("v1.22.0", "kubeletConfiguration: {registerWithTaints: []}", "unknown field 'registerWithTaints'"),
        ("v1.31.0", "kubeletConfiguration: {registerWithTaints: a}", "must be a list of mappings, not 'a'"),
        (
            "v1.31.0",
            "kubeletConfiguration: {registerWithTaints: [{key: a}, {efect: b}]}",
            "registerWithTaints[1]: unknown field 'efect' (did you mean 'effect'?)",
        ),
        (
            "v1.31.0",
            "kubeletConfiguration: {registerWithTaints: [1]}",
            "registerWithTaints[0]: must be a mapping",
        ),
        ("v1.31.0", "kubeletConfiguration: {logging: {flushFrequency: x}}", "'x' is not a duration"),
        (
            "v1.31.0",
            "kubeletConfiguration: {logging: {flushFrequency: true}}",
            "must be a duration such as 5s, or",
        ),
        ("v1.36.0", "kubeletConfiguration: {tlsCurvePreferences: [x]}", "must be a list of whole numbers"),
        ("v1.26.0", "kubeProxyConfiguration: {mode: userspace}", "'userspace' is not 'iptables' or 'ipvs'"),
        ("v1.28.0", "kubeProxyConfiguration: {mode: nftables}", "'nftables' is not 'iptables' or 'ipvs'"),
    ],
)
def test_component_configurations_are_those_of_the_version(version: str, text: str, message: str) -> None:
    assert message in findings(f"kubernetesVersion: {version}\n{text}").message


def test_lists_of_mappings_reach_the_kubelet_as_they_are() -> None:
    taints = [{"key": "a", "effect": "NoSchedule"}]
    text = f"{HOSTS}kubernetesVersion: v1.31.0\nkubeletConfiguration:\n  registerWithTaints: {taints}\n"
    assert kubelet_configuration(parse_cluster(text))["registerWithTaints"] == taints
