"""Real kubeadm's `init` and ours, with the same configurations on two machines: what comes out is compared.

Every file below /etc/kubernetes and /var/lib/kubelet and every object that `init` makes must be equal, but for the
differences that docs/kubeadm-parity.md lists with their reasons; one that is listed must be seen.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import kubeadm_machines as machines
import pytest
from cluster_fixtures import ON_MACHINES, PARITY, Kubewright, lab_of, on, write
from init_configurations import CONFIGURATIONS, document
from kubeadm_machines import CONFIG
from parity_snapshot import Snapshot, differences, snapshot
from tools.parity.differences import ALONE, DIFFERENCES, Difference

from kubewright.lab.lab import Lab

pytestmark = [
    *ON_MACHINES,
    pytest.mark.filterwarnings("ignore:Parsed a serial number"),  # the kubelet's own certificate has a zero
]

THEIRS, OURS = "cp1", "w1"

seen: set[Difference] = set()
finished: set[str] = set()


# -- the machines ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def lab(kubewright: Kubewright) -> Any:
    with lab_of(kubewright, PARITY, workers=1) as found:
        await machines.prepare(found)
        for name in (THEIRS, OURS):
            address = found.machine(name).plan.address
            on(found, name, 'echo "$1 api.example.test" >>/etc/hosts', str(address))
            on(
                found, name,
                "for image in $(ctr -n k8s.io images ls -q | grep ^k8s.gcr.io/); do "
                'ctr -n k8s.io images tag "$image" "registry.test/k8s/${image#*/}" >/dev/null; done',
            )  # fmt: skip
        yield found


def by_kubeadm(lab: Lab, machine: str, name: str, *flags: str) -> None:
    machines.kubeadm(lab, machine, "init", "--config", CONFIG, "--skip-phases=preflight", *flags)


def by_us(kubewright: Kubewright, tmp_path: Path) -> Callable[..., None]:
    def init(lab: Lab, machine: str, name: str, *flags: str) -> None:
        config = tmp_path / f"{name}.yaml"
        config.write_text(document(name, str(lab.machine(machine).plan.address)))
        machines.kubewright_on(
            kubewright, lab, machine, "init", "--config", config, "--skip-phases=preflight", *flags
        )

    return init


def make(lab: Lab, machine: str, name: str, init: Callable[..., None]) -> None:
    """Initialise a machine from nothing."""
    machines.wipe(lab, machine)
    write(lab, machine, CONFIG, document(name, str(lab.machine(machine).plan.address)).encode())
    if name == "external-etcd":
        machines.start_external_etcd(lab, machine)
    init(lab, machine, name, *(["--upload-certs"] if name == "names-and-arguments" else []))


@pytest.fixture(scope="module", params=list(CONFIGURATIONS))
def pair(
    request: pytest.FixtureRequest, lab: Lab, kubewright: Kubewright, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Both machines, initialised with one configuration; its name."""
    name: str = request.param
    ours = by_us(kubewright, tmp_path_factory.mktemp("config"))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda item: make(lab, item[0], name, item[1]), [(THEIRS, by_kubeadm), (OURS, ours)]))
    yield name


# -- the comparison -------------------------------------------------------------------------------------------


def test_what_init_makes_is_the_same(lab: Lab, pair: str) -> None:
    unlisted, found = compared(lab)
    assert unlisted == []
    seen.update(found)
    finished.add(pair)


def compared(
    lab: Lab, *, deadline: float = 40, listed: Sequence[Difference] = DIFFERENCES
) -> tuple[list[str], set[Difference]]:
    """What differs and is not listed, still after that many seconds, and the listed differences that are there."""
    end = time.monotonic() + deadline
    while True:
        theirs, ours = both(lab)
        found = differences(theirs, ours)
        unlisted = [text for text in found if not any(item.covers(text) for item in listed)]
        if (not unlisted and ready(theirs)) or time.monotonic() > end:
            return unlisted, {item for item in listed for text in found if item.covers(text)}
        time.sleep(0.25)


