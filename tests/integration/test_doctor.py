"""`doctor` on real machines: faults that are made for real, several at once, and a cluster that has none.

Each pitfall that a running cluster can meet is one of `faults.FAULTS`. Faults that are made at once are on
different machines, and about different things: where one hides the other, naming the one is right.
"""

from __future__ import annotations

import base64
import contextlib
import json
import random
import tarfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from cluster_fixtures import DOCTOR, ON_MACHINES, Kubewright, kill_machine, on, until_on
from faults import BY_NAME, EVERY, FAULTS, PLANES, Fault
from kubeadm_machines import host_options

from kubewright.errors import ExitCode
from kubewright.lab import cgroups
from kubewright.lab.lab import Lab, open_lab

pytestmark = ON_MACHINES

HEALED = 200
"""Seconds until all is well after faults were mended: a container that has ended often is started later."""
AT_ONCE = 5
Made = tuple[Fault, str]
"""A fault, and the machine on which it is made."""


class Patient:
    """A cluster, and what `doctor` says of it."""

    def __init__(self, kubewright: Kubewright, lab: Lab) -> None:
        self.kubewright, self.lab = kubewright, lab
        self.file = lab.places.cluster_yaml

    def examine(self, *options: str | Path) -> dict[str, Any]:
        """One run of `doctor`, whatever it finds."""
        run = self.kubewright("doctor", "-f", self.file, "-o", "json", *options, code=None)
        assert run.code in (0, ExitCode.DOCTOR_WARNED, ExitCode.DOCTOR_FOUND), str(run)
        found: dict[str, Any] = run.document
        assert (run.code == 0) == found["healthy"] == (not found["findings"])
        return found

    def findings(self, *options: str | Path) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.examine(*options)["findings"]
        return found

    def node(self, machine: str) -> list[dict[str, Any]]:
        """What is found on one node, which is asked alone."""
        run = self.kubewright("doctor", "-o", "json", *host_options(self.lab, machine), code=None)
        found: list[dict[str, Any]] = run.document["findings"]
        return found

    def well(self) -> None:
        """Wait until there is nothing left to find, and no kubelet has last said that it is not."""
        end = time.monotonic() + HEALED
        while found := self.findings() or self.not_ready():
            assert time.monotonic() < end, json.dumps(found, indent=1)

    def settled(self) -> None:
        """Wait until the cluster is so old that the Pods of its DaemonSets are missed."""
        old = "test $(($(date +%s) - $(stat -c %Y /etc/kubernetes/admin.conf))) -gt 130"
        until_on(self.lab, "cp1", old, seconds=115, every=1)

    def not_ready(self) -> list[str]:
        """The Nodes that are not Ready, as the API has it. `doctor` waits some seconds before it says so."""
        nodes = self.kubewright("status", "-f", self.file, "-o", "json").document["nodes"]
        return [node["name"] for node in nodes if not node["ready"]]


def told(findings: Iterable[dict[str, Any]]) -> list[tuple[str, str, tuple[str, ...]]]:
    return sorted((one["kind"], one["pitfall"] or "", tuple(one["hosts"])) for one in findings)


@pytest.fixture(scope="module")
def patient(kubewright: Kubewright) -> Iterator[Patient]:
    """Three control planes and two workers."""
    kubewright("lab", "down", DOCTOR)
    try:
        kubewright("lab", "up", "--name", DOCTOR, "--control-planes", "3", "--workers", "2", "--no-merge")
        patient = Patient(kubewright, open_lab(DOCTOR))
        patient.well()
        yield patient
    finally:
        kubewright("lab", "down", DOCTOR, code=None)


# -- none ---------------------------------------------------------------------------------------------------------


def test_nothing_is_found_where_nothing_is_wrong(patient: Patient) -> None:
    """`make soak` has twenty runs, and more states of a cluster (test_doctor_healthy.py)."""
    assert patient.findings() == []
    assert patient.kubewright("preflight", "-f", patient.file, "-o", "json").document["findings"] == []
    for machine in ("cp2", "w1"):
        assert patient.node(machine) == []


