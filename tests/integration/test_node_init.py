"""`kubewright init` on real machines: whole, dry, phase by phase, patched, and under an authority elsewhere."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import kubeadm_machines as machines
import node_python
import pytest
import yaml
from cluster_fixtures import NODE_INIT, ON_MACHINES, Kubewright, Run, lab_of, on, until_on
from cryptography.x509 import DNSName, IPAddress, SubjectAlternativeName
from kubeadm_machines import KUBECTL, host_options, kubewright_on, wipe

from kubewright.errors import ExitCode
from kubewright.lab.lab import Lab
from kubewright.model import copy_certs, x509
from kubewright.model.config.kubeadm_types import ClusterConfiguration
from kubewright.secret import Secret

pytestmark = ON_MACHINES

FIRST, SECOND = "cp1", "w1"
NO_IMAGES = ("--ignore-preflight-errors", "ImagePull")
"""CoreDNS has no image here, and no registry can be reached."""

LEFT = (
    "find /etc/kubernetes /var/lib/kubelet /var/lib/etcd -printf '%p %m %u %T@\\n' 2>/dev/null | sort; true"
)
WRITTEN = "find /etc/kubernetes -type f -printf '%p %m %u %T@\\n' | sort"


@pytest.fixture(scope="module")
async def lab(kubewright: Kubewright) -> AsyncIterator[Lab]:
    with lab_of(kubewright, NODE_INIT, workers=1) as found:
        await machines.prepare(found)
        yield found


def get(lab: Lab, machine: str, *what: str) -> Any:
    """What kubectl answers on a machine."""
    return json.loads(on(lab, machine, f'{KUBECTL} get "$@" -o json', *what))


def manifest(lab: Lab, machine: str, pod: str) -> dict[str, Any]:
    """A static Pod as it stands on a machine."""
    found: dict[str, Any] = yaml.safe_load(on(lab, machine, f"cat /etc/kubernetes/manifests/{pod}.yaml"))
    return found


# -- the whole of init ----------------------------------------------------------------------------------------


def test_a_dry_run_shows_everything_and_changes_nothing(kubewright: Kubewright, lab: Lab) -> None:
    before = on(lab, FIRST, LEFT)
    run = kubewright_on(
        kubewright, lab, FIRST, "init", "--dry-run", "--pod-network-cidr=10.244.0.0/16", "--upload-certs"
    )
    assert on(lab, FIRST, LEFT) == before
    for shown in (
        "/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/pki/ca.key", "/etc/kubernetes/admin.conf",
        "+    - --cluster-cidr=10.244.0.0/16", "+clusterDNS:", "ConfigMap kube-system/kubeadm-config",
        "DaemonSet kube-system/kube-proxy", "+  - effect: NoSchedule", "Secret kube-system/kubeadm-certs",
        "nothing was changed",
    ):  # fmt: skip
        assert shown in run.out
    assert "PRIVATE KEY" not in run.out
    assert "token-secret" not in run.out
    document = kubewright_on(kubewright, lab, FIRST, "init", "--dry-run", "-o", "json").document
    assert {"action": "create", "target": "/etc/kubernetes/scheduler.conf", "host": FIRST} in document[
        "changes"
    ]


@pytest.fixture(scope="module")
def made(kubewright: Kubewright, lab: Lab) -> Run:
    """A control plane, made with options alone, by a second run after one that was killed (P34)."""
    words = (
        "init", "--pod-network-cidr", "10.244.0.0/16", "--upload-certs", "--merge-kubeconfig", "made-here",
        "--control-plane-endpoint", str(lab.machine(FIRST).plan.address), "--token-ttl", "1h", *NO_IMAGES,
    )  # fmt: skip
    killed = kubewright.start(*words, *host_options(lab, FIRST))
    until_on(lab, FIRST, "[ -e /etc/kubernetes/manifests/kube-apiserver.yaml ]")
    killed.kill()
    killed.wait()
    return kubewright_on(kubewright, lab, FIRST, *words)


def test_the_api_answers_and_the_node_is_a_control_plane(lab: Lab, made: Run) -> None:
    node = get(lab, FIRST, "node", FIRST)
    assert "node-role.kubernetes.io/master" in node["metadata"]["labels"]
    assert node["metadata"]["annotations"]["kubeadm.alpha.kubernetes.io/cri-socket"]
    assert {"key": "node-role.kubernetes.io/master", "effect": "NoSchedule"} in node["spec"]["taints"]
    pods = get(lab, FIRST, "pods", "-n", "kube-system", "-l", "tier=control-plane")["items"]
    assert {pod["metadata"]["labels"]["component"] for pod in pods} <= {
        "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler",
    }  # fmt: skip
    assert get(lab, FIRST, "daemonset", "kube-proxy", "-n", "kube-system")
    assert get(lab, FIRST, "deployment", "coredns", "-n", "kube-system")["spec"]["replicas"] == 2


def test_the_end_says_what_to_type_next(lab: Lab, made: Run) -> None:
    address = lab.machine(FIRST).plan.address
    assert f"kubewright join {address}:6443 --token " in made.out
    assert "--control-plane --certificate-key " in made.out
    # Kubernetes is only Ready with a pod network, which is not made here.
    assert "pod network" in made.out


def test_kubectl_finds_the_cluster_here_where_that_is_wanted(kubewright: Kubewright, made: Run) -> None:
    contexts = yaml.safe_load(kubewright.kubeconfig.read_text())
    assert {"made-here", "work"} <= {entry["name"] for entry in contexts["contexts"]}
    assert contexts["current-context"] == "work"


def test_the_uploaded_certificates_open_with_the_printed_key(lab: Lab, made: Run) -> None:
    key = made.out.partition("--certificate-key ")[2].split()[0]
    secret = get(lab, FIRST, "secret", "kubeadm-certs", "-n", "kube-system")
    files = copy_certs.shared_files(ClusterConfiguration())
    opened = copy_certs.files_of_secret(secret, files, copy_certs.parse_certificate_key(Secret(key)))
    for path, content in opened.items():
        assert content.decode() == on(lab, FIRST, 'cat "$1"', path)
    [owner] = secret["metadata"]["ownerReferences"]
    token = get(lab, FIRST, "secret", owner["name"], "-n", "kube-system")
    assert base64.b64decode(token["data"]["expiration"])
    assert "usage-bootstrap-authentication" not in token["data"]


def test_a_second_upload_takes_the_place_of_the_first(kubewright: Kubewright, lab: Lab, made: Run) -> None:
    before = get(lab, FIRST, "secret", "kubeadm-certs", "-n", "kube-system")
    run = kubewright_on(kubewright, lab, FIRST, "init", "phase", "upload-certs", "--upload-certs")
    key = copy_certs.parse_certificate_key(Secret(run.out.strip()))
    secret = get(lab, FIRST, "secret", "kubeadm-certs", "-n", "kube-system")
    assert len(secret["metadata"]["ownerReferences"]) == 1
    assert secret["metadata"]["ownerReferences"] != before["metadata"]["ownerReferences"]
    assert copy_certs.files_of_secret(secret, copy_certs.shared_files(ClusterConfiguration()), key)


def test_init_goes_on_with_its_own_and_refuses_anything_else(
    kubewright: Kubewright, lab: Lab, made: Run
) -> None:
    endpoint = ("--control-plane-endpoint", str(lab.machine(FIRST).plan.address))
    again = kubewright_on(
        kubewright, lab, FIRST, "init", "--pod-network-cidr", "10.244.0.0/16", *endpoint, *NO_IMAGES, "-o", "json"
    ).events  # fmt: skip
    done = [event["name"] for event in again if event["kind"] == "phase.done"]
    assert done == ["preflight", "bootstrap-token"]  # another token
    result = again[-1]
    assert result["kind"] == "result"
    assert result["caCertHash"].startswith("sha256:")
    before = on(lab, FIRST, WRITTEN)
    other = kubewright_on(
        kubewright, lab, FIRST, "init", "--pod-network-cidr", "10.32.0.0/16", *endpoint, *NO_IMAGES,
        code=ExitCode.HOST_NOT_FIT,
    )  # fmt: skip
    assert "FileAvailable--etc-kubernetes-manifests-kube-controller-manager.yaml" in other.err
    assert "FileAvailable--etc-kubernetes-manifests-etcd.yaml" not in other.err
    assert on(lab, FIRST, WRITTEN) == before


def test_add_ons_keep_what_the_user_changed(kubewright: Kubewright, lab: Lab, made: Run) -> None:
    on(lab, FIRST, f"{KUBECTL} -n kube-system scale deployment coredns --replicas 3")
    kubewright_on(
        kubewright, lab, FIRST, "init", "phase", "addon", "all", "--pod-network-cidr", "10.244.0.0/16",
        "--control-plane-endpoint", str(lab.machine(FIRST).plan.address),
    )  # fmt: skip
    assert get(lab, FIRST, "deployment", "coredns", "-n", "kube-system")["spec"]["replicas"] == 3


# -- phase by phase -------------------------------------------------------------------------------------------


@pytest.fixture
def clean(lab: Lab) -> Iterator[None]:
    """The second machine without anything on it."""
    wipe(lab, SECOND)
    yield


def test_single_phases_make_their_part_and_no_more(kubewright: Kubewright, lab: Lab, clean: None) -> None:
    def phase(*words: str | Path, code: int = 0) -> Run:
        return kubewright_on(kubewright, lab, SECOND, "init", "phase", *words, code=code)

    early = phase("certs", "apiserver", code=ExitCode.HOST_NOT_FIT)
    assert "kubewright init phase certs ca" in early.err
    phase("certs", "ca")
    assert on(lab, SECOND, "ls /etc/kubernetes/pki").split() == ["ca.crt", "ca.key"]
    phase("certs", "apiserver", "--apiserver-cert-extra-sans", "api.example.test,192.0.2.7")
    cert = x509.load_cert(on(lab, SECOND, "cat /etc/kubernetes/pki/apiserver.crt").encode())
    names = cert.extensions.get_extension_for_class(SubjectAlternativeName).value
    assert "api.example.test" in names.get_values_for_type(DNSName)
    assert "192.0.2.7" in map(str, names.get_values_for_type(IPAddress))
    phase("certs", "front-proxy-client", "--csr-only", "--csr-dir", "/root/requests")
    assert on(lab, SECOND, "ls /root/requests; rm -r /root/requests").split() == [
        "front-proxy-client.csr", "front-proxy-client.key",
    ]  # fmt: skip
    phase("kubeconfig", "kubelet", "--node-name", "another", "--kubeconfig-dir", "/root/made")
    kubelet = yaml.safe_load(on(lab, SECOND, "cat /root/made/kubelet.conf; rm -r /root/made"))
    assert kubelet["users"][0]["name"] == "system:node:another"
    assert "client-certificate-data" in kubelet["users"][0]["user"]
    phase("control-plane", "apiserver", "--apiserver-extra-args", "v=4,profiling=false")
    assert "--profiling=false" in manifest(lab, SECOND, "kube-apiserver")["spec"]["containers"][0]["command"]
    assert on(lab, SECOND, "ls /etc/kubernetes/manifests").split() == ["kube-apiserver.yaml"]
    assert phase("control-plane", "apiserver", "--apiserver-extra-args", "v", code=ExitCode.USAGE)
    assert "did you mean" in phase("certs", "apisever", code=ExitCode.USAGE).err


def test_patches(kubewright: Kubewright, lab: Lab, clean: None, tmp_path: Path) -> None:
    patches = tmp_path / "patches"
    patches.mkdir()
    (patches / "README.md").write_text("no patch")
    (patches / "etcd.yaml").write_text("metadata: {labels: {patched: strategic}}")
    (patches / "etcd1+merge.yaml").write_text("spec: {terminationGracePeriodSeconds: 7}")
    (patches / "etcd2+json.json").write_text(
        '[{"op": "add", "path": "/metadata/labels/json", "value": "yes"}]'
    )
    for flag in ("--patches", "--experimental-patches"):
        kubewright_on(kubewright, lab, SECOND, "init", "phase", "etcd", "local", flag, patches)
        etcd = manifest(lab, SECOND, "etcd")
        assert etcd["metadata"]["labels"] == {
            "component": "etcd", "tier": "control-plane", "patched": "strategic", "json": "yes",
        }  # fmt: skip
        assert etcd["spec"]["terminationGracePeriodSeconds"] == 7
    (patches / "etcd3+json.yaml").write_text("- {op: remove, path: /nowhere}")
    run = kubewright_on(
        kubewright, lab, SECOND, "init", "phase", "etcd", "local", "--patches", patches,
        code=ExitCode.CONFIG_INVALID,
    )  # fmt: skip
    assert "etcd3+json.yaml" in run.err


# -- an authority elsewhere -----------------------------------------------------------------------------------


def test_an_external_authority(kubewright: Kubewright, lab: Lab, clean: None) -> None:
    def init(*words: str, code: int = 0) -> Run:
        return kubewright_on(kubewright, lab, SECOND, "init", *words, code=code)

    init("phase", "certs", "all")
    init("phase", "kubeconfig", "all")
    inside = yaml.safe_load(on(lab, SECOND, "cat /etc/kubernetes/kubelet.conf"))
    assert "client-certificate-data" in inside["users"][0]["user"]
    on(lab, SECOND, "cd /etc/kubernetes/pki && rm ca.key front-proxy-ca.key")
    on(lab, SECOND, "mv /etc/kubernetes/pki/apiserver.crt /etc/kubernetes/scheduler.conf /root")
    run = init(*NO_IMAGES, code=ExitCode.HOST_NOT_FIT)
    assert "/etc/kubernetes/pki/apiserver.crt is missing" in run.err
    assert "/etc/kubernetes/scheduler.conf is missing" in run.err
    on(lab, SECOND, "mv /root/apiserver.crt /etc/kubernetes/pki; mv /root/scheduler.conf /etc/kubernetes")
    assert "--upload-certs" in init("--upload-certs", *NO_IMAGES, code=ExitCode.USAGE).err

    init(*NO_IMAGES)
    command = manifest(lab, SECOND, "kube-controller-manager")["spec"]["containers"][0]["command"]
    assert "--cluster-signing-key-file=" in command
    assert on(lab, SECOND, "ls /etc/kubernetes/pki/*.key").split() == [
        f"/etc/kubernetes/pki/{name}.key"
        for name in (
            "apiserver-etcd-client", "apiserver-kubelet-client", "apiserver", "front-proxy-client", "sa",
        )
    ]  # fmt: skip
    assert get(lab, SECOND, "node", SECOND)["metadata"]["labels"]["node-role.kubernetes.io/master"] == ""
    # The kubelet has put the certificate that was inside where it keeps those that it renews.
    kubelet = yaml.safe_load(on(lab, SECOND, "cat /etc/kubernetes/kubelet.conf"))
    assert kubelet["users"][0]["user"]["client-key"] == "/var/lib/kubelet/pki/kubelet-client-current.pem"


# -- on the node itself ---------------------------------------------------------------------------------------


def test_on_the_node_itself(kubewright: Kubewright, lab: Lab, clean: None, tmp_path: Path) -> None:
    """Out of a wheel, with nothing but this computer's Python."""
    node_python.install(lab, SECOND, tmp_path)

    def run(*words: str) -> str:
        return on(lab, SECOND, f'cd /root && {node_python.PROGRAM} "$@" 2>&1', *words)

    proxied = on(
        lab, SECOND,
        f"NO_PROXY=.example.test {node_python.PROGRAM} init phase control-plane all --dry-run 2>&1",
    )  # fmt: skip
    assert proxied.count("name: NO_PROXY") == 3
    text = run("init", "--service-dns-domain", "blue.test", *NO_IMAGES)
    assert "kubewright join" in text
    assert get(lab, SECOND, "node", SECOND)
    token = text.partition("--token ")[2].split()[0]
    assert token in run("token", "list")
    assert "blue.test" in run("config", "view")
