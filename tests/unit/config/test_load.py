"""Reading cluster.yaml: each kind of mistake with its message and exit code, and no traceback ever."""

# ruff: noqa: E501 (a case is a row of its table)

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kubewright.errors import ConfigError, ExitCode
from kubewright.model.config.cluster import ClusterSpec, HostSpec, Role, SshSpec, Taint
from kubewright.model.config.components import kube_proxy_configuration
from kubewright.model.config.example import EXAMPLE
from kubewright.model.config.kubeadm import default_cluster_configuration
from kubewright.model.config.load import load_cluster, parse_cluster

BASE: dict[str, Any] = {
    "apiVersion": "kubewright.dev/v1alpha1",
    "kind": "Cluster",
    "name": "blue",
    "kubernetesVersion": "v1.20.2",
    "endpoint": "api.example.com:6443",
    "source": {"type": "debian"},
    "network": {"plugin": "builtin", "podSubnet": "10.244.0.0/16", "serviceSubnet": "10.96.0.0/12"},
    "dns": {"provider": "auto", "replicas": 2},
    "ssh": {"user": "root", "port": 22, "jump": "admin@bastion:2222"},
    "hosts": [
        {"name": "cp1", "address": "192.168.7.11", "roles": ["control-plane"], "nodeIP": "192.168.7.11"},
        {"name": "w1", "address": "192.168.7.12", "labels": {"disk": "ssd"}, "ssh": {"port": 2022}},
        {
            "name": "w2",
            "address": "w2.example.com",
            "taints": [{"key": "dedicated", "value": "db", "effect": "NoSchedule"}],
        },
    ],
    "clusterConfiguration": {"apiServer": {"extraArgs": {"v": "2"}, "certSANs": ["api.example.com"]}},
    "kubeletConfiguration": {"maxPods": 60, "evictionHard": {"memory.available": "100Mi"}},
    "kubeProxyConfiguration": {"conntrack": {"maxPerCore": 0}},
}


def changed(**fields: Any) -> dict[str, Any]:
    """The base with top-level fields replaced."""
    return copy.deepcopy(BASE) | fields


def host(index: int, **fields: Any) -> dict[str, Any]:
    """The base with fields of one host replaced."""
    document = copy.deepcopy(BASE)
    document["hosts"][index] |= fields
    return document


def refusal(document: dict[str, Any] | str) -> ConfigError:
    text = document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False)
    with pytest.raises(ConfigError) as caught:
        parse_cluster(text)
    return caught.value


def test_a_whole_file_is_read() -> None:
    spec = parse_cluster(yaml.safe_dump(BASE))
    assert [one.name for one in spec.control_planes] == ["cp1"]
    assert [one.name for one in spec.workers] == ["w1", "w2"]
    assert spec.ssh_of(spec.hosts[1]) == SshSpec(user="root", port=2022, jump="admin@bastion:2222")
    assert spec.hosts[2].taints == [Taint(key="dedicated", value="db", effect="NoSchedule")]
    assert spec.kubelet_configuration["maxPods"] == 60


def test_the_example_is_read_without_a_finding() -> None:
    spec = parse_cluster(EXAMPLE)
    assert [(one.name, one.roles) for one in spec.hosts] == [
        ("cp1", [Role.CONTROL_PLANE]), ("w1", [Role.WORKER]), ("w2", [Role.WORKER]),
    ]  # fmt: skip


def test_what_the_example_has_in_comments_is_valid_too() -> None:
    lines = [
        line.replace("# ", "", 1) if line.lstrip().startswith("# ") else line for line in EXAMPLE.splitlines()
    ]
    prose = ("How the hosts", "The node's name", "Pod, service", "What clients", "kubeadm's own")
    text = "\n".join(line for line in lines if not line.startswith(prose))
    spec = parse_cluster(text)
    assert spec.hosts[2].taints
    assert spec.cluster_configuration
    assert spec.kube_proxy_configuration
    assert spec.ssh.jump


def test_a_field_without_a_value_is_not_set() -> None:
    spec = parse_cluster(yaml.safe_dump(host(1, labels=None, ssh=None) | {"endpoint": None, "network": None}))
    assert spec.hosts[1].labels == {}
    assert spec.network.pod_subnet == "10.244.0.0/16"


