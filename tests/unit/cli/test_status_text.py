"""A cluster's status as lines, once and again and again."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from kubewright.cli.status_text import size, status_lines
from kubewright.cli.status_watch import drawn, frame, watch_status
from kubewright.errors import ApiError
from kubewright.model.status import Seen
from kubewright.model.status_api import HERE, ApiAnswer
from kubewright.model.status_certs import SeenCert
from kubewright.model.status_etcd import ListedMember, MemberAnswer, MemberWords
from kubewright.model.status_hosts import ContainerStatus, HostStatus
from kubewright.model.status_proxies import BackendStatus, ProxyStatus
from kubewright.model.status_report import Facts, StatusReport, report

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
READY = "[+]ping ok"
ENDPOINT = "https://10.0.0.5:6443"
LISTED = tuple(ListedMember(number, f"cp{number}") for number in (1, 2, 3))
LEASE = {
    "metadata": {"name": "kube-scheduler"},
    "spec": {"holderIdentity": "cp2_0b1c", "renewTime": "2026-01-01T11:59:58.000000Z"},
}


def facts() -> Facts:
    scheduler = {
        "metadata": {"name": "kube-scheduler-cp1", "namespace": "kube-system",
                     "labels": {"component": "kube-scheduler"}},
        "spec": {"nodeName": "cp1"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }  # fmt: skip
    node = {
        "metadata": {"name": "cp1", "labels": {"node-role.kubernetes.io/control-plane": ""},
                     "creationTimestamp": "2026-01-01T11:59:00Z"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }  # fmt: skip
    return Facts(
        NOW,
        Seen("https://cp1:6443", "v1.20.2", NOW, READY, [node], [scheduler]),
        leases=[LEASE],
        servers=[
            ApiAnswer("cp1", "https://cp1:6443", 3.4, "v1.20.2", READY),
            ApiAnswer("cp2", "https://cp2:6443", error="nothing listens there"),
        ],
        endpoint=[
            ApiAnswer(HERE, ENDPOINT, 8.0, "v1.20.2", READY),
            ApiAnswer("cp1", ENDPOINT, 21.0, "v1.20.2", READY),
        ],
        etcd=[
            MemberAnswer(
                "cp1",
                MemberWords(1, "3.4.23", 1, index=50, database=3_100_000, database_in_use=812_000),
                listed=LISTED,
            ),
            MemberAnswer("cp2", MemberWords(2, "3.4.23", 1, index=43), alarms={2: ("NOSPACE",)}),
            MemberAnswer("cp3", error="no answer within 4 s"),
        ],
        proxies=[
            ProxyStatus(
                "lb1",
                "haproxy",
                True,
                (
                    BackendStatus("cp1", "10.0.0.1:6443", True, "UP", 4, 60),
                    BackendStatus("cp2", "10.0.0.2:6443", False, "DOWN", 0, 9, "L4CON"),
                ),
            ),
            ProxyStatus("lb1", "keepalived", True, has_address=True),
        ],
        certs=[
            SeenCert("cp1", "apiserver", NOW + timedelta(days=9)),
            SeenCert("cp1", "ca", NOW + timedelta(days=999)),
        ],
        hosts=[HostStatus("cp1", True, True, True, (ContainerStatus("etcd", True),))],
    )


def test_every_subject_has_its_table() -> None:
    assert (
        "\n".join(status_lines(report(facts())))
        == """\
Kubernetes v1.20.2 at https://cp1:6443

NODE  STATUS  ROLES
cp1   Ready   control-plane

PART       READY  DETAIL
scheduler  1/1    leader: cp2

API       STATUS     TIME   ADDRESS                DETAIL
cp1       ready      3 ms   https://cp1:6443
cp2       no answer         https://cp2:6443       nothing listens there
endpoint  ready      21 ms  https://10.0.0.5:6443  from here, cp1

ETCD  ROLE       VERSION  DATABASE             LAG  ALARMS   DETAIL
cp1   leader     3.4.23   3.1 MB, 812 kB used  0
cp2   follower   3.4.23   0 kB, 0 kB used      7    NOSPACE
cp3   no answer                                              no answer within 4 s
2 of 3 voters answer; no more may fail

LOAD BALANCER  KIND        STATUS  BACKEND            STATE        SESSIONS  DETAIL
lb1            haproxy     runs    cp1 10.0.0.1:6443  UP for 60s   4
                                   cp2 10.0.0.2:6443  DOWN for 9s  0         L4CON
lb1            keepalived  runs                                              has the virtual IP

