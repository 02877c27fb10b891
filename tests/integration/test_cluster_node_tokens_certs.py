"""Tokens, certificates and kubeconfigs of a running cluster, by our commands and by real kubeadm in turn."""

from __future__ import annotations

import asyncio
import io
import json
import re
import ssl
import subprocess
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_fixtures import ON_MACHINES, Kubewright, Run, client, inside, on, put, write
from kubeadm_machines import kubewright_on

from kubewright.clients.kube import KubeClient
from kubewright.clients.server import Server
from kubewright.errors import ApiError
from kubewright.lab.lab import Lab
from kubewright.model import kubeconfig, renewal, x509
from kubewright.model.pki import PKI_DIR
from kubewright.secret import Secret

pytestmark = ON_MACHINES

NAMES = sorted(set(renewal.NAMES) - {"super-admin.conf"})
TOKEN = "abcdef.0123456789abcdef"
DIRECTORY = "etc/kubernetes"


class Both:
    """The same command line for kubeadm and for us."""

    def __init__(self, kubewright: Kubewright, lab: Lab) -> None:
        self.lab = lab
        self.kubewright = kubewright

    def ours(self, *arguments: str | Path, code: int | None = 0) -> Run:
        return kubewright_on(self.kubewright, self.lab, "cp1", *arguments, code=code)

    def theirs(self, *arguments: str, code: int = 0) -> str:
        """What kubeadm printed to both outputs: a warning must be seen."""
        script = 'KUBECONFIG=/etc/kubernetes/admin.conf /run/kubeadm "$@" 2>&1'
        return on(self.lab, "cp1", script, *arguments, code=code)


@pytest.fixture(scope="module")
def both(kubewright: Kubewright, cluster: Lab, real_kubeadm: Path) -> Both:
    """Our commands over SSH, and real kubeadm 1.20.2 on the control plane."""
    put(cluster, "cp1", real_kubeadm, "/run/kubeadm")
    return Both(kubewright, cluster)


@pytest.fixture
def no_tokens(both: Both) -> Iterator[None]:
    """Whatever a test makes is gone after it."""
    yield
    for one in both.theirs("token", "list").splitlines()[1:]:
        both.theirs("token", "delete", one.split()[0])


def cells(table: str) -> list[list[str]]:
    """The rows of a table, its header first."""
    return [re.split(r"\s{2,}", line.strip()) for line in table.splitlines() if line.strip()]


# -- tokens -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_tokens")
def test_each_lists_and_deletes_the_others_tokens(both: Both) -> None:
    assert both.ours("token", "list").out == both.theirs("token", "list") == ""
    ours = both.ours("token", "create", "--description", "ours", "--ttl", "2h").out.strip()
    groups = "system:bootstrappers:a,system:bootstrappers:b"
    theirs = both.theirs(
        "token", "create", "--description", "theirs", "--ttl", "0", "--groups", groups
    ).strip()
    plain = both.ours("token", "create", "--usages", "signing", TOKEN).out.strip()
    assert plain == TOKEN
    assert sorted(cells(both.ours("token", "list").out)) == sorted(cells(both.theirs("token", "list")))
    shown = [json.loads(text) for text in documents(both.ours("token", "list", "-o", "json").out)]
    kubeadms = [json.loads(text) for text in documents(both.theirs("token", "list", "-o", "json"))]
    for one in (*shown, *kubeadms):
        one.pop("apiVersion")
        one.pop("creationTimestamp", None)
    assert sorted(shown, key=str) == sorted(kubeadms, key=str)
    assert {one["token"] for one in shown} == {ours, theirs, TOKEN}
    assert both.theirs("token", "delete", ours) == f'bootstrap token "{ours[:6]}" deleted\n'
    assert both.ours("token", "delete", theirs[:6], TOKEN).out == (
        f'bootstrap token "{theirs[:6]}" deleted\nbootstrap token "abcdef" deleted\n'
    )
    assert both.ours("token", "list").out == both.theirs("token", "list") == ""


def documents(stream: str) -> list[str]:
    """The JSON documents that stand one after the other."""
    return [f"{text}}}" for text in stream.split("\n}\n") if text.strip()]


@pytest.mark.usefixtures("no_tokens")
def test_the_join_command_is_kubeadms_but_for_the_program(both: Both) -> None:
    words = ("token", "create", TOKEN, "--print-join-command")
    key = "00" * 32
    for more in ((), ("--certificate-key", key)):
        theirs = both.theirs(*words, *more).split()
        both.ours("token", "delete", "abcdef")
        ours = both.ours(*words, *more).out.split()
        both.theirs("token", "delete", "abcdef")
        assert ours[0] == "kubewright"
        assert ours[1:] == theirs[1:]


