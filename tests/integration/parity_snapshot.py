"""What an initialised control plane consists of, without what is random or a time, and how two of them differ."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from certificates import describe, key_kind
from cluster_fixtures import inside, on
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from cryptography.x509 import Certificate, load_pem_x509_certificate

from kubewright.lab.lab import Lab

Snapshot = dict[str, Any]
"""A file's path, or an object's kind, namespace and name, with what is in it."""

KUBECTL = "kubectl --kubeconfig /etc/kubernetes/admin.conf"
_FILES = ("etc/kubernetes", "var/lib/kubelet", "var/lib/etcd")
_KUBELETS_OWN = (
    "pods", "plugins", "plugins_registry", "pod-resources", "device-plugins", "cpu_manager_state",
    "memory_manager_state",
)  # fmt: skip
"""What the running kubelet keeps below /var/lib/kubelet: its own doing, and the same program's on both sides."""

_MADE_BY_CONTROLLERS = {
    "Pod", "ReplicaSet", "ControllerRevision", "Endpoints", "EndpointSlice", "Event", "Lease",
    "CertificateSigningRequest",
}  # fmt: skip
"""Objects that follow from others, which are compared."""

_RANDOM = {
    "creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid", "status",
}  # fmt: skip
_DIGEST = "kubeadm.kubernetes.io/component-config.hash"
_CONTROLLERS_ANNOTATIONS = {
    "deployment.kubernetes.io/revision", "deprecated.daemonset.template.generation",
    "node.alpha.kubernetes.io/ttl", "volumes.kubernetes.io/controller-managed-attach-detach",
}  # fmt: skip


# -- taking it ------------------------------------------------------------------------------------------------


def snapshot(lab: Lab, machine: str) -> Snapshot:
    """All files and objects of the control plane on a machine."""
    address = str(lab.machine(machine).plan.address)
    words = {address: "ADDRESS", machine: "NODE"}
    found = {**_files(lab, machine, words), **_objects(lab, machine, words)}
    proxy = next((o["data"]["token-id"] for o in found.values() if _is_proxy_token(o)), None)
    return _renamed(found, proxy) if proxy else found


def joined_snapshot(lab: Lab, machine: str, control_plane: str) -> Snapshot:
    """All files of a node that has joined, and its Node, read on the machine `control_plane`; without what follows
    from the order in which nodes joined."""
    words = {str(lab.machine(machine).plan.address): "ADDRESS", machine: "NODE"}
    node = json.loads(on(lab, control_plane, f"{KUBECTL} get node {machine} -o json"))
    for name in ("podCIDR", "podCIDRs"):
        node["spec"].pop(name, None)
    found = _files(lab, machine, words) | {"Node": _parsed(_without_chance(node), words)}
    etcd = found.get("/etc/kubernetes/manifests/etcd.yaml")
    if etcd:
        command = etcd["content"]["spec"]["containers"][0]["command"]
        command[:] = [word for word in command if not word.startswith("--initial-cluster=")]
    return found


def _is_proxy_token(obj: Mapping[str, Any]) -> bool:
    """Whether this is the bootstrap token, random on both sides, whose expiry takes kubeadm-certs with it."""
    return str(obj.get("data", {}).get("description", "")).startswith("Proxy for managing TTL")


def _renamed(found: Snapshot, token: str) -> Snapshot:
    """A snapshot with that token's name and secret replaced."""
    found[f"Secret kube-system/bootstrap-token-{token}"]["data"]["token-secret"] = "RANDOM"
    renamed: Snapshot = json.loads(json.dumps(found).replace(token, "TOKEN"))
    return renamed