CERTIFICATE  ON   ENDS                  DETAIL
apiserver    cp1  2026-01-10 12:00 UTC  ends in 9d

5 problems:
  API server cp2: does not answer: nothing listens there
  etcd member cp2: alarm NOSPACE
  etcd member cp3: does not answer: no answer within 4 s
  backend cp2: DOWN (L4CON), as lb1 sees it
  certificate apiserver of cp1 ends in 9d"""
    )


def test_a_mere_kubeconfig_says_what_it_always_said() -> None:
    alone = Facts(NOW, facts().objects, endpoint=[ApiAnswer(HERE, "https://cp1:6443", 3.0, "v1.20.2", READY)])
    assert status_lines(report(alone)) == [
        "Kubernetes v1.20.2 at https://cp1:6443", "",
        "NODE  STATUS  ROLES", "cp1   Ready   control-plane", "",
        "PART       READY", "scheduler  1/1", "",
        "Nothing is wrong as far as the API knows; `kubewright check` tries it out.",
    ]  # fmt: skip


def test_without_an_api_the_first_line_says_so() -> None:
    lines = status_lines(report(replace(facts(), objects=None, objects_error="it is silent")))
    assert lines[0] == "No API server can be asked; this is what the hosts say over SSH."
    assert "no nodes" not in lines
    assert "  no API server can be asked for the cluster's objects: it is silent" in lines


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 kB"), (812_400, "812 kB"), (3_140_000, "3.1 MB"), (2_500_000_000, "2.5 GB")]
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


# -- again and again ----------------------------------------------------------------------------------------------


class Reader:
    """Says these things, one a look, and then ends the process's work as Ctrl-C does."""

    def __init__(self, *looks: StatusReport | Exception) -> None:
        self._looks = list(looks)
        self.closed = False

    async def __aenter__(self) -> Reader:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closed = True

    async def read(self) -> StatusReport:
        if not self._looks:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(30)
        look = self._looks.pop(0)
        if isinstance(look, Exception):
            raise look
        return look


def watched(capsys: pytest.CaptureFixture[str], output: str, *looks: StatusReport | Exception) -> str:
    reader: Any = Reader(*looks)
    watch_status(lambda: reader, interval=0, output=output)
    assert reader.closed
    seen = capsys.readouterr()
    assert seen.err == ""
    return seen.out


def test_elsewhere_than_on_a_terminal_block_follows_block(capsys: pytest.CaptureFixture[str]) -> None:
    """A look that nobody answers is shown, and does not end it; Ctrl-C does, and is no error."""
    out = watched(capsys, "text", report(facts()), ApiError("nobody answers"), report(facts()))
    blocks = out.split("# ")[1:]
    assert [block.splitlines()[1] for block in blocks] == [
        "Kubernetes v1.20.2 at https://cp1:6443", "error: nobody answers", "Kubernetes v1.20.2 at https://cp1:6443",
    ]  # fmt: skip
    assert "\x1b" not in out


def test_programs_get_a_document_a_look(capsys: pytest.CaptureFixture[str]) -> None:
    looks = (report(facts()), ApiError("nobody answers"))
    rows = [json.loads(line) for line in watched(capsys, "json", *looks).splitlines()]
    assert [(row["healthy"], row.get("error")) for row in rows] == [(False, None), (False, "nobody answers")]
    assert rows[0]["etcd"]["leader"] == "cp1"
    assert [row["healthy"] for row in yaml.safe_load_all(watched(capsys, "yaml", *looks))] == [False, False]


def test_a_terminal_is_drawn_over_and_given_back(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((80, 12)))
    out = watched(capsys, "text", report(facts()), report(facts()))
    entered, _, rest = out.partition("\x1b[H")
    assert entered.startswith("\x1b[?1049h")
    drawing, _, after = rest.partition("\x1b[?1049l")
    assert drawing.count("\x1b[H") == 1, "the second look is drawn over the first"
    assert after.splitlines()[0] == "Kubernetes v1.20.2 at https://cp1:6443", "what was seen last stays"


def test_what_is_wrong_comes_first_on_a_small_terminal() -> None:
    lines = frame(report(facts()), "", 2, 10)
    assert len(lines) == 9
    assert lines[3] == "5 problems:" or lines[4] == "5 problems:"
    assert lines[-1].endswith("more lines")
    whole = frame(report(facts()), "", 2, 100)
    assert not whole[-1].endswith("more lines")
    assert drawn(["a", "b"]) == "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J"