# -- faults -------------------------------------------------------------------------------------------------------


def apart(one: Made, other: Made) -> bool:
    """Whether two faults have nothing to do with each other."""
    return not one[0].parts(one[1]) & other[0].parts(other[1])


def rounds(faults: Sequence[Fault]) -> list[tuple[Made, ...]]:
    """All faults, some at once, with no more than one in a round that takes an API server away."""
    found: list[list[Made]] = []
    # Those first that go with the fewest others, for few rounds.
    usual = Counter(part for fault in faults for part in fault.touches)
    rare = sorted(faults, key=lambda one: -max([2 * one.api, *(usual[part] for part in one.touches)]))
    for number, fault in enumerate(rare):
        places = [fault.on[(number + turn) % len(fault.on)] for turn in range(len(fault.on))]
        for made in found:
            if len(made) == AT_ONCE or (fault.api and any(one.api for one, _ in made)):
                continue
            if place := next(
                (place for place in places if all(apart((fault, place), one) for one in made)), ""
            ):
                made.append((fault, place))
                break
        else:
            found.append([(fault, places[0])])
    return [tuple(made) for made in found]


def name(made: Sequence[Made]) -> str:
    return "+".join(f"{fault.name}@{place}" for fault, place in made)


def expected(made: Sequence[Made]) -> list[tuple[str, str, tuple[str, ...]]]:
    """What is to be found: one cause on several hosts is one finding."""
    hosts: dict[tuple[str, str], set[str]] = {}
    for fault, place in made:
        kind, pitfall, named = fault.named(place)
        hosts.setdefault((kind, pitfall), set()).update(named)
    return sorted((kind, pitfall, tuple(sorted(where))) for (kind, pitfall), where in hosts.items())


def each_is_named(patient: Patient, made: Sequence[Made], *, looks: int = 1) -> None:
    """Make them at once, and find them all, and nothing else, in one of so many runs; mend what `--fix` mends, and
    then the rest."""
    wanted = expected(made)
    moments = [time.monotonic()]
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        stack.callback(patient.well)  # whatever was found: the next test needs it
        stack.callback(lambda: moments.append(time.monotonic()))
        # Those that take an API server away are mended first: kubectl asks it.
        for fault, place in sorted(made, key=lambda one: one[0].api):
            stack.callback(fault.mend, patient.lab, place)
        for fault, place in made:
            fault.prepare(patient.lab, place)
        moments.append(time.monotonic())
        list(pool.map(lambda one: one[0].make(patient.lab, one[1]), made))
        moments.append(time.monotonic())
        for _ in range(looks):
            findings = patient.findings()
            if told(findings) == wanted:
                break
            print(f"{name(made)}: {json.dumps(findings, indent=1)}")
        moments.append(time.monotonic())
        assert told(findings) == wanted
        for one in findings:
            assert one["evidence"], one
            assert one["breaks"], one
            assert one["mend"], one
        rest = expected([one for one in made if not one[0].fix])
        if rest != wanted:
            left = patient.findings("--fix", "--yes")
            for _ in range(looks - 1):
                left = left if told(left) == rest else patient.findings()
            assert told(left) == rest, json.dumps(left, indent=1)
        moments.append(time.monotonic())
    moments.append(time.monotonic())
    steps = ("prepared", "made", "named", "fixed", "mended", "well")
    took = (
        f"{step} {after - before:.1f} s"
        for step, (before, after) in zip(steps, pairwise(moments), strict=True)
    )
    print(f"\n{name(made)}: {', '.join(took)}", flush=True)


ROUNDS = [made for fix in (True, False) for made in rounds([fault for fault in FAULTS if fault.fix == fix])]
"""Those that `--fix` mends are together, for it looks twice at all hosts."""