def test_default_taints_follow_the_roles() -> None:
    key = "node-role.kubernetes.io/master"
    control_plane = HostSpec(name="a", address="local", roles=[Role.CONTROL_PLANE])
    both = HostSpec(name="a", address="local", roles=[Role.CONTROL_PLANE, Role.WORKER])
    assert control_plane.taints_or_default([key]) == [Taint(key=key, effect="NoSchedule")]
    assert both.taints_or_default([key]) == HostSpec(name="b", address="local").taints_or_default([key]) == []
    assert control_plane.model_copy(update={"taints": []}).taints_or_default([key]) == []


def test_an_unknown_field_is_named_with_its_host_its_line_and_a_suggestion() -> None:
    text = (
        "hosts:\n- {name: cp1, address: 10.1.1.1, roles: [control-plane]}\n- {name: w1, address: 10.1.1.2}\n"
        "- name: w2\n  adress: 10.1.1.3\n"
    )
    error = refusal(text)
    assert error.exit_code is ExitCode.CONFIG_UNKNOWN_FIELD
    # Misspelt and therefore missing: one mistake, not two.
    assert (
        error.message
        == "cluster.yaml: hosts[2] (w2): unknown field 'adress' (did you mean 'address'?), line 5"
    )
    assert error.evidence == ()


def test_all_mistakes_are_listed_unknown_fields_first() -> None:
    document = host(1, name="W_1", ssh={"prot": 22, "port": 70000})
    error = refusal(document | {"nmae": "x", "kind": "Clutser"})
    assert error.exit_code is ExitCode.CONFIG_UNKNOWN_FIELD
    assert "(and 4 more)" in error.message
    listed = [error.message, *error.evidence]
    assert len(listed) == 5
    for words in (
        "unknown field 'nmae' (did you mean 'name'?)",
        "hosts[1].ssh (W_1): unknown field 'prot' (did you mean 'port'?)",
        "hosts[1].ssh.port (W_1): 70000 must be at most 65535",
        "hosts[1].name (W_1): 'W_1' is not a valid node name",
        "kind: 'Clutser' is not 'Cluster' (did you mean 'Cluster'?)",
    ):
        assert any(words in line for line in listed), words


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (host(1, name="cp1"), "hosts[1].name (cp1): 'cp1' is the name of hosts[0]"),
        (host(1, address="192.168.7.11", ssh={}), "hosts[1].address (w1): '192.168.7.11' (port 22) is the address of"),
        (host(2, address="W2.example.com", nodeIP="192.168.7.11"), "hosts[2].nodeIP (w2)"),
        ({"hosts": [{"name": "a", "address": "local", "roles": ["control-plane"]}, {"name": "b", "address": "local"}]},
         "hosts[1].address (b): 'local' is the address of hosts[0] (a)"),
        # A copied control plane is a duplicate before it is a second control plane.
        (changed(hosts=[BASE["hosts"][0], BASE["hosts"][0]]), "hosts[1].name (cp1)"),
    ],
)  # fmt: skip
def test_duplicate_hosts_have_their_exit_code(document: dict[str, Any], words: str) -> None:
    error = refusal(document)
    assert error.exit_code is ExitCode.CONFIG_DUPLICATE_HOST
    assert words in error.message


def test_one_address_with_two_ports_or_jump_hosts_is_two_hosts() -> None:
    parse_cluster(yaml.safe_dump(host(1, address="192.168.7.11")))
    parse_cluster(yaml.safe_dump(host(1, address="192.168.7.11", ssh={"jump": "other"})))


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (changed(network={"podSubnet": "10.96.0.0/16"}), "network.podSubnet: 10.96.0.0/16 overlaps network.service"),
        (changed(network={"podSubnet": "192.168.0.0/16"}), "hosts[0].address (cp1): 192.168.7.11 is inside network.pod"),
        (changed(network={"serviceSubnet": "192.168.0.0/16"}), "is inside network.serviceSubnet"),
        (host(1, nodeIP="10.244.3.4"), "hosts[1].nodeIP (w1): 10.244.3.4 is inside network.podSubnet"),
        (changed(endpoint="10.96.0.1:6443"), "endpoint: 10.96.0.1 is inside network.serviceSubnet"),
        (changed(network={}, clusterConfiguration={"networking": {"podSubnet": "10.100.0.0/16"}}),
         "clusterConfiguration.networking.podSubnet: 10.100.0.0/16 overlaps network.serviceSubnet"),
    ],
)  # fmt: skip
def test_overlapping_networks_have_their_exit_code(document: dict[str, Any], words: str) -> None:
    """P32."""
    error = refusal(document)
    assert error.exit_code is ExitCode.CONFIG_OVERLAPPING_SUBNETS
    assert words in error.message
    assert error.hint