@pytest.mark.usefixtures("no_tokens")
def test_what_cannot_be_is_refused_and_a_dry_run_makes_nothing(both: Both, tmp_path: Path) -> None:
    shown = both.ours("token", "--dry-run", "create", TOKEN).out
    assert "bootstrap-token-abcdef" in shown
    assert "MDEyMzQ1Njc4OWFiY2RlZg" not in shown
    assert both.theirs("token", "list") == ""
    config = tmp_path / "kubeadm.yaml"
    config.write_text(
        "apiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\nbootstrapTokens:\n"
        f"- token: {TOKEN}\n  ttl: 1h0m0s\n- token: bbbbbb.0123456789abcdef\n  description: two\n"
    )
    assert both.ours("token", "create", "--config", config).out == f"{TOKEN}\n"
    again = both.ours("token", "create", TOKEN, code=1)
    assert "there is a token with the id abcdef already" in again.err
    rows = cells(both.theirs("token", "list"))[1:]
    assert [row[0] for row in rows] == [TOKEN, "bbbbbb.0123456789abcdef"]
    gone = both.ours("token", "delete", "abcdef", "cccccc", code=1)
    assert 'bootstrap token "abcdef" deleted' in gone.out
    assert "there is no token cccccc" in gone.err


# -- certificates -------------------------------------------------------------------------------------------------


def test_the_ends_that_are_shown_are_kubeadms(both: Both) -> None:
    ours = cells(both.ours("certs", "check-expiration").out)
    theirs = [
        row for row in cells(both.theirs("certs", "check-expiration")) if not row[0].startswith("[check")
    ]
    # kubeadm 1.20 leaves out which CA signs a kubeconfig's certificate; newer ones and we do not.
    assert [row[:3] for row in ours] == [row[:3] for row in theirs]
    assert {row[-1] for row in ours} == {row[-1] for row in theirs}
    shown = both.ours("certs", "check-expiration", "-o", "json").document
    assert [one["name"] for one in shown["certificates"]] == NAMES
    assert [one["name"] for one in shown["certificateAuthorities"]] == ["ca", "etcd-ca", "front-proxy-ca"]


def test_each_renews_what_the_other_made(both: Both) -> None:
    """In turn; neither says anything that it would not say on a cluster of its own."""
    before = said(both)
    both.ours("certs", "renew", "all")
    assert said(both) == before
    spoken = both.theirs("certs", "renew", "all")
    assert spoken.count(" renewed\n") == len(NAMES)
    assert not [
        line
        for line in spoken.splitlines()
        if line and not line.startswith(("[renew]", "Done renewing")) and not line.endswith(" renewed")
    ]
    assert said(both) == before
    for name in ("apiserver", "scheduler.conf"):
        assert both.ours("certs", "renew", name).out.startswith(f"{name}: renewed")
        assert both.theirs("certs", "renew", name).endswith(" renewed\n")
    assert said(both) == before
    assert both.theirs("config", "view").count("kind: ClusterConfiguration") == 1
    modes = on(
        both.lab, "cp1", r"find /etc/kubernetes -name '*.key' -o -name '*.conf' | xargs stat -c '%a %U'"
    )
    assert set(modes.splitlines()) == {"600 root"}


def said(both: Both) -> dict[str, str]:
    """What each certificate says but for its key, its number and its time."""
    return {name: _all_but_time(pem) for name, (_, pem) in found(both).items()}


def found(both: Both) -> dict[str, tuple[renewal.Managed, bytes]]:
    """The certificates of the control plane."""
    files = read_all(both)
    return {
        one.name: (one, renewal.certificate(one, files[one.path(PKI_DIR)], one.name))
        for one in renewal.MANAGED
        if one.name in NAMES
    }


def read_all(both: Both) -> dict[str, bytes]:
    """All files below /etc/kubernetes of the control plane."""
    command = [*inside(both.lab, "cp1"), "tar", "-C", "/", "-cf", "-", DIRECTORY]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        return {
            f"/{member.name}": file.read()
            for member in archive
            if (file := archive.extractfile(member)) is not None
        }


