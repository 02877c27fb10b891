"""Clusters of several control planes: made, hurt, looked at one by one, and waited for until they have healed."""

from __future__ import annotations

import http.client
import json
import random
import ssl
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cluster_fixtures import HA, Kubewright, Run, on, written
from tools.ha_probe import NAMESPACE, Book, Load

from kubewright.clients.server import Server
from kubewright.lab.lab import Lab, open_lab
from kubewright.workflows.check import IMAGE_DAEMON_SET

BALANCER = "w3"
"""The machine for a proxy, where an endpoint has a host of its own."""
ENDPOINTS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    # By the name in a test: the field of cluster.yaml, and the machines that have the role load-balancer. The
    # virtual IP is on the control planes themselves: there its holder can be the machine that dies.
    "local": ({"type": "local"}, ()),
    "haproxy": ({"type": "haproxy"}, (BALANCER,)),
    "nginx": ({"type": "nginx"}, (BALANCER,)),
    "keepalived": ({"type": "keepalived", "address": "{vip}:8443"}, ()),
}
LONGEST_GAP = 5.0
"""Seconds that clients may be without an answer when the machine of etcd's leader dies."""
NODE_PORT = 30080
"""Where the pods of `place_pods` answer on every node."""
HEAL_DEADLINE = 360.0
"""Seconds for a cluster to be whole again when its machines are. A kubelet starts a container that has ended
several times only after a pause that grows to five minutes; a controller manager ends when it loses its lease."""


@dataclass(frozen=True)
class Member:
    """A member of etcd, as it sees itself."""

    machine: str
    id: str
    leader: str
    """The leader's id; "0" where it knows none."""
    index: int
    learner: bool


@dataclass(frozen=True)
class Healed:
    """How long a cluster took to be whole again, and what came last."""

    seconds: float
    last: str

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s" + (f" (last: {self.last[:80]})" if self.last else "")