def test_an_unsupported_version_has_its_exit_code() -> None:
    error = refusal(changed(kubernetesVersion="v1.99.0"))
    assert error.exit_code is ExitCode.VERSION_UNAVAILABLE
    assert error.message == "cluster.yaml: kubernetesVersion: Kubernetes v1.99.0 is not supported, line 4"
    assert "v1.20.x" in error.hint


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (changed(kubernetesVersion="1.20"), "kubernetesVersion: '1.20' is not a version such as v1.20.2"),
        (changed(kubernetesVersion=1.2), 'kubernetesVersion: 1.2 must be text: write it in quotes, "1.2"'),
        (changed(kubernetesVersion="stable"), "kubernetesVersion: 'stable' is not a version"),
        (changed(apiVersion="kubewright.dev/v1"), "apiVersion: 'kubewright.dev/v1' is not 'kubewright.dev/v1alpha1'"),
        (changed(name="a b"), "name: 'a b' is not a valid name"),
        (changed(endpoint="https://api:6443"), "endpoint: 'https://api:6443' is not host[:port]"),
        (changed(endpoint="[fd00::1"), "endpoint"),
        (changed(endpoint="192.168.7.300"), "endpoint: '192.168.7.300': its host is neither"),
        (changed(source={"type": "debain"}), "source.type: 'debain' is not 'debian' or 'system' (did you mean 'debian'?)"),
        (changed(network=[]), "network: must be a mapping, not a list"),
        (changed(network={"podSubnet": "10.244.0.0"}), "network.podSubnet: '10.244.0.0' is not a CIDR: the prefix"),
        (changed(network={"podSubnet": "10.244.0.1/16"}), "write the network, '10.244.0.0/16'"),
        (changed(network={"podSubnet": "fd00::/48"}), "IPv6 and dual-stack clusters are not supported yet"),
        (changed(network={"podSubnet": "10.244.0.0/16,fd00::/48"}), "not supported yet"),
        (changed(network={"podSubnet": "127.0.0.0/8"}), "cannot be routed"),
        (changed(network={"podSubnet": "10.244.0.0/25"}), "is smaller than the /24 that each node gets"),
        (changed(network={"podSubnet": "10.244.0.0/23"}), "has room for 2 nodes with a /24 each, and there are 3 hosts"),
        (changed(network={"podSubnet": "32.0.0.0/7"}), "too large for nodes with a /24"),
        (changed(network={"serviceSubnet": "10.96.0.0/29"}), "network.serviceSubnet: 10.96.0.0/29 is too small"),
        (changed(network={"serviceSubnet": "32.0.0.0/8"}), "network.serviceSubnet: 32.0.0.0/8 is too large"),
        (changed(network={"dnsDomain": "Cluster.Local"}), "network.dnsDomain: 'Cluster.Local' is not a DNS domain"),
        (changed(clusterConfiguration={"controllerManager": {"extraArgs": {"node-cidr-mask-size": "x"}}}),
         "clusterConfiguration.controllerManager.extraArgs.node-cidr-mask-size: 'x' is not a prefix length"),
        (changed(dns={"replicas": 0}), "dns.replicas: 0 must be at least 1"),
        (changed(dns={"replicas": "2"}), "dns.replicas: must be a whole number, not '2'"),
        (changed(dns={"replicas": True}), "dns.replicas: must be a whole number, not true"),
        (changed(ssh={"jump": "a@b@"}), "ssh.jump"),
        (changed(ssh={"user": "a b"}), "ssh.user: 'a b' is not a user's name"),
        (changed(ssh={"keyFiles": "id"}), "ssh.keyFiles: must be a list, not 'id'"),
        (changed(hosts=[]), "hosts: must not be empty"),
        (changed(hosts="cp1"), "hosts: must be a list, not 'cp1'"),
        (changed(hosts=["cp1"]), "hosts[0]: must be a mapping, not 'cp1'"),
        (changed(hosts=BASE["hosts"][1:]), "hosts: no host is a control plane"),
        (host(1, roles=["control-plane"]) | {"endpoint": None}, "hosts: 2 control planes (cp1, w1) need an endpoint"),
        (host(1, roles=["wroker"]), "(did you mean 'worker'?)"),
        (host(1, roles=[]), "hosts[1].roles (w1): must not be empty"),
        (host(1, roles=["worker", "worker"]), "hosts[1].roles (w1): a role stands here twice"),
        (host(1, name="Worker_1"), "'worker-1' would do"),
        (host(1, name="a" * 254), "not a valid node name"),
        (host(1, name="-a"), "not a valid node name"),
        (host(1, address="root@w1"), "write the user as ssh.user"),
        (host(1, address="w1:22"), "write the port as ssh.port"),
        (host(1, address="192.168.7.300"), "is not an IP address, a DNS name or 'local'"),
        (host(1, nodeIP="fd00::1"), "not supported yet"),
        (host(1, nodeIP="127.0.0.1"), "cannot be a node's address"),
        (host(1, labels={"a b": "c"}), "hosts[1].labels['a b'] (w1): 'a b' is not [prefix/]name"),
        (host(1, labels={"a": True}), 'hosts[1].labels.a (w1): true must be text: write it in quotes, "true"'),
        (host(1, labels={"a": "b c"}), "hosts[1].labels.a (w1): 'b c' is not a valid value"),
        (host(1, taints=[{"key": "a", "effect": "NoSchedul"}]), "(did you mean 'NoSchedule'?)"),
        (host(1, taints=[{"key": "a", "effect": "NoExecute"}] * 2), "two taints have the same key and effect"),
        ("", "cluster.yaml: the file is empty"),
        ("# only\n---\n", "cluster.yaml: the file is empty"),
        ("- a\n", "cluster.yaml: line 1: a mapping of fields is expected"),
        ("just text", "cluster.yaml: line 1: a mapping of fields is expected"),
        ("a: 1\n---\nb: 2\n", "cluster.yaml: 2 documents, where one cluster is expected (the second begins at line 3)"),
        ("hosts:\n\t- a\n", "cluster.yaml: line 2: indented with a tab"),
        ("name: a\nname: b\n", "cluster.yaml: line 2: field 'name' stands here twice (first on line 1)"),
    ],
)  # fmt: skip
def test_every_other_mistake_is_invalid_and_says_where(document: dict[str, Any] | str, words: str) -> None:
    error = refusal(document)
    assert error.exit_code is ExitCode.CONFIG_INVALID
    assert error.message.startswith("cluster.yaml: ")
    assert words in error.message
    assert "\n" not in error.message


