"""The zone against Kubernetes' DNS specification 1.1.0, section by section."""

from __future__ import annotations

import dns.name
import dns.rcode
import dns.rdatatype
import pytest
from tests.unit.dns_server.dns_kit import endpoint, port, service, slice_of, small_cluster

from kubewright.dns import objects
from kubewright.dns.index import NAMESPACES, Index
from kubewright.dns.zone import PodMode, Zone

HEAD = "head.default.svc.cluster.local"


def look(name: str, rdtype: str, *, index: Index | None = None, pods: PodMode = "insecure") -> str:
    """An answer as one line: its rcode, or the data of its records, and of the additional ones behind a bar."""
    zone = Zone(index or small_cluster(), "cluster.local", pods=pods)
    if not name.endswith("."):
        name = f"{name}.cluster.local." if not name.endswith(".arpa") else f"{name}."
    answer = zone.lookup(dns.name.from_text(name), dns.rdatatype.from_text(rdtype))
    if answer is None:
        return "not ours"
    if answer.rcode != dns.rcode.NOERROR:
        assert not answer.records
        return dns.rcode.to_text(answer.rcode)
    if not answer.records:
        return "NODATA"
    assert all(record.name == dns.name.from_text(name) for record in answer.records)
    line = ", ".join(record.rdata.to_text() for record in answer.records)
    if answer.additional:
        line += " | " + ", ".join(f"{record.name} {record.rdata}" for record in answer.additional)
    return line


SPECIFICATION = [
    # 2.2 schema version
    ("dns-version", "TXT", '"1.1.0"'),
    ("dns-version", "A", "NODATA"),
    # 2.3.1 A/AAAA of a service with a cluster address
    ("kubernetes.default.svc", "A", "10.96.0.1"),
    ("kubernetes.default.svc", "AAAA", "NODATA"),
    ("six.default.svc", "AAAA", "fd00:10::7"),
    ("six.default.svc", "A", "NODATA"),
    ("dual.default.svc", "A", "10.96.0.8"),
    ("dual.default.svc", "AAAA", "fd00:10::8"),
    # 2.3.2 SRV of a service with a cluster address; unnamed ports have none
    (
        "_https._tcp.kubernetes.default.svc", "SRV",
        "0 100 443 kubernetes.default.svc.cluster.local. | kubernetes.default.svc.cluster.local. 10.96.0.1",
    ),
    ("_https._udp.kubernetes.default.svc", "SRV", "NXDOMAIN"),
    ("_dns._udp.kube-dns.kube-system.svc", "SRV",
     "0 100 53 kube-dns.kube-system.svc.cluster.local. | kube-dns.kube-system.svc.cluster.local. 10.96.0.10"),
    (
        "_http._tcp.dual.default.svc", "SRV",
        "0 100 80 dual.default.svc.cluster.local. | "
        "dual.default.svc.cluster.local. 10.96.0.8, dual.default.svc.cluster.local. fd00:10::8",
    ),
    ("_._tcp.web.default.svc", "SRV", "NXDOMAIN"),
    # 2.3.3 PTR of a cluster address
    ("1.0.96.10.in-addr.arpa", "PTR", "kubernetes.default.svc.cluster.local."),
    ("7.0.0.0." + "0." * 20 + "0.1.0.0.0.0.d.f.ip6.arpa", "PTR", "six.default.svc.cluster.local."),
    # 2.4.1 A/AAAA of a headless service: ready endpoints only, and NXDOMAIN without any
    (HEAD[:-14], "A", "10.244.1.2, 10.244.1.3, 10.244.2.3, 10.244.1.4"),
    (HEAD[:-14], "AAAA", "fd00:244::5"),
    ("idle.default.svc", "A", "NXDOMAIN"),
    ("idle.default.svc", "AAAA", "NXDOMAIN"),
    ("db-0.head.default.svc", "A", "10.244.1.3, 10.244.2.3"),
    ("db-0.head.default.svc", "AAAA", "NODATA"),
    ("db-9.head.default.svc", "A", "NXDOMAIN"),
    ("10-244-1-2.head.default.svc", "A", "10.244.1.2"),
    ("fd00-244--5.head.default.svc", "AAAA", "fd00:244::5"),
    # 2.4.2 SRV of a headless service: one for each endpoint and named port
    (
        "_http._tcp.head.default.svc", "SRV",
        f"0 25 8080 10-244-1-2.{HEAD}., 0 25 8080 db-0.{HEAD}., 0 25 8080 10-244-1-4.{HEAD}., "
        f"0 25 8080 fd00-244--5.{HEAD}. | 10-244-1-2.{HEAD}. 10.244.1.2, db-0.{HEAD}. 10.244.1.3, "
        f"db-0.{HEAD}. 10.244.2.3, 10-244-1-4.{HEAD}. 10.244.1.4, fd00-244--5.{HEAD}. fd00:244::5",
    ),
    ("_https._tcp.head.default.svc", "SRV", "NXDOMAIN"),
    ("_http._tcp.idle.default.svc", "SRV", "NXDOMAIN"),
    # 2.4.3 PTR of a ready endpoint
    ("3.1.244.10.in-addr.arpa", "PTR", f"db-0.{HEAD}."),
    ("2.1.244.10.in-addr.arpa", "PTR", f"10-244-1-2.{HEAD}."),
    ("9.1.244.10.in-addr.arpa", "PTR", "not ours"),
    # 2.5 external names
    ("out.default.svc", "CNAME", "www.example.com."),
    ("out.default.svc", "A", "www.example.com."),
    ("out.default.svc", "AAAA", "www.example.com."),
    ("x.out.default.svc", "A", "NXDOMAIN"),
    ("_http._tcp.out.default.svc", "SRV", "NXDOMAIN"),
    # 2.6 of version 1.0: pods by their address
    ("10-244-1-2.default.pod", "A", "10.244.1.2"),
    ("10-244-1-2.default.pod", "AAAA", "NODATA"),
    ("fd00-244--5.default.pod", "AAAA", "fd00:244::5"),
    ("10-244-1-999.default.pod", "A", "NXDOMAIN"),
    ("10-244-1-2.missing.pod", "A", "NXDOMAIN"),
    ("x.10-244-1-2.default.pod", "A", "NXDOMAIN"),
]  # fmt: skip