class HaCluster:
    """A cluster of a lab, each part of it asked directly, from this computer."""

    def __init__(self, lab: Lab, config: Path, control_planes: Sequence[str], workers: Sequence[str]) -> None:
        self.lab = lab
        self.config = config
        self.control_planes = list(control_planes)
        self.workers = list(workers)
        self._api = Server.from_kubeconfig(yaml.safe_load(config.read_text())).ssl_context()
        pki = "/etc/kubernetes/pki"
        ca, cert, key = (
            on(lab, control_planes[0], f"cat {pki}/{file}").encode()
            for file in ("etcd/ca.crt", "apiserver-etcd-client.crt", "apiserver-etcd-client.key")
        )
        self._etcd = Server("", ca, cert, key).ssl_context()
        settings = yaml.safe_load(
            self.api("/api/v1/namespaces/kube-system/configmaps/kubeadm-config")["data"][
                "ClusterConfiguration"
            ]
        )
        self.endpoint: str = settings.get("controlPlaneEndpoint", "")

    def address(self, machine: str) -> str:
        return str(self.lab.machine(machine).plan.address)

    # -- asking ---------------------------------------------------------------------------------------------------

    def api(
        self, path: str, *, machine: str = "", method: str = "GET", body: Any = None, timeout: float = 10
    ) -> dict[str, Any]:
        """Ask the API server of one machine, or of any that answers."""
        errors: list[str] = []
        for name in [machine] if machine else self.control_planes:
            try:
                return self._ask(f"{self.address(name)}:6443", self._api, method, path, body, timeout)
            except OSError as error:
                errors.append(f"{name}: {error}")
        raise OSError("; ".join(errors))

    def _ask(
        self, where: str, context: ssl.SSLContext, method: str, path: str, body: Any, timeout: float
    ) -> dict[str, Any]:
        connection = http.client.HTTPSConnection(where, context=context, timeout=timeout)
        try:
            kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
            data = json.dumps(body).encode() if body is not None else None
            connection.request(method, path, data, {"content-type": kind} if data else {})
            answer = connection.getresponse()
            text = answer.read()
        except http.client.HTTPException as error:
            raise OSError(f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()
        if answer.status not in (200, 201):
            raise OSError(f"{path}: {answer.status}: {text.decode(errors='replace')[:300].strip()}")
        document = json.loads(text) if text[:1] == b"{" else {"text": text.decode()}
        assert isinstance(document, dict)
        return document

    def etcd(self, machine: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask one member, over etcd's JSON gateway."""
        return self._ask(f"{self.address(machine)}:2379", self._etcd, "POST", f"/v3/{path}", body or {}, 5)

    def member(self, machine: str) -> Member:
        """What the member on a machine says of itself."""
        said = self.etcd(machine, "maintenance/status")
        return Member(
            machine, said["header"]["member_id"], said.get("leader", "0"), int(said.get("raftIndex", 0)),
            said.get("isLearner", False),
        )  # fmt: skip

    def leader(self) -> str:
        """The machine of etcd's leader."""
        members = [self.member(machine) for machine in self.control_planes]
        [found] = [member.machine for member in members if member.id == member.leader]
        return found

    def lead(self, machine: str) -> None:
        """Make the member on a machine the leader."""
        if (now := self.leader()) != machine:
            self.etcd(now, "maintenance/transfer-leadership", {"targetID": self.member(machine).id})
        assert self.leader() == machine

    def holder(self) -> str:
        """The control plane that has the endpoint's address."""
        address = self.endpoint.rpartition(":")[0]
        [found] = [
            name for name in self.control_planes if f" {address}/" in on(self.lab, name, "ip -4 address")
        ]
        return found

    # -- being whole ----------------------------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """What keeps the cluster from being whole: each API server, each member, each Node, each static Pod."""
        found: list[str] = []

        def guarded(look: Callable[[str], Iterable[str]], machine: str) -> list[str]:
            try:
                return [f"{machine}: {problem}" for problem in look(machine)]
            except (OSError, KeyError, ValueError) as error:
                return [f"{machine}: {error}"]

        with ThreadPoolExecutor(8) as pool:
            for problems in pool.map(lambda name: guarded(self._plane_problems, name), self.control_planes):
                found += problems
        return found or guarded(lambda _: self._cluster_problems(), "cluster")

    def _plane_problems(self, machine: str) -> Iterator[str]:
        self.api("/readyz", machine=machine, timeout=3)
        member = self.member(machine)
        if member.leader == "0":
            yield "its member knows no leader"
        if member.learner:
            yield "its member is a learner"

    def _cluster_problems(self) -> Iterator[str]:
        members = self.etcd(self.control_planes[0], "cluster/member/list")["members"]
        names = sorted(str(member.get("name", "unstarted")) for member in members)
        if names != sorted(self.control_planes):
            yield f"etcd's members are {', '.join(names)}"
        nodes = self.api("/api/v1/nodes")["items"]
        found = sorted(node["metadata"]["name"] for node in nodes)
        if found != sorted([*self.control_planes, *self.workers]):
            yield f"the Nodes are {', '.join(found)}"
        for node in nodes:
            if _condition(node) != "True":
                yield f"Node {node['metadata']['name']} is not Ready"
        pods = self.api("/api/v1/namespaces/kube-system/pods")["items"]
        for pod in pods:
            if not _serves(pod):
                yield f"pod {pod['metadata']['name']} is not Ready"

    def healed(self, deadline: float = HEAL_DEADLINE) -> Healed:
        """Wait until the cluster is whole, which nobody helps with."""
        started = time.monotonic()
        last = ""
        while problems := self.problems():
            assert time.monotonic() < started + deadline, "\n".join(problems)
            last = problems[-1]
            time.sleep(0.25)
        return Healed(time.monotonic() - started, last)

    def verify(self, acknowledged: Iterable[str]) -> int:
        """Every acknowledged write is there, as every API server sees it, and all members hold the same data.

        Returns how many there are in all.
        """
        wanted = set(acknowledged)
        for machine in self.control_planes:
            stored = self.stored(machine)
            assert not wanted - stored.keys(), f"lost, says {machine}: {sorted(wanted - stored.keys())[:20]}"
            wrong = [name for name in wanted if stored[name] != name]
            assert not wrong, f"other content, says {machine}: {wrong[:20]}"
        self._same_data()
        return len(stored)

    def stored(self, machine: str) -> dict[str, str]:
        found: dict[str, str] = {}
        more = ""
        while True:
            page = self.api(
                f"/api/v1/namespaces/{NAMESPACE}/configmaps?limit=1000&continue={more}",
                machine=machine,
                timeout=30,
            )
            found |= {
                item["metadata"]["name"]: (item.get("data") or {}).get("value", "") for item in page["items"]
            }
            if not (more := page["metadata"].get("continue", "")):
                return found

    def _same_data(self) -> None:
        """The members' hashes of all keys at one revision are equal (etcd's HashKV), once all have it."""
        deadline = time.monotonic() + 20
        while True:
            revision = min(
                int(self.etcd(machine, "maintenance/status")["header"]["revision"])
                for machine in self.control_planes
            )
            said = [
                self.etcd(name, "maintenance/hash", {"revision": revision}) for name in self.control_planes
            ]
            # Members compact on their own time: only hashes over the same revisions can be compared.
            hashes = {(row["hash"], row.get("compact_revision", "0")) for row in said}
            if len(hashes) == 1:
                return
            assert time.monotonic() < deadline, f"members differ at revision {revision}: {said}"
            time.sleep(0.5)

    # -- load -----------------------------------------------------------------------------------------------------

    @contextmanager
    def load(
        self, what: str, directory: Path, *, prefix: str = "", urls: Sequence[str] = ()
    ) -> Iterator[Running]:
        """Requests through the endpoint, from the first worker's network, until the context ends."""
        pid = self.lab.machine(self.workers[0]).pid()
        out = directory / f"{what}-{prefix or 'all'}-{random.randrange(10**9)}.json"
        running = Running(
            Load(
                what,
                self.config,
                out,
                server=f"https://{self.endpoint}",
                network_of=pid,
                prefix=prefix,
                urls=urls,
            )
        )
        try:
            running.load.started(60)
            yield running
            running.stop()
        finally:
            running.load.kill()

    # -- pods -----------------------------------------------------------------------------------------------------

    def place_pods(self) -> list[str]:
        """Let a pod on each worker, and a Service over them, answer HTTP; their URLs, and those of the Service's
        NodePort on each worker."""
        network = self.api(f"/apis/apps/v1/namespaces/kube-system/daemonsets/{IMAGE_DAEMON_SET}")
        image = network["spec"]["template"]["spec"]["containers"][0]["image"]
        labels = {"app": "answer"}
        pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
        for path, body in (
            ("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}}),
            (
                f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
                _deployment(image, labels, len(self.workers)),
            ),
            (
                f"/api/v1/namespaces/{NAMESPACE}/services",
                {
                    "metadata": {"name": "answer"},
                    "spec": {
                        "type": "NodePort",
                        "selector": labels,
                        "ports": [{"port": 80, "targetPort": 8080, "nodePort": NODE_PORT}],
                    },
                },
            ),
        ):
            self._create(path, body)
        deadline = time.monotonic() + 60
        while True:
            ready = [
                pod
                for pod in self.api(f"{pods}?labelSelector=app%3Danswer")["items"]
                if _condition(pod) == "True"
            ]
            if len(ready) == len(self.workers):
                break
            assert time.monotonic() < deadline, f"{len(ready)} of {len(self.workers)} pods are Ready"
            time.sleep(0.25)
        service = self.api(f"/api/v1/namespaces/{NAMESPACE}/services/answer")["spec"]["clusterIP"]
        return [
            *(f"http://{pod['status']['podIP']}:8080/healthz" for pod in ready),
            f"http://{service}/healthz",
            *(f"http://{self.address(worker)}:{NODE_PORT}/healthz" for worker in self.workers),
        ]

    def _create(self, path: str, body: dict[str, Any]) -> None:
        """Make an object that is not there; the namespace's service account, which pods need, comes a moment later
        than it."""
        deadline = time.monotonic() + 20
        while True:
            try:
                self.api(f"{path}/{body['metadata']['name']}")
                return
            except OSError as error:
                assert " 404: " in str(error), str(error)
            try:
                self.api(path, method="POST", body=body)
                return
            except OSError as error:
                assert time.monotonic() < deadline, str(error)
                time.sleep(0.1)


class Running:
    """A load under way. `book` is there when it has been stopped."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self._book: Book | None = None

    @property
    def book(self) -> Book:
        assert self._book is not None, "it still runs"
        return self._book

    def stop(self) -> Book:
        self._book = self._book or self.load.stop()
        return self._book


def _condition(obj: dict[str, Any], kind: str = "Ready") -> str:
    """A condition of a Node or Pod; a pod that has done its work has no more to be ready for."""
    status = obj.get("status") or {}
    if status.get("phase") == "Succeeded":
        return "True"
    return next((str(row["status"]) for row in status.get("conditions") or [] if row["type"] == kind), "")


def _serves(pod: dict[str, Any]) -> bool:
    """Whether a pod is Ready. Of a static one its containers run: the kubelet counts it as Ready a minute and more
    later (at its next look at the pod), and API servers and etcd are asked directly."""
    if "kubernetes.io/config.mirror" not in (pod["metadata"].get("annotations") or {}):
        return _condition(pod) == "True"
    containers = pod["status"].get("containerStatuses") or []
    return bool(containers) and all("running" in container["state"] for container in containers)


def _deployment(image: str, labels: dict[str, str], replicas: int) -> dict[str, Any]:
    container = {
        "name": "answer", "image": image, "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "kubewright.probe", "serve", "--port", "8080"],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
    }  # fmt: skip
    apart = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels}}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}}
    return {
        "metadata": {"name": "answer"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels}, "spec": {"affinity": affinity, "containers": [container]},
            },
        },
    }  # fmt: skip


def whole(lab: Lab, planes: Sequence[str], workers: Sequence[str]) -> HaCluster:
    """A lab's cluster, when all members, API servers, Nodes and Pods are well and none is left of others."""
    cluster = HaCluster(lab, lab.places.kubeconfig, planes, workers)
    cluster.healed()
    return cluster


# -- making them --------------------------------------------------------------------------------------------------


def apply(kubewright: Kubewright, lab: Lab, file: Path, *options: str, code: int = 0) -> Run:
    """Bring a lab to what a file says; the kubeconfig that it writes is the lab's own."""
    written_to = ("--kubeconfig", lab.places.kubeconfig, "--no-merge")
    return kubewright("apply", "-f", file, *written_to, *options, code=code, timeout=600)


class Factory:
    """A lab whose machines become a cluster: `apply` with other control planes makes it grow and shrink."""

    def __init__(
        self, kubewright: Kubewright, endpoint: str, directory: Path, *, control_planes: int
    ) -> None:
        field, self._balancers = ENDPOINTS[endpoint]
        self._kubewright = kubewright
        self._directory = directory
        kubewright("lab", "down", HA)
        kubewright(
            "lab", "up", "--name", HA, "--control-planes", str(control_planes),
            "--workers", str(2 + len(self._balancers)), "--machines-only",
        )  # fmt: skip
        self.lab = open_lab(HA)
        vip = str(self.lab.plan.subnet[200])
        self._endpoint = {name: value.format(vip=vip) for name, value in field.items()}
        self.config = directory / "kubeconfig"

    def file(self, control_planes: Sequence[str]) -> Path:
        """A cluster.yaml with these control planes, both workers and the load balancers."""
        document = yaml.safe_load(self.lab.places.cluster_yaml.read_text())
        hosts = []
        for host in document["hosts"]:
            if host["name"] in self._balancers:
                hosts.append(host | {"roles": ["load-balancer"]})
            elif host["name"] in control_planes or host["roles"] == ["worker"]:
                hosts.append(host)
        return written(
            self._directory / "cluster.yaml", document | {"hosts": hosts, "endpoint": self._endpoint}
        )

    def apply(self, control_planes: Sequence[str]) -> HaCluster:
        """Make the cluster have these control planes."""
        self._kubewright(*self._apply(control_planes), timeout=600)
        return self.cluster(control_planes)

    def start(self, control_planes: Sequence[str]) -> subprocess.Popen[str]:
        """An `apply` that is for the caller to end."""
        return self._kubewright.start(*self._apply(control_planes), out=subprocess.DEVNULL)

    def _apply(self, control_planes: Sequence[str]) -> tuple[str | Path, ...]:
        return ("apply", "-f", self.file(control_planes), "--kubeconfig", self.config, "--no-merge")

    def cluster(self, control_planes: Sequence[str]) -> HaCluster:
        """The cluster, which has these control planes."""
        return HaCluster(self.lab, self.config, control_planes, ["w1", "w2"])

    def down(self) -> None:
        self._kubewright("lab", "down", HA, code=None)