def test_a_pod_subnet_may_be_small_where_nodes_get_less() -> None:
    args = {"controllerManager": {"extraArgs": {"node-cidr-mask-size": "26"}}}
    parse_cluster(yaml.safe_dump(changed(network={"podSubnet": "10.8.0.0/24"}, clusterConfiguration=args)))


def test_a_pod_network_of_another_maker_may_need_no_pod_subnet() -> None:
    """Kubernetes is not told of one then; ours cannot do without."""
    spec = parse_cluster(yaml.safe_dump(changed(network={"plugin": "none", "podSubnet": ""})))
    assert default_cluster_configuration(spec).networking.pod_subnet == ""
    assert kube_proxy_configuration(spec)["clusterCIDR"] == ""
    error = refusal(changed(network={"podSubnet": ""}))
    assert error.message.startswith("cluster.yaml: network.podSubnet: must not be empty: the plugin builtin")


def test_paths_are_taken_from_the_files_directory_and_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, where = tmp_path / "home", tmp_path / "clusters"
    for key in (home / "id", where / "keys" / "w1"):
        key.parent.mkdir(parents=True)
        key.write_text("key")
    monkeypatch.setenv("HOME", str(home))
    document = host(1, ssh={"keyFiles": ["keys/w1"]})
    document["ssh"] = {"keyFiles": ["~/id"], "knownHosts": "../known"}
    file = where / "cluster.yaml"
    file.write_text(yaml.safe_dump(document))
    monkeypatch.chdir(tmp_path)
    spec = load_cluster(Path("clusters/cluster.yaml"))
    assert spec.ssh.key_files == [str(home / "id")]
    assert spec.ssh.known_hosts == str(tmp_path / "known")
    assert spec.hosts[1].ssh.key_files == [str(where / "keys" / "w1")]


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(host(1, ssh={"keyFiles": ["nowhere"]}), sort_keys=False))
    with pytest.raises(ConfigError) as caught:
        load_cluster(file)
    assert (
        f"c.yaml: hosts[1].ssh.keyFiles[0] (w1): there is no key file {tmp_path / 'nowhere'}"
        in caught.value.message
    )
    assert caught.value.exit_code is ExitCode.CONFIG_INVALID


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none.yaml", "there is no such file"), (tmp_path, "is a directory")):
        with pytest.raises(ConfigError, match=words) as caught:
            load_cluster(path)
        assert str(path) in caught.value.message
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"name: a\nhosts: \xff\xfe\n")
    with pytest.raises(ConfigError, match="line 2 is not UTF-8"):
        load_cluster(binary)
    binary.write_bytes(b"#" * (2 << 20))
    with pytest.raises(ConfigError, match="too many for a configuration file"):
        load_cluster(binary)


