"""etcd outside the control planes, in cluster.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubewright.errors import ConfigError
from kubewright.model.config.etcd import even_or_single
from kubewright.model.config.kubeadm import default_cluster_configuration, to_stored
from kubewright.model.config.load import load_cluster, parse_cluster

CONTROL_PLANE = "{name: cp1, address: 192.0.2.1, roles: [control-plane]}"


def hosts(*rows: str) -> str:
    return "".join(["hosts:\n", *(f"- {row}\n" for row in (CONTROL_PLANE, *rows))])


def etcd(number: int, roles: str = "[etcd]") -> str:
    return f"{{name: e{number}, address: 192.0.2.2{number}, roles: {roles}}}"


OWN = """\
etcd:
  endpoints: ['https://192.0.2.31:2379', 'https://etcd.example.com:2379/']
  caFile: etcd/ca.crt
  certFile: etcd/client.crt
  keyFile: /keys/client.key
"""


def test_hosts_with_the_role_are_the_clusters_etcd() -> None:
    spec = parse_cluster(
        hosts(etcd(1), etcd(2, "[etcd, load-balancer]"), etcd(3)) + "endpoint: {type: haproxy}\n"
    )
    external = default_cluster_configuration(spec).etcd.external
    assert external is not None
    assert external.endpoints == [f"https://192.0.2.2{number}:2379" for number in (1, 2, 3)]
    assert external.ca_file == "/etc/kubernetes/pki/etcd/ca.crt"
    assert external.key_file == "/etc/kubernetes/pki/apiserver-etcd-client.key"
    assert [host.name for host in spec.nodes] == ["cp1"]


def test_an_etcd_of_your_own_has_its_files_here_and_their_copies_on_the_control_planes(
    tmp_path: Path,
) -> None:
    (tmp_path / "etcd").mkdir()
    for name in ("ca.crt", "client.crt", "client.key"):
        (tmp_path / "etcd" / name).touch()
    file = tmp_path / "cluster.yaml"
    file.write_text(hosts() + OWN.replace("/keys", "etcd"))
    spec = load_cluster(file)
    assert spec.etcd is not None
    assert spec.etcd.ca_file == str(tmp_path / "etcd/ca.crt")
    stored = to_stored(default_cluster_configuration(spec))
    assert stored["etcd"]["external"]["endpoints"] == [
        "https://192.0.2.31:2379",
        "https://etcd.example.com:2379",
    ]
    assert str(tmp_path) not in str(stored)


def test_a_file_that_is_not_there_is_named_with_its_field(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(hosts() + OWN)
    with pytest.raises(ConfigError) as caught:
        load_cluster(file)
    said = "\n".join([caught.value.message, *caught.value.evidence])
    assert f"etcd.caFile: there is no file {tmp_path}/etcd/ca.crt" in said
    assert "etcd.keyFile: there is no file /keys/client.key" in said


EXTERNAL = """\
clusterConfiguration:
  etcd:
    external:
      endpoints: ['https://192.0.2.31:2379']
      caFile: /etc/etcd/ca.crt
      certFile: /etc/etcd/client.crt
      keyFile: /etc/etcd/client.key
"""


def test_kubeadms_own_fields_are_paths_on_the_control_planes() -> None:
    cc = default_cluster_configuration(parse_cluster(hosts() + EXTERNAL))
    assert cc.etcd.external is not None
    assert cc.etcd.external.ca_file == "/etc/etcd/ca.crt"


@pytest.mark.parametrize(
    ("text", "path", "problem", "hint"),
    [
        (
            hosts(etcd(1)).replace("[control-plane]", "[control-plane, etcd]"),
            "hosts[0].roles",
            "do not go together",
            "leave the role etcd out",
        ),
        (
            hosts(etcd(1, "[etcd, worker]")),
            "hosts[1].roles",
            "do not go together",
            "load-balancer goes with etcd",
        ),
        (hosts(etcd(1)) + OWN, "etcd", "which is it", "leave out either"),
        (hosts() + OWN + EXTERNAL, "clusterConfiguration.etcd", "said twice", "one place only"),
        (hosts(etcd(1)) + EXTERNAL, "clusterConfiguration.etcd", "contradicts the hosts", "leave it out"),
        (
            hosts() + OWN.replace("https://192.0.2.31", "http://192.0.2.31"),
            "etcd.endpoints[0]",
            "is not a URL",
            "",
        ),
        (
            hosts() + OWN.replace("etcd.example.com:2379/", "192.0.2.31:2379"),
            "etcd.endpoints[1]",
            "twice",
            "",
        ),
        (
            hosts() + EXTERNAL.replace("      caFile", "      #"),
            "clusterConfiguration.etcd.external",
            "caFile",
            "",
        ),
        (
            hosts("{name: e1, address: 192.0.2.21, roles: [etcd], labels: {a: b}}"),
            "hosts[1].labels",
            "becomes no Node",
            "",
        ),
    ],
)
def test_contradictions_are_named_with_the_mend(text: str, path: str, problem: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_cluster(text)
    said = "\n".join([caught.value.message, *caught.value.evidence])
    assert path in said
    assert problem in said
    assert hint in caught.value.hint


def test_even_and_single_members_are_worth_a_word() -> None:
    assert "one member" in even_or_single(1)
    assert "an even number" in even_or_single(4)
    assert [even_or_single(count) for count in (0, 3, 5)] == ["", "", ""]