@pytest.mark.parametrize("made", ROUNDS, ids=name)
def test_each_is_named_and_nothing_else(patient: Patient, made: tuple[Made, ...]) -> None:
    """Five faults at once shake a cluster on a busy computer: what passes by itself may be named once."""
    if not all(fault.fix for fault, _ in made):
        patient.settled()
    each_is_named(patient, made, looks=2)


@pytest.mark.soak
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_alone_is_named(patient: Patient, fault: Fault) -> None:
    each_is_named(patient, [(fault, random.choice(fault.on))])


def chosen() -> tuple[Made, Made]:
    """Two faults that have nothing to do with each other, by chance."""
    every = [(fault, place) for fault in FAULTS for place in fault.on]
    return random.choice([pair for pair in combinations(every, 2) if apart(*pair)])


@pytest.mark.soak
@pytest.mark.parametrize("number", range(40))
def test_both_of_a_pair_are_named(patient: Patient, number: int) -> None:
    if not number:
        patient.settled()
    pair = chosen()
    print(f"\n{number}: {name(pair)}")
    each_is_named(patient, pair)


# -- the cluster's API is away ------------------------------------------------------------------------------------


def test_p21_the_api_is_away_and_the_cause_is_named_from_all_hosts_and_from_one(patient: Patient) -> None:
    frozen = BY_NAME["frozen"]
    with ExitStack() as stack:
        for plane in PLANES:
            stack.callback(frozen.mend, patient.lab, plane)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda plane: frozen.make(patient.lab, plane), PLANES))
            whole, alone = pool.submit(patient.findings), pool.submit(patient.node, "cp2")
        assert told(whole.result()) == [("api-silent", "P21", PLANES)], json.dumps(whole.result(), indent=1)
        assert told(alone.result()) == [("api-silent", "P21", ("cp2",))], json.dumps(alone.result(), indent=1)
    patient.well()


def test_p20_a_full_disk_is_named_from_the_node_alone(patient: Patient) -> None:
    """etcd is not evicted for it: it has the priority of the node's own."""
    disk = BY_NAME["disk"]
    try:
        disk.make(patient.lab, "cp3")
        assert told(patient.node("cp3")) == [("disk-full", "P20", ("cp3",))]
        time.sleep(15)  # the kubelet looks at its disks every 10 s
        assert on(patient.lab, "cp3", "pgrep -c '^etcd$'").strip() == "1"
    finally:
        disk.mend(patient.lab, "cp3")
    patient.well()


def test_p53_a_host_that_is_dead_and_one_that_is_frozen(patient: Patient) -> None:
    """Nothing that follows from it is named besides. How long that takes, `bench.doctor` says."""
    kill_machine(patient.lab, "w2")
    cgroups.freeze(patient.lab.name, "cp3", frozen=True)
    try:
        found = patient.findings()
    finally:
        cgroups.freeze(patient.lab.name, "cp3", frozen=False)
        patient.kubewright("lab", "start", DOCTOR, "w2")
    assert {(kind, pitfall) for kind, pitfall, _ in told(found)} == {("host-silent", "P53")}, found
    assert {host for _, _, hosts in told(found) for host in hosts} == {"cp3", "w2"}
    patient.well()


def test_p42_check_names_the_node_whose_pods_do_not_answer(patient: Patient) -> None:
    packets = BY_NAME["packets"]
    try:
        packets.prepare(patient.lab, "w1")
        packets.make(patient.lab, "w1")
        run = patient.kubewright("check", "-f", patient.file, "-o", "json", code=None)
    finally:
        packets.mend(patient.lab, "w1")
    assert run.code == ExitCode.CHECK_FAILED, str(run)
    first = run.document["diagnosis"][0]
    assert first.startswith("pods on w1 cannot be reached from any other node"), run.document["diagnosis"]


# -- what is sent to a colleague ----------------------------------------------------------------------------------

