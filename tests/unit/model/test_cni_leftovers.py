"""Which links, files and reservations go with the pod network, and which are somebody else's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubewright.model.cni_leftovers import (
    CniFile,
    CniSeen,
    Link,
    cni_cut,
    emptied,
    parse_cni_file,
    parse_links,
)

POD, OTHER_POD = "ab" * 32, "cd" * 32
OWN = CniFile("/etc/cni/net.d/10-kubewright.conflist", "kubewright", ("ptp", "portmap"), "")
FLANNEL = CniFile("/etc/cni/net.d/10-flannel.conflist", "cbr0", ("flannel", "portmap"), "cni0")
PODMAN = CniFile("/etc/cni/net.d/87-podman-bridge.conflist", "podman", ("bridge",), "cni-podman0")
CNI0 = Link("cni0", "bridge", "")
VETH = Link("veth1", "veth", "cni0")


def seen(*files: CniFile, **more: Any) -> CniSeen:
    empty: dict[str, Any] = {
        "links": (), "flannel_run": False, "reservations": {}, "results": {}, "flannel_state": (),
    }  # fmt: skip
    return CniSeen(files, **empty | more)


def result(container: str, link: str, network: str = "cbr0") -> bytes:
    interfaces = [{"name": "cni0"}, {"name": link}, {"name": "eth0", "sandbox": "/run/netns/x"}]
    document = {
        "kind": "cniCacheV1", "containerId": container, "networkName": network,
        "result": {"interfaces": interfaces},
    }  # fmt: skip
    return json.dumps(document).encode()


def test_configurations_are_read() -> None:
    flannel = {"name": "cbr0", "plugins": [{"type": "flannel", "delegate": {"hairpinMode": True}}]}
    one = {"name": "lan", "type": "bridge", "bridge": "br0"}
    assert parse_cni_file("/x/10-flannel.conflist", json.dumps(flannel).encode()).bridge == "cni0"
    assert parse_cni_file("/x/lan.conf", json.dumps(one).encode()) == CniFile(
        "/x/lan.conf", "lan", ("bridge",), "br0"
    )


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"plugins": 7}', b'{"plugins": [null]}'])
def test_what_is_no_configuration_is_nobodys(content: bytes) -> None:
    file = parse_cni_file("/etc/cni/net.d/10-flannel.conf", content)
    assert not (file.is_flannel or file.is_own)
    assert [kept.what for kept in cni_cut(seen(file)).kept] == [file.path]


def test_links_are_read_with_kind_and_bridge() -> None:
    rows = [
        {"ifname": "lo"},
        {"ifname": "cni0", "linkinfo": {"info_kind": "bridge"}},
        {"ifname": "veth1", "master": "cni0", "linkinfo": {"info_kind": "veth"}},
    ]
    assert parse_links(json.dumps(rows)) == [Link("lo", "", ""), CNI0, VETH]
    assert parse_links("") == parse_links("no JSON") == []


def test_flannel_goes_with_its_links_files_and_state() -> None:
    links = (
        CNI0,
        VETH,
        Link("flannel.1", "vxlan", ""),
        Link("flannel-wg", "wireguard", ""),
        Link("eth0", "", ""),
    )
    found = cni_cut(
        seen(
            FLANNEL, links=links, flannel_run=True, flannel_state=[f"/var/lib/cni/flannel/{POD}"],
            results={"/var/lib/cni/results/a": result(POD, "veth1")},
            reservations={"/var/lib/cni/networks/cbr0/10.244.0.2": POD, "/var/lib/cni/networks/cbr0/lock": ""},
        )
    )  # fmt: skip
    assert found.links == ("veth1", "cni0", "flannel.1", "flannel-wg")
    assert set(found.state) == {
        "/var/lib/cni/networks/cbr0/10.244.0.2", "/var/lib/cni/networks/cbr0/lock", "/var/lib/cni/results/a",
        f"/var/lib/cni/flannel/{POD}",
    }  # fmt: skip
    assert found.files == (FLANNEL.path,)
    assert found.flannel_run
    assert found.kept == ()


@pytest.mark.parametrize(
    "mark", [{"flannel_run": True}, {"flannel_state": ["/var/lib/cni/flannel/x"]}], ids=["run", "state"]
)
def test_one_mark_of_flannel_is_enough(mark: dict[str, Any]) -> None:
    """A run that was killed may have left any one of them."""
    assert cni_cut(seen(links=(CNI0,), **mark)).links == ("cni0",)


def test_without_a_mark_the_same_links_are_named_and_stay() -> None:
    found = cni_cut(seen(OWN, links=(CNI0, VETH, Link("flannel.1", "vxlan", ""))))
    assert found.links == ()
    assert [kept.what for kept in found.kept] == ["link cni0", "link flannel.1"]


def test_names_alone_do_not_make_a_link_flannels() -> None:
    found = cni_cut(seen(FLANNEL, links=(Link("flannel.1", "bridge", ""), Link("cni0", "vxlan", ""))))
    assert found.links == ()


@pytest.mark.parametrize(
    "results", [{}, {"/var/lib/cni/results/a": result("default-web", "veth1")}], ids=["unknown", "an owner's"]
)
def test_a_bridge_with_somebodys_container_stays(results: dict[str, bytes]) -> None:
    pods = {"/var/lib/cni/results/b": result(POD, "veth2")}
    links = (CNI0, VETH, Link("veth2", "veth", "cni0"))
    found = cni_cut(seen(FLANNEL, links=links, results=pods | results))
    assert found.links == ("veth2",)
    assert [kept.what for kept in found.kept] == ["link cni0"]
    assert "veth1" in found.kept[0].why


def test_a_bridge_that_another_network_uses_too_stays() -> None:
    lan = CniFile("/etc/cni/net.d/50-lan.conf", "lan", ("bridge",), "cni0")
    found = cni_cut(seen(FLANNEL, lan, links=(CNI0,)))
    assert found.links == ()
    assert [kept.what for kept in found.kept] == [lan.path, "link cni0"]


def test_an_owners_bridge_is_not_even_named() -> None:
    links = (Link("br0", "bridge", ""), Link("cni-podman0", "bridge", ""), Link("veth9", "veth", "br0"))
    found = cni_cut(seen(FLANNEL, links=links))
    assert (found.links, found.kept) == ((), ())


def test_other_networks_files_and_addresses_stay() -> None:
    address = "/var/lib/cni/networks/podman/10.88.0.2"
    results = {"/var/lib/cni/results/podman-x": result(POD, "veth3", "podman")}
    found = cni_cut(seen(OWN, PODMAN, reservations={address: POD}, results=results))
    assert (found.files, found.state) == ((OWN.path,), ())
    assert [kept.what for kept in found.kept] == [PODMAN.path, "/var/lib/cni/networks/podman"]


def test_leaked_reservations_go_and_those_of_own_containers_stay() -> None:
    """P37; `ctr run --cni` puts a container into the pod network under a name of its own."""
    folder = "/var/lib/cni/networks/kubewright"
    reservations = {
        f"{folder}/10.244.0.2": POD, f"{folder}/10.244.0.3": "default-web", f"{folder}/10.244.0.4": OTHER_POD,
        f"{folder}/last_reserved_ip.0": "10.244.0.4", f"{folder}/lock": "",
    }  # fmt: skip
    found = cni_cut(seen(OWN, reservations=reservations))
    assert found.state == (f"{folder}/10.244.0.2", f"{folder}/10.244.0.4")
    assert [kept.what for kept in found.kept] == [folder]
    assert "default-web" in found.kept[0].why


def test_our_own_networks_state_is_known_without_its_file() -> None:
    path = "/var/lib/cni/networks/kubewright/10.244.0.2"
    assert cni_cut(seen(reservations={path: POD})).state == (path,)


def test_directories_are_emptied_from_the_inside() -> None:
    assert emptied(["/var/lib/cni/networks/kubewright/lock", "/var/lib/cni/results/a"]) == [
        "/var/lib/cni/networks/kubewright", "/var/lib/cni/networks", "/var/lib/cni/results",
    ]  # fmt: skip
