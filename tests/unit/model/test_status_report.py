"""The whole status out of what everybody said: API servers, leaders, load balancers, certificates, hosts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from kubewright.model.status import Seen
from kubewright.model.status_api import HERE, ApiAnswer, api_problems, api_status, leader_status
from kubewright.model.status_certs import SeenCert, cert_problems, certs_status
from kubewright.model.status_etcd import ListedMember, MemberAnswer, MemberWords
from kubewright.model.status_hosts import ContainerStatus, HostStatus
from kubewright.model.status_look import HostLook, assumed_name, look, paths
from kubewright.model.status_proxies import ProxyStatus, backends, nginx_backends, proxy_problems, state_text
from kubewright.model.status_report import Facts, StatusReport, report

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
READY = "[+]ping ok\n[+]etcd ok\nreadyz check passed"
PARTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")


def server(name: str, **more: Any) -> ApiAnswer:
    said: dict[str, Any] = {"milliseconds": 3.21, "version": "v1.20.2", "readyz": READY}
    return ApiAnswer(name, f"https://{name}:6443", **said | more)


def silent(name: str, error: str = "nothing listens there") -> ApiAnswer:
    return ApiAnswer(name, f"https://{name}:6443", error=error)


def host(name: str, *, without: str = "", **more: Any) -> HostStatus:
    ran = tuple(ContainerStatus(part, running=True) for part in PARTS if part != without)
    said: dict[str, Any] = {"answers": True, "control_plane": True, "joined": True, "containers": ran}
    return HostStatus(name, **said | more)


def dead(name: str) -> HostStatus:
    return HostStatus(
        name, answers=False, control_plane=True, problems=("does not answer over SSH within 6 s",)
    )


# -- API servers and leaders ------------------------------------------------------------------------------------


def test_a_server_is_ready_unless_a_check_fails() -> None:
    assert api_status(server("cp1")).ready
    found = api_status(server("cp1", readyz="[+]ping ok\n[-]etcd failed: reason withheld"))
    assert (found.answers, found.ready, found.detail) == (True, False, "not ready: etcd")
    assert api_status(server("cp1", readyz="")).ready, (
        "somebody who may not see the checks sees no failed one"
    )


def test_the_endpoint_that_fails_in_one_way_for_several_hosts_is_one_line() -> None:
    url = "https://10.0.0.5:6443"
    seen = [
        api_status(ApiAnswer("cp1", url, error="no answer within 4 s")),
        api_status(ApiAnswer(HERE, url, error="no answer within 4 s")),
        api_status(ApiAnswer("cp2", url, milliseconds=1.0, readyz=READY)),
    ]
    assert api_problems([api_status(silent("cp1"))], seen) == [
        "API server cp1: does not answer: nothing listens there",
        "endpoint https://10.0.0.5:6443, from cp1, here: does not answer: no answer within 4 s",
    ]


def lease(name: str, holder: str, seconds: float) -> dict[str, Any]:
    renewed = (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 15, "leaseTransitions": 2,
            "acquireTime": "2026-01-01T11:00:00.000000Z"}  # fmt: skip
    return {"metadata": {"name": name}, "spec": spec}


def test_p21_who_leads_and_who_has_stopped_to() -> None:
    manager, scheduler = leader_status(
        [
            lease("kube-scheduler", "cp2_0b1c", 47),
            lease("kube-controller-manager", "cp1_9a8b", 2),
            lease("somebody-else", "x", 0),
        ],
        NOW,
    )
    assert (manager.holder, manager.changes, manager.problem) == ("cp1", 2, "")
    assert manager.since == "2026-01-01T11:00:00.000000Z"
    assert scheduler.holder == ""
    assert scheduler.problem == "nobody leads: cp2 has not renewed its Lease for 47s"


def test_a_lease_that_was_given_up() -> None:
    [found] = leader_status([lease("kube-scheduler", "", 1)], NOW)
    assert (found.holder, found.problem) == ("", "nobody leads")


# -- certificates -----------------------------------------------------------------------------------------------


def cert(on: str, name: str, days: float) -> SeenCert:
    return SeenCert(on, name, NOW + timedelta(days=days))


def test_p22_certificates_that_end_within_30_days() -> None:
    found = certs_status(
        [
            cert("cp1", "apiserver", 29.9), cert("cp1", "etcd-peer", 30.1), cert("cp1", "ca", 12),
            cert("cp2", "ca", 12), cert("cp2", "admin.conf", -3),
        ],
        NOW,
    )  # fmt: skip
    assert (found.read, found.first_end) == (5, NOW - timedelta(days=3))
    assert cert_problems(found) == [
        "certificate admin.conf of cp2 ended 3d ago",
        "certificate ca of cp1, cp2 ends in 12d",
        "certificate apiserver of cp1 ends in 29d",
    ]


def test_no_certificate_was_read() -> None:
    assert certs_status([], NOW).first_end is None


# -- load balancers ---------------------------------------------------------------------------------------------

STATS = """\
# pxname,svname,qcur,scur,status,lastchg,check_status,last_chk,addr,
kubernetes,FRONTEND,,9,OPEN,,,,,
api,cp1,0,5,UP,7200,L7OK,HTTP status check returned code <200>,10.0.0.1:6443,
api,cp2,0,0,DOWN,12,L4CON,Connection refused,10.0.0.2:6443,
api,cp3,0,4,UP 1/2,1,L6OK,,10.0.0.3:6443,
api,BACKEND,0,9,UP,7200,,,,
unchecked,cp1,0,0,no check,7200,,,10.0.0.1:6443,

