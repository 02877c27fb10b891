"""Full files of kubeadm's in each API version, and their mutations."""

from __future__ import annotations

import copy
import re
from random import Random
from typing import Any

import yaml

from kubewright.errors import ConfigError, ExitCode
from kubewright.model.config.api_versions import API_VERSIONS, GROUP
from kubewright.model.config.conversion import unsayable
from kubewright.model.config.documents import Documents, read_documents, write_documents

SOURCE = "kubeadm.yaml"
TOKEN = "abcdef.0123456789abcdef"
KEY = "ab" * 32
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
HASH = "sha256:" + "0a" * 32


def args(api_version: str, **flags: str) -> Any:
    """Arguments in the form of an API version."""
    named = {name.replace("_", "-"): value for name, value in flags.items()}
    if api_version != "v1beta4":
        return named
    return [{"name": name, "value": value} for name, value in named.items()]


def full(api_version: str) -> list[dict[str, Any]]:
    """A file with every kind, and nearly every field, of an API version."""
    node: dict[str, Any] = {
        "name": "cp1", "criSocket": "/run/containerd/containerd.sock",
        "taints": [{"key": "dedicated", "value": "db", "effect": "NoSchedule"}],
        "kubeletExtraArgs": args(api_version, node_ip="192.0.2.11", v="2"),
        "ignorePreflightErrors": ["Swap", "NumCPU"],
    }  # fmt: skip
    init: dict[str, Any] = {
        "bootstrapTokens": [
            {"token": TOKEN, "ttl": "2h", "usages": ["signing"], "description": "for a day"},
            {"expires": "2030-01-02T03:04:05Z", "groups": ["system:bootstrappers:workers"]},
        ],
        "nodeRegistration": dict(node),
        "localAPIEndpoint": {"advertiseAddress": "192.0.2.11", "bindPort": 7443},
        "certificateKey": KEY,
    }
    volume = {"name": "x", "hostPath": "/x", "mountPath": "/y", "readOnly": True, "pathType": "File"}
    cluster: dict[str, Any] = {
        "kubernetesVersion": {"v1beta2": "v1.20.2", "v1beta3": "v1.29.6", "v1beta4": "v1.31.12"}[api_version],
        "clusterName": "blue", "controlPlaneEndpoint": "api.example.org:6443", "certificatesDir": "/etc/pki",
        "imageRepository": "registry.example.org/k8s",
        "networking": {"podSubnet": "10.244.0.0/16", "serviceSubnet": "10.97.0.0/16", "dnsDomain": "blue.local"},
        "apiServer": {
            "extraArgs": args(api_version, audit_log_path="/x/log"), "extraVolumes": [volume],
            "certSANs": ["lb.example.org", "192.0.2.1", "*.example.org"],
        },
        "controllerManager": {"extraArgs": args(api_version, node_cidr_mask_size="24")},
        "scheduler": {"extraArgs": args(api_version, v="4")},
        "etcd": {
            "local": {
                "dataDir": "/srv/etcd", "imageTag": "3.5.9-0", "extraArgs": args(api_version, snapshot_count="9"),
                "serverCertSANs": ["etcd.example.org"], "peerCertSANs": ["192.0.2.11"],
            }
        },
        "dns": {"imageRepository": "registry.example.org/dns", "imageTag": "v1.9.0"},
        "featureGates": {"RootlessControlPlane": False} if api_version != "v1beta2" else {"PublicKeysECDSA": True},
    }  # fmt: skip
    join: dict[str, Any] = {
        "caCertPath": "/etc/pki/ca.crt",
        "nodeRegistration": dict(node),
        "discovery": {
            "bootstrapToken": {
                "token": TOKEN, "apiServerEndpoint": "api.example.org:6443", "caCertHashes": [HASH],
            },
            "tlsBootstrapToken": TOKEN,
        },
        "controlPlane": {"localAPIEndpoint": {"advertiseAddress": "192.0.2.12"}, "certificateKey": KEY},
    }  # fmt: skip
    kinds: dict[str, Any] = {
        "InitConfiguration": init,
        "ClusterConfiguration": cluster,
        "JoinConfiguration": join,
    }
    if api_version != "v1beta2":
        for kind in (init, join):
            kind |= {"skipPhases": ["preflight"], "patches": {"directory": "/patches"}}
            kind["nodeRegistration"]["imagePullPolicy"] = "Never"
    if api_version == "v1beta4":
        _add_v1beta4(kinds)
    else:
        cluster["apiServer"]["timeoutForControlPlane"] = "90s"
        join["discovery"]["timeout"] = "150s"
    components: list[dict[str, Any]] = [
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "maxPods": 60,
            "evictionHard": {"memory.available": "100Mi"},
        },
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "conntrack": {"maxPerCore": 0},
        },
    ]  # fmt: skip
    return [
        *({"apiVersion": f"{GROUP}/{api_version}", "kind": kind, **fields} for kind, fields in kinds.items()),
        *components,
    ]