def both(lab: Lab) -> tuple[Snapshot, Snapshot]:
    with ThreadPoolExecutor(2) as pool:
        theirs, ours = pool.map(lambda machine: snapshot(lab, machine), (THEIRS, OURS))
    return theirs, ours


def ready(found: Snapshot) -> bool:
    """Whether the controllers have done what belongs to a new cluster: only then is all there to be compared."""
    info = found.get("ConfigMap kube-public/cluster-info", {"data": {}})
    return "jws-kubeconfig-abcdef" in info["data"] and "ConfigMap kube-public/kube-root-ca.crt" in found


COMMANDS = (
    f"init phase upload-config all --config {CONFIG}",
    f"init phase addon all --config {CONFIG}",
    "config view",
    "token create fedcba.9876543210fedcba --ttl 5m --description another",
    "token list",
    "token delete fedcba",
    "token list",
    "certs check-expiration",
    "certs renew all",
    "certs check-expiration",
)
"""What real kubeadm must be able to do on either."""


@pytest.mark.parametrize("pair", ["plain"], indirect=True)
def test_kubeadm_works_on_ours_as_on_its_own(lab: Lab, pair: str) -> None:
    """It says the same, its warnings included, and what is there afterwards is the same, too."""
    with ThreadPoolExecutor(2) as pool:
        theirs, ours = pool.map(lambda machine: said(lab, machine), (THEIRS, OURS))
    for command, expected, found in zip(COMMANDS, theirs, ours, strict=True):
        assert found == expected, command
    unlisted, _ = compared(lab)
    assert unlisted == []


@pytest.mark.parametrize("pair", ["plain"], indirect=True)
def test_ours_work_on_what_kubeadm_made(lab: Lab, pair: str, kubewright: Kubewright, tmp_path: Path) -> None:
    """The same the other way round: afterwards kubeadm's cluster is still as it was."""
    config = tmp_path / "kubeadm.yaml"
    config.write_text(document(pair, str(lab.machine(THEIRS).plan.address)))
    for command in (
        ["init", "phase", "upload-config", "all", "--config", config],
        ["init", "phase", "addon", "all", "--config", config],
        ["init", "phase", "certs", "all", "--config", config],
        ["init", "phase", "kubeconfig", "all", "--config", config],
        ["certs", "renew", "all"],
        ["certs", "check-expiration"],
        ["token", "create", "fedcba.9876543210fedcba", "--ttl", "5m"],
        ["token", "delete", "fedcba"],
        ["config", "view"],
    ):
        done = machines.kubewright_on(kubewright, lab, THEIRS, *command)
        assert "warning" not in done.err, str(done)
    unlisted, found = compared(lab, listed=(*DIFFERENCES, *ALONE))
    assert unlisted == []
    assert [item.where for item in ALONE if item not in found] == []


_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT[\d:]+Z|[A-Z][a-z]{2} \d\d, \d{4} \d\d:\d\d UTC|(?<=[IWE])\d{4} [\d:.]+ +\d+"
)


def said(lab: Lab, machine: str) -> list[str]:
    """What kubeadm says to each of the commands, without times and the machine's name and address."""
    address = str(lab.machine(machine).plan.address)
    texts = []
    for command in COMMANDS:
        text = machines.kubeadm(lab, machine, *command.split())
        text = re.sub(r"\b(364d|\d[hm](\d+m)?|9y)\b", "DURATION", _TIME.sub("TIME", text))
        text = re.sub(r" +", " ", text)
        texts.append(text.replace(address, "ADDRESS").replace(machine, "NODE"))
    return texts


def test_every_listed_difference_is_seen() -> None:
    if finished != set(CONFIGURATIONS):
        pytest.skip("not all configurations were compared")
    assert [item.where for item in DIFFERENCES if item not in seen] == []