def write_all(both: Both, files: dict[str, tuple[bytes, int]]) -> None:
    """Put files, with their modes, in the place of what stands there."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, (content, mode) in files.items():
            member = tarfile.TarInfo(path.lstrip("/"))
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
    command = [*inside(both.lab, "cp1"), "tar", "-C", "/", "--same-permissions", "-xf", "-"]
    subprocess.run(command, input=packed.getvalue(), check=True, timeout=60)


def _all_but_time(pem: bytes) -> str:
    cert = x509.load_cert(pem)
    extensions = sorted((one.oid.dotted_string, one.critical, repr(one.value)) for one in cert.extensions)
    return f"{cert.subject.rfc4514_string()} {cert.issuer.rfc4514_string()} {extensions}"


LIST_REQUESTS = """
cd "$1" && find . -type f -printf '%m %p\\n' | sort
for one in $(find . -name '*.csr' | sort); do
  openssl req -in "$one" -noout -subject -text | grep -E 'subject=|DNS:|IP Address:'
done
"""


def test_requests_are_kubeadms(both: Both, tmp_path: Path) -> None:
    """certs renew --csr-only, and certs generate-csr with the cluster's own configuration."""
    config = both.theirs("config", "view").partition("\n")[2]
    init = "apiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\nnodeRegistration: {name: cp1}\n---\n"
    write(both.lab, "cp1", "/run/ours.yaml", (init + config).encode())
    local = tmp_path / "kubeadm.yaml"
    local.write_text(init + config)
    try:
        on(both.lab, "cp1", "rm -rf /run/csr && mkdir -p /run/csr")
        both.ours("certs", "renew", "all", "--csr-only", "--csr-dir", "/run/csr/ours/renew")
        both.theirs("certs", "renew", "all", "--csr-only", "--csr-dir", "/run/csr/theirs/renew")
        for program, where in ((both.ours, "ours"), (both.theirs, "theirs")):
            program(
                "certs", "generate-csr", "--config", str(local) if where == "ours" else "/run/ours.yaml",
                "--cert-dir", f"/run/csr/{where}/pki", "--kubeconfig-dir", f"/run/csr/{where}/conf",
            )  # fmt: skip
        listed = {}
        for where in ("ours", "theirs"):
            listed[where] = on(both.lab, "cp1", LIST_REQUESTS, f"/run/csr/{where}")
        assert listed["ours"] == listed["theirs"]
        assert listed["ours"].count(".csr") == len(NAMES) + len(NAMES) + 1
        again = both.ours(
            "certs", "generate-csr", "--cert-dir", "/run/csr/ours/pki", "--config", local, code=1
        )
        assert "exist already" in again.err
    finally:
        on(both.lab, "cp1", "rm -rf /run/csr /run/ours.yaml")


MANIFESTS = "/etc/kubernetes/manifests"
STOP = f"""
mkdir -p /etc/kubernetes/away && mv {MANIFESTS}/*.yaml /etc/kubernetes/away
for i in $(seq 300); do
  running=
  for name in etcd kube-apiserver kube-controller kube-scheduler; do
    pkill -KILL -x "$name" && running=yes
  done
  [ "$running" ] || exit 0
  sleep 0.1
done
exit 1
"""
"""To end by itself takes the API server 30 s."""
START = f"mv /etc/kubernetes/away/*.yaml {MANIFESTS} && rmdir /etc/kubernetes/away"


async def test_a_control_plane_whose_certificates_have_all_expired_is_rescued(both: Both) -> None:
    """P22: nothing of the control plane runs, nothing that it has is valid, and there is one command."""
    before = said(both)
    async with client(both.lab) as kube:
        leading = await leaders(kube)
    on(both.lab, "cp1", STOP)
    try:
        expire_all(both)
        shown = both.ours("certs", "check-expiration")
        assert shown.out.count("<invalid>") == len(NAMES)
        assert "the cluster's configuration cannot be read" in shown.err
        assert "expired: admin.conf, apiserver, " in shown.err
        renewed = both.ours("certs", "renew", "all")
        assert renewed.out.count(": renewed\n") == len(NAMES)
        assert "etcd, kube-apiserver, kube-controller-manager, kube-scheduler" in renewed.out
    finally:
        on(both.lab, "cp1", START)
    assert said(both) == before
    await until_works(both, leading)
    assert "<invalid>" not in both.theirs("certs", "check-expiration")