BEYOND = [
    # Names that have others below them exist (RFC 8020): search paths need that told from NXDOMAIN.
    ("", "A", "NODATA"),
    ("svc", "A", "NODATA"),
    ("pod", "A", "NODATA"),
    ("default.svc", "A", "NODATA"),
    ("empty.svc", "TXT", "NODATA"),
    ("default.pod", "A", "NODATA"),
    ("missing.svc", "A", "NXDOMAIN"),
    ("missing.pod", "A", "NXDOMAIN"),
    ("web.missing.svc", "A", "NXDOMAIN"),
    ("absent.default.svc", "A", "NXDOMAIN"),
    ("default", "A", "NXDOMAIN"),
    ("web.default.svc.cluster.local.default.svc", "A", "NXDOMAIN"),
    ("www.google.com.default.svc", "A", "NXDOMAIN"),
    ("_tcp.web.default.svc", "SRV", "NODATA"),
    ("_udp.web.default.svc", "SRV", "NXDOMAIN"),
    ("http._tcp.web.default.svc", "SRV", "NXDOMAIN"),
    ("_http._tcp.web.default.svc", "A", "NODATA"),
    ("a._http._tcp.web.default.svc", "SRV", "NXDOMAIN"),
    ("web.default.svc", "TXT", "NODATA"),
    ("web.default.svc", "MX", "NODATA"),
    ("web.default.svc", "HTTPS", "NODATA"),
    ("web.default.svc", "ANY", '"RFC8482" ""'),
    ("absent.default.svc", "ANY", "NXDOMAIN"),
    # Not ready, but asked for by publishNotReadyAddresses
    ("eager.default.svc", "A", "10.244.1.8"),
    ("late.eager.default.svc", "A", "10.244.1.8"),
    ("8.1.244.10.in-addr.arpa", "PTR", "late.eager.default.svc.cluster.local."),
    # As CoreDNS does: endpoints of a service with a cluster address, and SRV of all ports
    ("10-244-3-1.web.default.svc", "A", "10.244.3.1"),
    ("1.3.244.10.in-addr.arpa", "PTR", "10-244-3-1.web.default.svc.cluster.local."),
    (
        "kube-dns.kube-system.svc", "SRV",
        "0 100 53 kube-dns.kube-system.svc.cluster.local. | kube-dns.kube-system.svc.cluster.local. 10.96.0.10",
    ),
    ("db-0.head.default.svc", "SRV",
     f"0 50 8080 db-0.{HEAD}., 0 50 9 db-0.{HEAD}. | db-0.{HEAD}. 10.244.1.3, db-0.{HEAD}. 10.244.2.3"),
    # The zone itself
    ("", "NS",
     "kube-dns.kube-system.svc.cluster.local. | kube-dns.kube-system.svc.cluster.local. 10.96.0.10"),
    ("ns.dns", "A", "10.96.0.10"),
    ("dns", "A", "NODATA"),
    # Addresses that are nobody's here, and other names, are the upstreams'
    ("1.1.1.1.in-addr.arpa", "PTR", "not ours"),
    ("1.0.96.10.in-addr.arpa", "A", "not ours"),
    ("0.96.10.in-addr.arpa", "PTR", "not ours"),
    ("www.example.com.", "A", "not ours"),
    ("local.", "A", "not ours"),
    (".", "NS", "not ours"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "rdtype", "wanted"), SPECIFICATION + BEYOND)