def _files(lab: Lab, machine: str, words: Mapping[str, str]) -> Snapshot:
    left_out = [f"--exclude=var/lib/kubelet/{name}" for name in _KUBELETS_OWN]
    there = f"$(ls -d {' '.join(_FILES)} 2>/dev/null)"  # a worker has no etcd
    script = f"cd / && tar -cf - {' '.join(left_out)} --exclude='var/lib/etcd/*' {there}"
    command = ["sh", "-c", script]
    done = subprocess.run(
        [*inside(lab, machine), *command],
        capture_output=True,
        timeout=60,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    found: Snapshot = {}
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        for member in tar:
            name = "/" + re.sub(r"\d{4}(-\d\d){5}", "DATE", member.name)
            about: dict[str, Any] = {"mode": f"{member.mode:o}", "owner": f"{member.uid}:{member.gid}"}
            if member.issym():
                about = {"link": re.sub(r"\d{4}(-\d\d){5}", "DATE", member.linkname)}
            elif member.isfile():
                reader = tar.extractfile(member)
                assert reader is not None
                about["content"] = _content(name, reader.read(), words)
            found[name] = about
    return found


def _content(name: str, data: bytes, words: Mapping[str, str]) -> Any:
    if b"-----BEGIN" in data[:200]:
        return _pem(data, words)
    text = _plain(data.decode(), words)
    return _parsed(yaml.safe_load(text), words) if name.endswith((".yaml", ".conf")) else text.splitlines()


def _objects(lab: Lab, machine: str, words: Mapping[str, str]) -> Snapshot:
    """What has to do with a cluster's making: kube-system, kube-public, and all that is in no namespace."""
    script = f"{KUBECTL} get -A -o json $({KUBECTL} api-resources --verbs=list -o name | sort | paste -sd,)"
    found: Snapshot = {}
    for obj in json.loads(on(lab, machine, script))["items"]:
        meta = obj["metadata"]
        if "kubernetes.io/config.mirror" in meta.get("annotations", {}):
            # Their manifests are compared; that the API shows them is what there is to see here.
            found[f"Pod {meta['namespace']}/{meta['name'].removesuffix(machine)}NODE"] = {"data": {}}
            continue
        if obj["kind"] in _MADE_BY_CONTROLLERS or meta.get("namespace") == "kube-node-lease":
            continue
        if obj.get("type") == "kubernetes.io/service-account-token":
            continue  # the controllers', one for each service account, under random names
        group = obj["apiVersion"].rpartition("/")[0]
        kind = f"{obj['kind']}.{group}" if group else obj["kind"]
        name = f"{kind} {meta.get('namespace', '')}/{meta['name']}"
        found[_plain(name, words)] = _parsed(_without_chance(obj), words)
    return found


# -- taking out what is random, a time, or the machine's ------------------------------------------------------


def _plain(text: str, words: Mapping[str, str]) -> str:
    """A text with the machine's address and name replaced."""
    for word, stands in words.items():
        text = re.sub(rf"(?<![\w.-]){re.escape(word)}(?!\w|\.\d)", stands, text)
    return text


def _without_chance(obj: dict[str, Any]) -> dict[str, Any]:
    """An object without what the API server and the controllers add to it."""
    obj = {key: value for key, value in obj.items() if key not in _RANDOM}
    meta = {key: value for key, value in obj["metadata"].items() if key not in _RANDOM}
    annotations = {
        key: value
        for key, value in meta.pop("annotations", {}).items()
        if key not in _CONTROLLERS_ANNOTATIONS
    }
    if annotations:
        meta["annotations"] = annotations
    for owner in meta.get("ownerReferences", []):
        owner["uid"] = "UID"
    kind = obj["kind"]
    if kind == "ServiceAccount":
        obj.pop("secrets", None)
    if kind == "Node":
        # The kubelet and the controllers set and take these as the node's state changes.
        taints = [t for t in obj["spec"].get("taints", []) if not t["key"].startswith("node.kubernetes.io/")]
        obj["spec"]["taints"] = sorted(taints, key=lambda taint: str(taint["key"]))
    for name in annotations.keys() & {_DIGEST}:
        annotations[name] = "RIGHT" if annotations[name] == _digest(obj["data"]) else "WRONG"
    if kind == "Secret":
        obj["data"] = {key: _secret(obj, key, base64.b64decode(text)) for key, text in obj["data"].items()}
    if kind == "ConfigMap" and meta["name"] == "cluster-info":
        obj["data"] = {
            key: "SIGNATURE" if key.startswith("jws-") else text for key, text in obj["data"].items()
        }
    return obj | {"metadata": meta}


def _digest(data: Mapping[str, str]) -> str:
    """By this kubeadm knows a ConfigMap that only tools have changed."""
    return f"sha256:{hashlib.sha256(''.join(data[key] for key in sorted(data)).encode()).hexdigest()}"


def _secret(obj: Mapping[str, Any], key: str, value: bytes) -> str:
    if obj["metadata"]["name"] == "kubeadm-certs":
        return "ENCRYPTED"
    return "TIME" if key == "expiration" else value.decode()


def _parsed(value: Any, words: Mapping[str, str]) -> Any:
    """A document whose texts are documents, certificates or keys, with those read."""
    if isinstance(value, dict):
        return {_plain(str(key), words): _parsed(inner, words) for key, inner in value.items()}
    if isinstance(value, list):
        return [_parsed(inner, words) for inner in value]
    if not isinstance(value, str):
        return value
    if value.startswith("LS0t"):
        value = base64.b64decode(value).decode()
    if value.startswith("-----BEGIN"):
        return _pem(value.encode(), words)
    if "\n" in value or value.startswith("{"):
        try:
            inner = yaml.safe_load(value)
        except yaml.YAMLError:
            inner = None
        return _parsed(inner, words) if isinstance(inner, dict) else _plain(value, words).splitlines()
    return _plain(value, words)


def _pem(data: bytes, words: Mapping[str, str]) -> list[Any]:
    """What the blocks of a PEM file are."""
    blocks = re.findall(rb"-----BEGIN ([^-]+)-----.*?-----END \1-----\n?", data, re.S)
    texts = [
        match.group() for match in re.finditer(rb"-----BEGIN ([^-]+)-----.*?-----END \1-----\n?", data, re.S)
    ]
    found: list[Any] = []
    for kind, text in zip(blocks, texts, strict=True):
        if kind == b"CERTIFICATE":
            found.append(_described(load_pem_x509_certificate(text), words))
        elif kind == b"PUBLIC KEY":
            found.append(f"{kind.decode()}: {key_kind(load_pem_public_key(text))}")
        else:
            found.append(f"{kind.decode()}: {key_kind(load_pem_private_key(text, None))}")
    return found


def _described(cert: Certificate, words: Mapping[str, str]) -> dict[str, Any]:
    found = describe(cert)
    for name in ("subject", "issuer"):
        found[name] = re.sub(r"@\d+", "@TIME", _plain(found[name], words))
    # Sorted once more: by its name, a machine stands elsewhere among the others.
    names = sorted(_plain(name, words) for name in found["names"])
    return found | {"names": names, "days": round(found["days"])}


# -- comparing ------------------------------------------------------------------------------------------------


def differences(theirs: Snapshot, ours: Snapshot) -> list[str]:
    """Every place where two snapshots differ: the file or object, the place in it, their value and ours."""
    return list(_differences(theirs, ours, ""))


_ABSENT = object()


def _differences(theirs: Any, ours: Any, path: str) -> Iterator[str]:
    theirs, ours = _by_name(theirs), _by_name(ours)
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in [*theirs, *(key for key in ours if key not in theirs)]:
            inner = str(key) if not path else f"{path} at {key}" if " at " not in path else f"{path}.{key}"
            yield from _differences(theirs.get(key, _ABSENT), ours.get(key, _ABSENT), inner)
    elif theirs != ours:
        yield f"{path}: {_shown(theirs)} -> {_shown(ours)}"


def _by_name(value: Any) -> Any:
    """A list as a map, where its items have names: flags of a command, things with a `name`."""
    if not isinstance(value, list) or not value:
        return value
    if all(isinstance(item, dict) and "name" in item for item in value):
        return {item["name"]: item for item in value}
    if any(isinstance(item, str) and item.startswith("--") for item in value):
        return {item.partition("=")[0]: item for item in map(str, value)}
    return dict(enumerate(value)) if isinstance(value[0], dict) else value


def _shown(value: Any) -> str:
    return "nothing" if value is _ABSENT else json.dumps(value, sort_keys=True, default=str)