FOREIGN = {
    "flag": "hunter2-of-a-flag-0aX", "environment": "hunter2-of-an-environment-1bY",
    "token": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW0ifQ.c2lnbmF0dXJl", "password": "hunter2-of-a-url-2cZ",
    "bootstrap": "zyxwvu.9876543210fedcba",
}  # fmt: skip
"""Secrets that people put where doctor looks."""
SECRETS = r"""
find /etc/kubernetes /var/lib/kubelet/pki /var/lib/kubewright /root/.kube /etc/haproxy /etc/keepalived -type f \
  2>/dev/null | while read -r file; do
  sed -n '/PRIVATE KEY-----/,/END .*PRIVATE KEY-----/p' "$file" | grep -vE 'PRIVATE KEY'
  grep -E 'client-key-data:|token:|auth_pass' "$file" | sed 's/.*[: ]//'
done
find /var/lib/kubelet/pods -path '*/kubernetes.io~*/*/token' -exec cat {} + 2>/dev/null
[ ! -e /etc/kubernetes/admin.conf ] || kubectl --kubeconfig /etc/kubernetes/admin.conf get secrets -A \
  -o jsonpath='{range .items[*]}{range .data.*}{@}{"\n"}{end}{end}'
true
"""
CERTIFICATES = "cat /etc/kubernetes/pki/*.crt /etc/kubernetes/pki/etcd/*.crt 2>/dev/null; true"


def secrets_of(patient: Patient) -> set[str]:
    """Every secret that the lab knows: the lines of private keys, tokens, Secrets as they are and as they mean."""
    found = set(FOREIGN.values()) | set(patient.lab.places.key.read_text().splitlines()[1:-1])
    for machine in EVERY:
        for line in on(patient.lab, machine, SECRETS).splitlines():
            found.add(line.strip())
            with contextlib.suppress(ValueError, UnicodeDecodeError):
                found |= {*base64.b64decode(line, validate=True).decode().splitlines()}
    public = {line for machine in EVERY for line in on(patient.lab, machine, CERTIFICATES).splitlines()}
    return {one for one in found if len(one) >= 16 and not one.startswith("-----")} - public


def test_the_bundle_holds_no_secret(patient: Patient, tmp_path: Path) -> None:
    """Of the cluster, or of those that people put into flags, environments, and logs."""
    on(patient.lab, "cp1", PLANT, *FOREIGN.values())
    try:
        known = secrets_of(patient)
        assert len(known) > 400, "private keys of five machines, and the cluster's Secrets"
        target = tmp_path / "bundle.tar.gz"
        patient.examine("--collect", target)
    finally:
        on(
            patient.lab,
            "cp1",
            "kubectl --kubeconfig /etc/kubernetes/admin.conf -n kube-system delete daemonset owner",
        )
    assert target.stat().st_mode & 0o777 == 0o600
    with tarfile.open(target) as archive:
        files = {one.name: archive.extractfile(one) for one in archive.getmembers()}
        texts = {path: file.read().decode() for path, file in files.items() if file is not None}
    assert {f"kubewright-doctor/hosts/{machine}/look.txt" for machine in EVERY} <= texts.keys()
    assert "owner" in texts["kubewright-doctor/workloads.json"]
    assert "says its token" in texts["kubewright-doctor/hosts/cp1/look.txt"]
    leaks = [(path, one) for path, text in texts.items() for one in known if one in text]
    assert leaks == []


PLANT = r"""
for log in /var/log/pods/kube-system_kube-scheduler-cp1_*/kube-scheduler/*.log; do
  echo "$(date -u +%FT%TZ) stderr F Authorization: Bearer $3 says its token, and kubeadm join --token $5" >>"$log"
done
kubectl --kubeconfig /etc/kubernetes/admin.conf apply -f - <<.
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: owner, namespace: kube-system}
spec:
  selector: {matchLabels: {app: owner}}
  template:
    metadata: {labels: {app: owner}}
    spec:
      nodeSelector: {no: where}
      containers:
      - name: owner
        image: owner
        args: ["--password=$1", "--url=https://me:$4@example.test/"]
        env: [{name: PASSWORD, value: "$2"}]
.
"""