def test_answer(name: str, rdtype: str, wanted: str) -> None:
    assert look(name or "cluster.local.", rdtype) == wanted


def test_names_compare_without_regard_to_case() -> None:
    assert look("KuberNetes.DEFAULT.Svc.CLUSTER.Local.", "A") == "10.96.0.1"
    assert look("_HTTPS._TCP.Kubernetes.default.svc", "SRV").startswith("0 100 443 kubernetes.default")


def test_start_of_authority_bounds_a_no() -> None:
    zone = Zone(small_cluster(), "cluster.local", ttl=30)
    soa = zone.soa()
    assert (soa.name.to_text(), soa.ttl) == ("cluster.local.", 30)
    assert soa.rdata.to_text().endswith(" 7200 1800 86400 30")
    assert look("cluster.local.", "SOA").startswith("ns.dns.cluster.local. hostmaster.cluster.local. ")


def test_labels_that_are_no_ascii_match_nothing() -> None:
    zone = Zone(small_cluster(), "cluster.local")
    strange = dns.name.Name((b"\xff.\x00", b"default", b"svc", b"cluster", b"local", b""))
    dotted = dns.name.Name((b"web.default", b"svc", b"cluster", b"local", b""))
    for name in (strange, dotted):
        answer = zone.lookup(name, dns.rdatatype.A)
        assert answer is not None
        assert answer.rcode == dns.rcode.NXDOMAIN


def test_pods_can_be_verified_or_left_out() -> None:
    index = small_cluster()
    running = {"metadata": {"namespace": "default", "name": "a"}, "status": {"podIP": "10.244.1.2"}}
    index.put_pod(objects.pod(running))
    assert look("10-244-1-2.default.pod", "A", index=index, pods="verified") == "10.244.1.2"
    assert look("10-244-1-3.default.pod", "A", index=index, pods="verified") == "NXDOMAIN"
    assert look("10-244-1-2.kube-system.pod", "A", index=index, pods="verified") == "NXDOMAIN"
    assert look("10-244-1-2.default.pod", "A", index=index, pods="disabled") == "NXDOMAIN"
    assert look("default.pod", "A", index=index, pods="disabled") == "NXDOMAIN"
    ended = running | {"status": {"podIP": "10.244.1.2", "phase": "Succeeded"}}
    index.put_pod(objects.pod(ended))
    assert look("10-244-1-2.default.pod", "A", index=index, pods="verified") == "NXDOMAIN"


def test_another_domain() -> None:
    zone = Zone(small_cluster(), "k8s.example.org.")
    answer = zone.lookup(dns.name.from_text("web.default.svc.k8s.example.org."), dns.rdatatype.A)
    assert answer is not None
    assert answer.records
    assert zone.lookup(dns.name.from_text("web.default.svc.cluster.local."), dns.rdatatype.A) is None


def test_changes_are_seen_and_name_the_answers_they_make_stale() -> None:
    index = small_cluster()
    web = ("default", "web")
    moved = objects.service(
        service("default", "web", {"clusterIP": "10.96.0.9", "ports": [port("http", 80)]})
    )
    assert {web, ("", "10.96.0.7"), ("", "10.96.0.9")} <= set(index.put_service(moved))
    assert index.put_service(moved) == []
    assert look("web.default.svc", "A", index=index) == "10.96.0.9"
    assert look("7.0.96.10.in-addr.arpa", "PTR", index=index) == "not ours"
    assert web in index.drop_service(*web)
    assert look("web.default.svc", "A", index=index) == "NXDOMAIN"
    assert look("9.0.96.10.in-addr.arpa", "PTR", index=index) == "not ours"
    assert look("1.3.244.10.in-addr.arpa", "PTR", index=index) == "not ours"
    assert index.drop_service(*web) == []
    assert index.drop_namespace("empty") == [NAMESPACES]
    assert look("empty.svc", "A", index=index) == "NXDOMAIN"
    assert index.put_namespace("empty") == [NAMESPACES]


