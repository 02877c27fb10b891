"""Which steps bring a stacked etcd to TLS on its own address, from the manifests that there are."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kubewright.errors import ConfigError, ExitCode, HostError
from kubewright.model.config.kubeadm import ClusterConfiguration
from kubewright.model.etcd_secured import Due, asked_at, due, is_reached, named_files
from kubewright.model.manifests import static_pods
from kubewright.model.node import ControlPlaneNode
from kubewright.model.versions import facts_for

IP = "192.0.2.1"
PEER = f"https://{IP}:2380"
Pods = dict[str, Any]


def wanted(**fields: Any) -> Pods:
    pods = static_pods(
        ClusterConfiguration.model_validate(fields), ControlPlaneNode("cp1", IP), facts_for("v1.20.2")
    )
    return {name: pods[name] for name in ("etcd", "kube-apiserver")}


def but(pods: Pods, name: str, **flags: str | None) -> Pods:
    """The same with other flags; None takes one away."""
    pods = copy.deepcopy(pods)
    container = pods[name]["spec"]["containers"][0]
    for flag, value in flags.items():
        said = f"--{flag.replace('_', '-')}="
        container["command"] = [word for word in container["command"] if not word.startswith(said)]
        if value is not None:
            container["command"].append(said + value)
    return pods


def plain() -> Pods:
    """As kubeadm 1.9 made them: etcd listens by its own defaults, and its volume has another name."""
    etcd = {
        "spec": {
            "containers": [
                {
                    "name": "etcd",
                    "command": [
                        "etcd",
                        "--listen-client-urls=http://127.0.0.1:2379",
                        "--advertise-client-urls=http://127.0.0.1:2379",
                        "--data-dir=/var/lib/etcd",
                    ],
                    "volumeMounts": [{"mountPath": "/var/lib/etcd", "name": "etcd"}],
                }
            ],
            "volumes": [{"hostPath": {"path": "/var/lib/etcd"}, "name": "etcd"}],
        }
    }
    gone = dict.fromkeys(("etcd_cafile", "etcd_certfile", "etcd_keyfile"))
    return but(wanted(), "kube-apiserver", etcd_servers="http://127.0.0.1:2379", **gone) | {"etcd": etcd}


def loopback() -> Pods:
    """As kubeadm 1.10 to 1.12 made them: TLS, on loopback only."""
    return but(
        wanted(), "etcd", listen_client_urls="https://127.0.0.1:2379", advertise_client_urls="https://127.0.0.1:2379",
        listen_peer_urls="https://127.0.0.1:2380", initial_advertise_peer_urls="https://127.0.0.1:2380",
    )  # fmt: skip


def steps(present: Pods, *peers: str, then: Pods | None = None) -> Due:
    return due("cp1", present, then or wanted(), [[peer] for peer in peers])


def test_one_without_tls_takes_all_steps() -> None:
    found = steps(plain(), "http://localhost:2380")
    assert found.peer_urls == (PEER,)
    assert found.member == (f"# peer URL: http://localhost:2380 becomes {PEER}",)
    assert (
        f"# --listen-client-urls: http://127.0.0.1:2379 becomes https://127.0.0.1:2379,https://{IP}:2379"
        in found.etcd
    )
    assert f"# --listen-peer-urls: http://localhost:2380 becomes {PEER}" in found.etcd
    assert "# --cert-file: nothing becomes /etc/kubernetes/pki/etcd/server.crt" in found.etcd
    assert found.api_server[0] == "# --etcd-servers: http://127.0.0.1:2379 becomes https://127.0.0.1:2379"
    assert len(found.api_server) == 4


def test_one_on_loopback_leaves_the_api_server_alone() -> None:
    found = steps(loopback(), "https://127.0.0.1:2380")
    assert found.member
    assert len(found.etcd) == 4
    assert found.api_server == ()


def test_one_as_it_must_be_has_nothing_due() -> None:
    assert not steps(wanted(), PEER)
    assert not steps(but(wanted(), "etcd", snapshot_count="5", heartbeat_interval="500"), PEER)


def test_several_members_as_they_must_be_are_no_matter() -> None:
    assert not steps(wanted(), PEER, "https://192.0.2.2:2380")


def test_each_point_at_which_a_run_is_killed_leaves_the_rest() -> None:
    """The member, etcd's manifest, the API server's."""
    told = steps(plain(), PEER)
    assert (told.member, bool(told.etcd), bool(told.api_server)) == ((), True, True)
    half = steps(plain() | {"etcd": wanted()["etcd"]}, PEER)
    assert (half.member, half.etcd, bool(half.api_server)) == ((), (), True)


def test_a_member_that_is_only_known_wrongly_gets_what_its_manifest_says() -> None:
    other = but(wanted(), "etcd", initial_advertise_peer_urls="https://192.0.2.77:2380")
    found = steps(other, "http://127.0.0.1:2380")
    assert (found.etcd, found.api_server) == ((), ())
    assert found.peer_urls == ("https://192.0.2.77:2380",)


@pytest.mark.parametrize(
    "flags",
    [
        {"listen_client_urls": f"https://{IP}:2379,http://127.0.0.1:2379"},
        {"listen_client_urls": "https://[::1]:2379"},
        {"listen_peer_urls": "https://localhost:2380"},
        {"advertise_client_urls": "https://0.0.0.0:2379"},
        {"initial_advertise_peer_urls": None},
        {"client_cert_auth": "false"},
        {"peer_client_cert_auth": None},
        {"trusted_ca_file": None},
        {"peer_key_file": None},
    ],
)
def test_each_of_its_flags_can_be_what_is_wrong(flags: dict[str, str | None]) -> None:
    found = steps(but(wanted(), "etcd", **flags), PEER)
    assert [line.split(":")[0] for line in found.etcd] == [f"# --{next(iter(flags)).replace('_', '-')}"]
    assert found.api_server == ()


@pytest.mark.parametrize("urls", ["https://0.0.0.0:2379", f"https://{IP}:2379", "https://[::]:2379"])
def test_one_that_others_reach_is_left_as_it_is(urls: str) -> None:
    present = but(wanted(), "etcd", listen_client_urls=urls)
    assert not steps(but(present, "kube-apiserver", etcd_servers=f"https://{IP}:2379"), PEER)


@pytest.mark.parametrize(
    ("flags", "wrong"),
    [
        ({"etcd_servers": "http://127.0.0.1:2379"}, True),
        ({"etcd_servers": "https://127.0.0.1:4001"}, True),
        ({"etcd_servers": "https://192.0.2.9:2379"}, True),
        ({"etcd_servers": None}, True),
        ({"etcd_certfile": None}, True),
        ({"etcd_servers": f"https://{IP}:2379"}, False),
        ({"etcd_servers": "https://localhost:2379"}, False),
        ({"etcd_servers": f"https://{IP}:2379,https://127.0.0.1:2379"}, False),
    ],
)
def test_an_api_server_moves_only_where_it_would_not_reach_etcd(
    flags: dict[str, str | None], wrong: bool
) -> None:
    assert bool(steps(but(wanted(), "kube-apiserver", **flags), PEER).api_server) == wrong


@pytest.mark.parametrize(
    ("present", "peers"),
    [(plain(), (PEER, "https://192.0.2.2:2380")), (wanted(), (PEER, "http://192.0.2.2:2380"))],
)
def test_several_members_are_refused(present: Pods, peers: tuple[str, ...]) -> None:
    with pytest.raises(HostError, match="cp1: etcd has 2 members, and is without TLS") as caught:
        steps(present, *peers)
    assert caught.value.exit_code is ExitCode.HOST_NOT_FIT


def test_a_configuration_that_would_not_mend_it_is_refused() -> None:
    extra = {"local": {"extraArgs": {"listen-client-urls": "http://0.0.0.0:2379"}}}
    with pytest.raises(ConfigError, match="--listen-client-urls=http://0") as caught:
        steps(plain(), "http://localhost:2380", then=wanted(etcd=extra))
    assert "extraArgs" in caught.value.hint
    assert not steps(wanted(), PEER, then=wanted(etcd=extra))


def test_an_api_server_that_would_be_cut_off_is_refused() -> None:
    then = wanted(apiServer={"extraArgs": {"etcd-servers": "http://127.0.0.1:2379"}})
    with pytest.raises(ConfigError, match="kube-apiserver would not reach etcd"):
        steps(plain(), "http://localhost:2380", then=then)


def test_etcd_never_begins_without_its_data() -> None:
    with pytest.raises(HostError, match="--data-dir is at /var/lib/etcd, and would be at /srv/etcd"):
        steps(plain(), PEER, then=wanted(etcd={"local": {"dataDir": "/srv/etcd"}}))
    with pytest.raises(HostError, match="--wal-dir is at /var/lib/etcd/wal, and would be at none"):
        steps(but(plain(), "etcd", wal_dir="/var/lib/etcd/wal/"), PEER)
    nowhere = plain()
    nowhere["etcd"]["spec"]["volumes"] = []
    with pytest.raises(HostError, match="--data-dir is at no place of the host"):
        steps(nowhere, PEER)


def test_data_that_is_mounted_elsewhere_in_the_container_is_the_same() -> None:
    present = but(plain(), "etcd", data_dir="/data/etcd/")
    present["etcd"]["spec"]["containers"][0]["volumeMounts"][0]["mountPath"] = "/data"
    present["etcd"]["spec"]["volumes"][0]["hostPath"]["path"] = "/var/lib/"
    assert steps(present, PEER).etcd


def test_where_it_is_asked_on_its_host() -> None:
    assert asked_at(plain()["etcd"]) == ["http://127.0.0.1:2379"]
    assert asked_at(but(plain(), "etcd", listen_client_urls=None)["etcd"]) == ["http://localhost:2379"]
    every = "https://0.0.0.0:2379,https://[::]:4001,http://127.0.0.1"
    assert asked_at(but(plain(), "etcd", listen_client_urls=every)["etcd"]) == [
        "https://127.0.0.1:2379", "https://[::1]:4001", "http://127.0.0.1",
    ]  # fmt: skip


def test_all_files_that_it_needs_are_named() -> None:
    pki = "/etc/kubernetes/pki"
    assert set(named_files(wanted())) == {
        f"{pki}/etcd/server.crt", f"{pki}/etcd/server.key", f"{pki}/etcd/ca.crt", f"{pki}/etcd/peer.crt",
        f"{pki}/etcd/peer.key", f"{pki}/apiserver-etcd-client.crt", f"{pki}/apiserver-etcd-client.key",
    }  # fmt: skip


def test_whom_others_reach() -> None:
    assert is_reached([PEER])
    assert is_reached(["https://etcd.example.com:2380"])
    assert not is_reached([])
    assert not is_reached([PEER, "https://localhost:2380"])
    assert not is_reached([f"http://{IP}:2380"])