"""


def test_backends_out_of_haproxys_csv() -> None:
    found = backends(STATS)
    assert [(one.name, one.up, one.state, one.sessions, one.for_seconds) for one in found] == [
        ("cp1", True, "UP", 5, 7200), ("cp2", False, "DOWN", 0, 12), ("cp3", True, "UP 1/2", 4, 1),
    ]  # fmt: skip
    assert found[1].detail == "L4CON Connection refused"
    assert found[1].address == "10.0.0.2:6443"
    assert backends("") == ()


def test_nginx_as_its_health_checks_have_written_it() -> None:
    servers = b"server 10.0.0.1:6443 max_fails=1;\nserver 10.0.0.2:6443 max_fails=1 down;\n"
    found = nginx_backends(servers, b"cp1 10.0.0.1 6443\n")
    assert [(one.name, one.address, one.up, state_text(one)) for one in found] == [
        ("cp1", "10.0.0.1:6443", True, "UP"), ("10.0.0.2:6443", "10.0.0.2:6443", False, "DOWN"),
    ]  # fmt: skip
    assert state_text(backends(STATS)[0]) == "UP for 2h"


def test_what_is_wrong_with_load_balancers() -> None:
    seen = backends(STATS)
    lb1, lb2 = ProxyStatus("lb1", "haproxy", True, seen), ProxyStatus("lb2", "haproxy", True, seen)
    off = ProxyStatus("lb3", "haproxy", False, problem="its unit is inactive")
    assert proxy_problems([lb1, lb2, off]) == [
        "haproxy on lb3: its unit is inactive",
        "backend cp2: DOWN (L4CON Connection refused), as lb1, lb2 see it",
    ]
    alone = ProxyStatus("lb1", "haproxy", True, (seen[1],))
    assert "haproxy on lb1: none of its backends is up" in proxy_problems([alone])


@pytest.mark.parametrize(
    ("holders", "says"),
    [
        ((True, False), []),
        ((False, False), ["the virtual IP is on none of the hosts"]),
        ((True, True), ["the virtual IP is on lb1 and lb2"]),
    ],
)
def test_a_virtual_ip_is_on_one_host(holders: tuple[bool, bool], says: list[str]) -> None:
    found = [
        ProxyStatus(f"lb{number}", "keepalived", True, has_address=has)
        for number, has in enumerate(holders, 1)
    ]
    assert proxy_problems(found) == says


# -- the whole --------------------------------------------------------------------------------------------------


def members(*, down: str = "") -> list[MemberAnswer]:
    names = ("cp1", "cp2", "cp3")
    listed = tuple(ListedMember(number, name) for number, name in enumerate(names, 1))
    return [
        MemberAnswer(name, error="nothing listens there") if name == down else
        MemberAnswer(name, MemberWords(number, leader=1, term=2, index=10, database=4096), listed=listed)
        for number, name in enumerate(names, 1)
    ]  # fmt: skip


def whole(**more: Any) -> StatusReport:
    facts: dict[str, Any] = {
        "objects": Seen("https://cp1:6443", "v1.20.2", NOW, readyz=READY),
        "servers": [server(name) for name in ("cp1", "cp2", "cp3")],
        "etcd": members(),
        "leases": [lease("kube-scheduler", "cp1_0", 1)],
        "certs": [cert("cp1", "apiserver", 300)],
        "hosts": [host(name) for name in ("cp1", "cp2", "cp3")],
    }
    return report(Facts(NOW, **facts | more))


def test_all_is_well() -> None:
    found = whole()
    assert found.healthy, found.problems
    document = found.as_dict()
    assert list(document)[:5] == ["server", "version", "healthy", "nodes", "parts"]
    assert document["healthy"] is True
    assert document["time"] == "2026-01-01T12:00:00Z"
    assert document["apiServers"][0] == {
        "name": "cp1", "url": "https://cp1:6443", "answers": True, "ready": True, "milliseconds": 3.2,
        "version": "v1.20.2", "failedChecks": [], "detail": "",
    }  # fmt: skip
    assert (document["etcd"]["leader"], document["etcd"]["mayFail"]) == ("cp1", 1)
    assert document["etcd"]["members"][1]["databaseBytes"] == 4096
    assert document["leaders"][0]["holder"] == "cp1"
    assert document["certificates"] == {"read": 1, "firstEnd": "2026-10-28T12:00:00Z", "ending": []}
    assert document["hosts"][0]["containers"][0] == {"name": "kube-apiserver", "running": True, "restarts": 0}


def test_a_kubeconfig_alone_has_no_hosts_to_ask() -> None:
    found = report(
        Facts(
            NOW,
            Seen("https://cp1:6443", "v1.20.2", NOW, readyz=READY),
            endpoint=[ApiAnswer(HERE, "https://cp1:6443", 2.0, "v1.20.2", READY)],
        )
    )
    assert found.healthy
    document = found.as_dict()
    assert (document["etcd"], document["certificates"], document["hosts"]) == (None, None, [])
    assert document["endpoint"][0]["from"] == "here"
    assert "name" not in document["endpoint"][0]


def test_one_api_server_down_is_told_with_its_container() -> None:
    found = whole(
        servers=[server("cp1"), server("cp2"), silent("cp3")],
        hosts=[host("cp1"), host("cp2"), host("cp3", without="kube-apiserver")],
    )
    assert found.has_objects
    assert found.problems == (
        "API server cp3: does not answer: nothing listens there; there is no container of it",
    )


def test_without_an_api_the_hosts_speak() -> None:
    found = whole(
        objects=None, leases=(), servers=[silent(name) for name in ("cp1", "cp2", "cp3")],
        etcd=members(down="cp3"),
        hosts=[host("cp1"), host("cp2", without="kube-scheduler"), dead("cp3")],
    )  # fmt: skip
    assert not found.has_objects
    assert {part.name: (part.ready, part.wanted) for part in found.cluster.parts} == {
        "API server": (0, 3), "controller manager": (2, 3), "scheduler": (1, 3), "etcd": (2, 3),
    }  # fmt: skip
    assert found.problems == (
        "host cp3: does not answer over SSH within 6 s",
        "API server cp1: does not answer: nothing listens there; its container runs",
        "API server cp2: does not answer: nothing listens there; its container runs",
        "API server cp3: does not answer: nothing listens there",
        "etcd member cp3: does not answer: nothing listens there",
        "no API server can be asked for the cluster's objects",
        "scheduler on cp2: there is no container of it",
    )
    assert found.as_dict()["server"] == ""


def test_external_etcd_is_not_missed_in_containers() -> None:
    hosts = [host(name, without="etcd") for name in ("cp1", "cp2", "cp3")]
    found = whole(objects=None, external_etcd=True, hosts=hosts)
    assert [part.name for part in found.cluster.parts] == ["API server", "controller manager", "scheduler"]


def test_a_container_that_ended_and_a_runtime_that_is_silent() -> None:
    ended = (ContainerStatus("kube-scheduler", running=False, restarts=4),)
    found = whole(objects=None, hosts=[host("cp1", containers=ended), host("cp2", containers=None)])
    details = {part.name: part.detail for part in found.cluster.parts}
    assert details["scheduler"] == (
        "cp1: its container has ended, restarted 4 times; cp2: its container runtime does not answer"
    )


# -- what a host's files say ------------------------------------------------------------------------------------

PKI = "/etc/kubernetes/pki"
API_SERVER, KUBELET = "/etc/kubernetes/manifests/kube-apiserver.yaml", "/etc/kubernetes/kubelet.conf"
HEALTH = f"{PKI}/etcd/healthcheck-client.crt"


def manifest(*flags: str) -> bytes:
    container = {"name": "kube-apiserver", "command": ["kube-apiserver", *flags]}
    return yaml.safe_dump({"kind": "Pod", "spec": {"containers": [container]}}).encode()


def config(url: str) -> dict[str, Any]:
    return {
        "current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": url}}], "users": [{"name": "u", "user": {}}],
    }  # fmt: skip


def looked(files: dict[str, bytes], admin: dict[str, Any] | None = None) -> HostLook:
    return look(files, PKI, "cp1", "10.0.0.1", admin)


def test_a_control_plane_with_a_stacked_etcd_behind_an_endpoint() -> None:
    files = {
        API_SERVER: manifest("--advertise-address=10.9.0.1", "--secure-port=7443"),
        KUBELET: yaml.safe_dump(config("https://127.0.0.1:6444")).encode(), HEALTH: b"pem",
    }  # fmt: skip
    found = looked(files, config("https://10.9.0.1:7443"))
    assert found.joined
    assert found.node is not None
    assert found.node.url == "https://10.9.0.1:7443"
    assert found.server == "https://127.0.0.1:6444", "the other one is this host's own API server"
    assert found.etcd is not None
    assert (found.etcd.urls, found.etcd.external) == (("https://127.0.0.1:2379",), False)
    assert found.etcd.files == (f"{PKI}/etcd/ca.crt", HEALTH, f"{PKI}/etcd/healthcheck-client.key")


def test_external_etcd_is_asked_as_the_api_server_asks_it() -> None:
    flags = ("--advertise-address=10.9.0.1", "--etcd-servers=https://a:2379,https://b:2379",
             "--etcd-cafile=/e/ca.crt", "--etcd-certfile=/e/c.crt", "--etcd-keyfile=/e/c.key")  # fmt: skip
    found = looked({API_SERVER: manifest(*flags)})
    assert found.etcd is not None
    assert (found.etcd.urls, found.etcd.external) == (("https://a:2379", "https://b:2379"), True)
    assert found.etcd.files == ("/e/ca.crt", "/e/c.crt", "/e/c.key")


def test_an_api_server_whose_manifest_was_taken_away_is_looked_for_where_it_was() -> None:
    found = looked({HEALTH: b"pem"}, config("https://10.9.0.5:6443"))
    assert found.node is not None
    assert (found.node.url, found.server) == ("https://10.0.0.1:6443", "https://10.9.0.5:6443")
    assert found.etcd is not None


def test_hosts_that_are_no_control_plane() -> None:
    assert looked({}) == HostLook(False, None, "", None)
    worker = looked({KUBELET: yaml.safe_dump(config("https://10.9.0.5:6443")).encode()})
    assert (worker.joined, worker.node, worker.server) == (True, None, "https://10.9.0.5:6443")
    assert looked({KUBELET: b"not: [a kubeconfig", API_SERVER: b"{"}).joined, "damaged files are no error"


def test_an_etcd_on_a_host_of_its_own() -> None:
    found = looked({HEALTH: b"pem"})
    assert (found.joined, found.server) == (True, "")
    assert found.etcd is not None
    assert (found.etcd.urls, found.etcd.external) == (("https://127.0.0.1:2379",), False)
    assert found.node is None


def test_what_a_stacked_etcd_has_left_does_not_hide_an_external_one() -> None:
    flags = ("--etcd-servers=https://a:2379", "--etcd-cafile=a", "--etcd-certfile=b", "--etcd-keyfile=c")
    found = looked({API_SERVER: manifest("--advertise-address=10.9.0.1", *flags), HEALTH: b"pem"})
    assert found.etcd is not None
    assert found.etcd.urls == ("https://a:2379",)


def test_no_key_is_read_before_it_is_needed() -> None:
    assert not [path for path in paths(PKI) if path.endswith((".key", "admin.conf"))]


def test_an_assumed_address_is_verified_by_a_name_that_all_certificates_have() -> None:
    assert assumed_name("https://127.0.0.1:6443") == "kubernetes"
    assert assumed_name("https://10.0.0.1:6443") == ""