def test_endpoints_of_several_slices_are_one_answer() -> None:
    index = small_cluster()
    more = slice_of("default", "head", [endpoint("10.244.9.9")], [port("http", 8080)], name="head-y")
    assert ("default", "head") in index.put_slice(objects.endpoint_slice(more))
    assert look("head.default.svc", "A", index=index).endswith("10.244.1.4, 10.244.9.9")
    assert ("", "10.244.9.9") in index.drop_slice("default", "head-y")
    assert look("9.9.244.10.in-addr.arpa", "PTR", index=index) == "not ours"
    # A slice that passes to another service is taken from the first.
    index.put_slice(objects.endpoint_slice(more))
    more["metadata"]["labels"]["kubernetes.io/service-name"] = "idle"
    index.put_slice(objects.endpoint_slice(more))
    assert look("idle.default.svc", "A", index=index) == "10.244.9.9"
    assert "10.244.9.9" not in look("head.default.svc", "A", index=index)


def test_one_address_behind_two_services_has_two_names() -> None:
    index = small_cluster()
    index.put_slice(
        objects.endpoint_slice(slice_of("default", "web", [endpoint("10.244.1.2")], [], name="web-y"))
    )
    assert look("2.1.244.10.in-addr.arpa", "PTR", index=index) == (
        f"10-244-1-2.{HEAD}., 10-244-1-2.web.default.svc.cluster.local."
    )


def test_an_index_is_the_same_whatever_the_order_of_events() -> None:
    first, second = Index(), Index()
    head = objects.service(
        service("default", "head", {"clusterIP": "None", "publishNotReadyAddresses": True})
    )
    ends = objects.endpoint_slice(slice_of("default", "head", [endpoint("10.1.1.1", ready=False)], []))
    first.put_service(head)
    first.put_slice(ends)
    second.put_slice(ends)
    assert look("head.default.svc", "A", index=second) == "NXDOMAIN"
    assert ("", "10.1.1.1") in second.put_service(head)
    for index in (first, second):
        assert look("head.default.svc", "A", index=index) == "10.1.1.1"
        assert look("1.1.1.10.in-addr.arpa", "PTR", index=index) == "10-1-1-1.head.default.svc.cluster.local."


def test_objects_that_lack_everything_do_no_harm() -> None:
    assert objects.service({}) == objects.Service("", "")
    assert objects.endpoint_slice({}).subsets == (objects.Subset((), ()),)
    assert objects.endpoints({"metadata": None, "subsets": None}).subsets == ()
    assert objects.pod({"status": {}}).addresses == ()
    assert objects.service({"spec": {"clusterIP": "", "ports": [{"name": "x"}]}}).addresses == ()
    broken = objects.service({"spec": {"type": "ExternalName", "externalName": "a..b"}})
    assert broken.external is None


def test_endpoints_objects_serve_where_there_are_no_slices() -> None:
    one = {
        "metadata": {"namespace": "default", "name": "idle"},
        "subsets": [
            {
                "addresses": [{"ip": "10.244.5.1", "hostname": "Db-1"}],
                "notReadyAddresses": [{"ip": "10.244.5.2"}],
                "ports": [port("http", 80)],
            },
            {"addresses": [{"ip": "10.244.5.3"}], "ports": [port("http", 81)]},
        ],
    }
    index = small_cluster()
    index.put_slice(objects.endpoints(one))
    assert look("idle.default.svc", "A", index=index) == "10.244.5.1, 10.244.5.3"
    assert look("db-1.idle.default.svc", "A", index=index) == "10.244.5.1"
    assert look("_http._tcp.idle.default.svc", "SRV", index=index).startswith(
        "0 50 80 db-1.idle.default.svc.cluster.local., 0 50 81 10-244-5-3.idle"
    )


def test_dashed_addresses_read_back() -> None:
    for address in ("10.1.2.3", "fd00::1", "fd00::", "::1", "2001:db8::8:800:200c:417a"):
        assert objects.undashed(objects.dashed(address)) == address
    for label in ("", "a", "1-2-3", "1-2-3-4-5", "10-1-2-", "--", "-", "1-2-3-04"):
        assert objects.undashed(label) in ("", "::")