# Any change of a valid file is read, or refused with one line that names the file and a path or line.

_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8),
    st.sampled_from(["10.0.0.0/8", "local", "::1", "v1.20.2", "~", "a.b", "-1", "0/0", "1" * 300, "\x00", "é", "[key]"]),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
)  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in _places(item, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    document: Any = copy.deepcopy(BASE)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(_places(document)))
        if not path:
            continue
        around = document
        for part in path[:-1]:
            around = around[part]
        match draw(st.sampled_from(["replace", "remove", "rename", "double"])):
            case "remove":
                del around[path[-1]]
            case "rename" if isinstance(around, dict):
                around[draw(st.text(max_size=6)) + str(path[-1])[1:]] = around.pop(path[-1])
            case "double" if isinstance(around, list):
                around.append(copy.deepcopy(around[path[-1]]))
            case _:
                around[path[-1]] = draw(_JUNK)
    return document


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
@example({"hosts": [{"name": "\n", "address": "a"}]})
@example({"hosts": [{"name": {}, "address": []}]})
@example({"hosts": [{"name": "a", "address": "local", "roles": ["control-plane"], "ssh": {"keyFiles": [1]}}]})
def test_a_mutated_file_is_read_or_refused_with_a_place(document: Any) -> None:
    text = yaml.dump(document, Dumper=_DUMPER, sort_keys=False, allow_unicode=True)
    try:
        spec = parse_cluster(text)
    except ConfigError as error:
        for line in (error.message, *error.evidence):
            assert line.startswith("cluster.yaml: ")
            where = line.removeprefix("cluster.yaml: ")
            assert where.startswith(("line ", "the file is empty")) or ": " in where or "field" in where
            assert "pydantic" not in line
            assert "validator" not in line
            assert "\n" not in line
        assert error.exit_code in range(ExitCode.CONFIG_INVALID, ExitCode.VERSION_UNAVAILABLE + 1)
    else:
        assert isinstance(spec, ClusterSpec)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(EXAMPLE)), st.text(alphabet="\t\n :-[]{}&*'\"#|>%!ax1\x07", min_size=1, max_size=4))
def test_a_file_with_typing_errors_is_read_or_refused(at: int, typed: str) -> None:
    try:
        parse_cluster(EXAMPLE[:at] + typed + EXAMPLE[at:])
    except ConfigError as error:
        assert error.message.startswith("cluster.yaml: ")
        assert "\n" not in error.message