def expire_all(both: Both) -> None:
    """Put certificates in the places of all that ended a second after their CA began."""
    files = read_all(both)
    key = x509.new_key()
    expired: dict[str, tuple[bytes, int]] = {}
    for one, pem in found(both).values():
        ca = x509.KeyPair(files[one.ca.cert_path()], Secret(files[one.ca.key_path()]))
        began = x509.load_cert(ca.cert).not_valid_before_utc
        pair = x509.sign_again(pem, key, ca, began, timedelta(seconds=1))
        assert x509.ends(pair.cert) < datetime.now(UTC)
        path = one.path(PKI_DIR)
        if one.base:
            expired[one.key_path(PKI_DIR)] = (key.reveal(), 0o600)
            expired[path] = (pair.cert, 0o644)
        else:
            content = renewal.with_new_certificate(files[path], path, pair, ca.cert)
            expired[path] = (content.reveal(), 0o600)
    write_all(both, expired)


LEASES = "coordination.k8s.io/v1"
LEADERS = ("kube-controller-manager", "kube-scheduler")


async def until_works(both: Both, before: dict[str, str], seconds: float = 120) -> None:
    """Wait until new leaders work, which takes certificates of every kind, and all nodes are Ready.

    That kubelets call the static Pods ready takes a minute longer, and says no more.
    """
    seen: object = None
    async with client(both.lab, timeout=5) as kube:
        deadline = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < deadline:
            try:
                now, nodes = await leaders(kube), await kube.list("v1", "Node")
            except ApiError as error:
                seen = error.message
            else:
                ready = [condition_of(node) for node in nodes]
                seen = now, ready
                if set(ready) == {"True"} and all(now[name] != before[name] for name in LEADERS):
                    break
            await asyncio.sleep(0.25)
        else:
            raise AssertionError(f"still {seen}")
    address = str(both.lab.machine("cp1").plan.address)
    pem = await asyncio.to_thread(ssl.get_server_certificate, (address, 6443))
    assert x509.ends(pem.encode()) > datetime.now(UTC) + timedelta(days=364)


async def leaders(kube: KubeClient) -> dict[str, str]:
    """Which process leads, by the program's name."""
    leases = {item["metadata"]["name"]: item for item in await kube.list(LEASES, "Lease", "kube-system")}
    return {name: leases[name]["spec"]["holderIdentity"] for name in LEADERS}


def condition_of(node: dict[str, Any]) -> str:
    return str(next(one["status"] for one in node["status"]["conditions"] if one["type"] == "Ready"))


# -- users --------------------------------------------------------------------------------------------------------


async def test_a_further_user_is_known_and_may_what_its_groups_may(both: Both, tmp_path: Path) -> None:
    out = tmp_path / "jane.conf"
    both.ours(
        "kubeconfig", "user", "--client-name", "jane", "--org", "developers,system:masters", "--out", out
    )
    assert out.stat().st_mode & 0o777 == 0o600
    async with client_of(out.read_bytes()) as kube:
        assert len(await kube.list("v1", "Node")) == len(both.lab.machines)
    plain = both.ours("kubeconfig", "user", "--client-name", "jane", "--validity-period", "1h").out.encode()
    async with client_of(plain) as kube:
        with pytest.raises(ApiError, match='User "jane" cannot list resource "nodes"'):
            await kube.list("v1", "Node")
    _, user = kubeconfig.current(kubeconfig.load(plain, "plain"))
    cert = kubeconfig.embedded(user, "client-certificate-data")
    assert x509.ends(cert) < datetime.now(UTC) + timedelta(hours=1, minutes=1)


def client_of(content: bytes) -> KubeClient:
    return KubeClient(Server.from_kubeconfig(kubeconfig.load(content, "a user's")))


def test_the_kubeconfig_of_a_user_is_kubeadms(both: Both) -> None:
    config = both.theirs("config", "view").partition("\n")[2]
    address = both.lab.machine("cp1").plan.address
    init = (
        "apiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\n"
        f"localAPIEndpoint: {{advertiseAddress: {address}}}\n---\n"
    )
    write(both.lab, "cp1", "/run/ours.yaml", (init + config).encode())
    theirs = both.theirs(
        "alpha", "kubeconfig", "user", "--client-name", "jane", "--token", "t0p", "--config", "/run/ours.yaml"
    )
    kubeadms = yaml.safe_load(theirs[theirs.index("apiVersion") :])
    assert (
        yaml.safe_load(both.ours("kubeconfig", "user", "--client-name", "jane", "--token", "t0p").out)
        == kubeadms
    )