def _add_v1beta4(kinds: dict[str, Any]) -> None:
    timeouts = {"controlPlaneComponentHealthCheck": "90s", "discovery": "150s", "tlsBootstrap": "1m"}
    for kind in ("InitConfiguration", "JoinConfiguration"):
        kinds[kind] |= {"timeouts": dict(timeouts), "dryRun": True}
        kinds[kind]["nodeRegistration"]["imagePullSerial"] = False
    cluster = kinds["ClusterConfiguration"]
    envs = [
        {"name": "A", "value": "b"},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    cluster["apiServer"]["extraEnvs"] = cluster["etcd"]["local"]["extraEnvs"] = envs
    cluster["scheduler"]["extraArgs"].append({"name": "v", "value": "5"})
    cluster["dns"]["disabled"] = True
    cluster |= {
        "proxy": {"disabled": True}, "encryptionAlgorithm": "RSA-4096",
        "certificateValidityPeriod": "720h", "caCertificateValidityPeriod": "8760h",
    }  # fmt: skip
    kinds["ResetConfiguration"] = {
        "certificatesDir": "/etc/pki", "criSocket": "unix:///run/x.sock", "force": True, "cleanupTmpDir": True,
        "ignorePreflightErrors": ["Swap"], "skipPhases": ["preflight"], "unmountFlags": ["MNT_FORCE"],
        "dryRun": True, "timeouts": {"etcdAPICall": "3m"},
    }  # fmt: skip
    kinds["UpgradeConfiguration"] = {
        "apply": {"kubernetesVersion": "v1.32.1", "forceUpgrade": True, "etcdUpgrade": False},
        "diff": {"contextLines": 5},
        "node": {"certificateRenewal": False, "patches": {"directory": "/p"}},
        "plan": {"allowRCUpgrades": True, "printConfig": True},
    }


def text_of(documents: list[Any]) -> str:
    """The file."""
    return str(yaml.dump_all(documents, Dumper=_DUMPER, sort_keys=False, allow_unicode=True))


_JUNK: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**70, 1.5, "", "\x00", "\n", "é", "a b", "~", "-1", "1" * 300, "[key]", "kind",
    "10.0.0.0/8", "0/0", "::1", "v1.20.2", "v9.9.9", "stable-1", "90s", "-1h", TOKEN, HASH, KEY, "http://[", "unix://",
    "/", "a:b:c", "kubeadm.k8s.io/v1beta3", "kubeadm.k8s.io/v1beta1", [], [1, None], ["a"], {}, {"a": "b"},
    {"": ""}, {"v": "1"}, [{"name": "v", "value": "1"}], [{}], [[]], {"a": {"b": []}},
)  # fmt: skip
_NOISE = "\t\n :-[]{}&*'\"#|>%!ax1\x07"


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in _places(item, (*path, key)))]


FULL = {version: full(version) for version in ("v1beta2", "v1beta3", "v1beta4")}


def mutated(random: Random) -> str:
    """The text of a file with one to three changes."""
    documents: list[Any] = copy.deepcopy(FULL[random.choice(sorted(FULL))])
    for _ in range(random.randint(1, 3)):
        if places := _places(documents)[1:]:
            _change(documents, random.choice(places), random)
    text = text_of(documents)
    match random.choice(["", "", "", "noise", "line"]):
        case "noise":
            at = random.randint(0, len(text))
            text = text[:at] + "".join(random.choices(_NOISE, k=random.randint(1, 4))) + text[at:]
        case "line":
            lines = text.splitlines(keepends=True)
            at = random.randint(0, len(lines) - 1)
            text = "".join([*lines[:at], lines[at], *lines[at:]])
    return text


def _change(documents: list[Any], path: tuple[Any, ...], random: Random) -> None:
    around: Any = documents
    for part in path[:-1]:
        around = around[part]
    key = path[-1]
    match random.choice(["replace", "replace", "remove", "rename", "double", "move"]):
        case "remove":
            del around[key]
        case "rename" if isinstance(around, dict):
            around[random.choice(["", "x", "\x00", "é "]) + str(key)[1:]] = around.pop(key)
        case "double" if isinstance(around, list):
            around.append(copy.deepcopy(around[key]))
        case "move":
            place = random.choice(_places(FULL["v1beta4"]))
            value: Any = FULL["v1beta4"]
            for part in place:
                value = value[part]
            around[key] = copy.deepcopy(value)
        case _:
            around[key] = copy.deepcopy(random.choice(_JUNK))


_PLACE = re.compile(
    r"kubeadm\.yaml: (line \d+|the file is empty"
    r"|(documents\[\d+\]|(Init|Cluster|Join|Reset|Upgrade|Kubelet|KubeProxy)Configuration|apiVersion|kind)"
    r"([.\[].*)?: .+)"
)


def check_file(text: str) -> Documents | None:
    """Read a file, which is right or refused with a place for every mistake.

    A right one means the same after it was written in any API version that can say it all.
    """
    try:
        documents = read_documents(text, source=SOURCE)
    except ConfigError as error:
        for line in (error.message, *error.evidence):
            assert _PLACE.match(line), line
            assert "pydantic" not in line
            assert "validator" not in line
            assert "\n" not in line
            assert TOKEN not in line or "apiServerEndpoint" in line or ".token" not in line
        assert error.exit_code in range(ExitCode.CONFIG_INVALID, ExitCode.VERSION_UNAVAILABLE + 1)
        return None
    for api_version in API_VERSIONS:
        if not unsayable(documents, api_version):
            assert same(read_documents(write_documents(documents, api_version)), documents), api_version
    return documents


def same(one: Documents, other: Documents) -> bool:
    """Whether two files mean the same, though in two API versions."""
    for left, right in (
        (one.init, other.init), (one.join, other.join), (one.reset, other.reset), (one.upgrade, other.upgrade),
        (one.kubelet, other.kubelet), (one.kube_proxy, other.kube_proxy),
    ):  # fmt: skip
        if left != right:
            return False
    if one.cluster is None or other.cluster is None:
        return one.cluster is other.cluster
    return bool(_plain(one) == _plain(other))


def _plain(documents: Documents) -> Any:
    cluster = documents.cluster
    assert cluster is not None
    gates = {name: on for name, on in cluster.feature_gates.items() if name != "PublicKeysECDSA"}
    return cluster.model_copy(update={"feature_gates": gates})
