"""Diagnoses of the kubelet: why it does not run, its certificate, and whom it asks (P22, P23, P30, P53)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple
from urllib.parse import urlsplit

from kubewright.errors import ConfigError
from kubewright.model import kubeconfig, x509
from kubewright.model.doctor.facts import DoctorFacts, NodeFacts
from kubewright.model.doctor.finding import Finding, Fix, Severity
from kubewright.model.doctor.look import KUBELET_CONF, Look
from kubewright.model.kubeconfig import KUBELET_CLIENT_CURRENT
from kubewright.model.kubelet import CONFIG_PATH
from kubewright.model.node import API_PORT, host_port, split_endpoint
from kubewright.model.objects import read_mapping
from kubewright.model.status import node_status, ready_for, span


class Reason(NamedTuple):
    """Why a kubelet ends, by what it says last."""

    pattern: re.Pattern[str]
    pitfall: str
    words: str
    mend: tuple[str, ...]


START_KUBELET = "start-kubelet"
"""The fix that starts a kubelet that was stopped or disabled."""
_RESTART = "systemctl restart kubelet"
REASONS = tuple(
    Reason(re.compile(pattern, re.IGNORECASE), pitfall, words, mend)
    for pattern, pitfall, words, mend in (
        (
            "running with swap on is not supported",
            "P16",
            "swap is on",
            ("swapoff -a, and take swap out of /etc/fstab", _RESTART),
        ),
        (
            "kubelet cgroup driver: .* is different from",
            "P48",
            "its cgroup driver is not the runtime's",
            (f"set cgroupDriver in {CONFIG_PATH} to the runtime's", _RESTART),
        ),
        (
            "failed to run kubelet.*cgroup hierarchy not unified",
            "P49",
            "its CPU and memory are accounted for apart",
            ("kubewright doctor --fix", _RESTART),
        ),
        (
            "client certificate .*is expired|client certificate has expired",
            "P22",
            "its client certificate has expired",
            (
                "kubewright init phase kubeconfig kubelet (on a control plane), or join the node again",
                _RESTART,
            ),
        ),
        (
            "unable to load bootstrap kubeconfig",
            "P23",
            "its kubeconfig does not work, and there is no token for a new one",
            ("kubewright join: the node gets a new certificate",),
        ),
        (
            "failed to load kubelet config file|failed to decode|strict decoding error|invalid configuration",
            "",
            "its configuration cannot be read",
            (f"look at {CONFIG_PATH}", _RESTART),
        ),
        (
            "unknown flag|failed to parse kubelet flag",
            "",
            "it does not know one of its flags",
            ("look at /var/lib/kubelet/kubeadm-flags.env and /etc/default/kubelet", _RESTART),
        ),
        (
            r"unable to determine runtime API version|validate CRI v1|container runtime is down|"
            r"failed to run kubelet.*\.sock",
            "P15",
            "it cannot reach the container runtime",
            ("systemctl restart containerd", _RESTART),
        ),
        (
            "exec format error",
            "P13",
            "its program is for another architecture",
            ("install the host's own kubelet",),
        ),
        (
            "no space left on device",
            "P20",
            "the disk is full",
            ("make room, then: systemctl restart kubelet",),
        ),
        (
            "address already in use",
            "P44",
            "a port that it needs is taken",
            ("ss -ltnp | grep -E ':(10248|10250)'",),
        ),
    )
)
_FATAL = re.compile(r"^F\d{4} |failed to run kubelet|command failed|panic:|error:", re.IGNORECASE)


_SOON = timedelta(seconds=15)
"""A kubelet that has run for as long has got through its start, in which those end that end again and again."""
_REPORTS = timedelta(seconds=40)
"""A kubelet that was started has told by then that its node is Ready: it says so every 10 s."""
_OLD_NEWS = timedelta(seconds=20)
"""What a kubelet has said of its node may have been mended for as long; it says it anew every 10 s."""


def restless(look: Look) -> timedelta:
    """For how much longer nobody knows whether a kubelet that runs now, and has ended repeatedly, ends again."""
    unit = look.kubelet
    if unit is None or unit.active != "active" or unit.restarts < 2 or unit.up is None:
        return timedelta()
    return max(timedelta(), _SOON - unit.up)


def dead(facts: DoctorFacts) -> Iterator[Finding]:
    """A kubelet that does not run, or ends again and again."""
    for node, look in facts.looks():
        unit = look.kubelet
        if not look.joined or unit is None:
            continue
        runs = unit.active == "active"
        loops = restless(look) > timedelta()
        if runs and not loops:
            continue
        stopped = unit.file == "masked" or (unit.active == "inactive" and unit.result in ("", "success"))
        reason, lines = _why(look) if unit.exists else (None, ())
        state = f"kubelet.service: {unit.words if unit.exists else 'there is no such unit'}"
        if unit.restarts:
            state += f", restarted {unit.restarts} times"
        how = (
            "is stopped"
            if unit.active == "inactive"
            else "ends again and again"
            if loops or unit.restarts
            else "does not run"
        )
        mend = (
            ("systemctl enable --now kubelet",)
            if unit.active == "inactive"
            else ("journalctl -u kubelet -n 50",)
        )
        fixes = (
            (Fix(START_KUBELET, "start the kubelet, and enable it", node.name),)
            if stopped and unit.exists and unit.file != "masked"
            else ()
        )
        if unit.file == "masked":
            how, mend = "is masked", ("systemctl unmask kubelet && systemctl enable --now kubelet",)
            reason = None
        yield Finding(
            "kubelet-stopped" if stopped else "kubelet-dead",
            Severity.ERROR,
            f"the kubelet {how}{f': {reason.words}' if reason else ''}",
            hosts=(node.name,),
            pitfall="P53" if stopped else reason.pitfall if reason else "",
            evidence=(state, *lines),
            breaks="the node becomes NotReady; its Pods are not watched, and are moved after 5 minutes",
            mend=reason.mend if reason else mend,
            fixes=fixes,
        )


def disabled(facts: DoctorFacts) -> Iterator[Finding]:
    """A kubelet that runs, and will not after the host's next start."""
    for node, look in facts.looks():
        unit = look.kubelet
        if not look.joined or unit is None or unit.active != "active" or unit.file != "disabled":
            continue
        yield Finding(
            "kubelet-disabled",
            Severity.WARNING,
            "the kubelet does not start with the host",
            hosts=(node.name,),
            pitfall="P53",
            evidence=("kubelet.service: disabled",),
            breaks="after a restart of the host its node is NotReady",
            mend=("systemctl enable kubelet",),
            fixes=(Fix(START_KUBELET, "enable the kubelet", node.name),),
        )


def _why(look: Look) -> tuple[Reason | None, tuple[str, ...]]:
    """The reason that its journal gives, and the line that says so; none for a unit that was stopped."""
    if (
        look.kubelet is not None
        and look.kubelet.active == "inactive"
        and look.kubelet.result in ("", "success")
    ):
        return None, ()
    for line in reversed(look.journal):  # what it said before may have been mended
        for reason in REASONS:
            if reason.pattern.search(line):
                return reason, (line,)
    fatal = [line for line in look.journal if _FATAL.search(line)]
    return None, tuple((fatal or list(look.journal))[-2:])


def not_ready(facts: DoctorFacts) -> Iterator[Finding]:
    """A node that its object calls not Ready, for a reason that nothing else tells (P53)."""
    objects = facts.asked.objects
    starting = {
        facts.node_name(node)
        for node, look in facts.looks()
        if look.kubelet is not None and look.kubelet.up is not None and look.kubelet.up < _REPORTS
    }
    serving = {
        facts.node_name(node)
        for node, look in facts.looks()
        if look.kubelet is not None and look.kubelet.active == "active"
        if node.runtime is not None and node.runtime.answers and node.runtime.ready
    }
    for item in objects.nodes if objects else ():
        status = node_status(item, facts.now)
        if status.ready or not facts.settled(item) or status.name in starting:
            continue
        since = ready_for(item, facts.now)
        if status.name in serving and since is not None and since < _OLD_NEWS:
            continue
        yield Finding(
            "node-not-ready",
            Severity.ERROR,
            "the node is not Ready",
            hosts=(status.name,),
            pitfall="P53",
            evidence=status.problems,
            breaks="its Pods still say Running, as last reported; most are moved after 5 minutes",
            mend=(
                f"look at it from the node itself: kubewright doctor --host {status.address or status.name}",
            ),
        )


# -- certificate and kubeconfig ---------------------------------------------------------------------------------


def certificate(facts: DoctorFacts) -> Iterator[Finding]:
    """A client certificate that has ended, or that nobody rotates (P22, P23)."""
    for node, look in facts.looks():
        if not look.joined:
            continue
        document = _config(look)
        embedded = kubeconfig.embedded(_user(document), "client-certificate-data") if document else b""
        path = KUBELET_CONF if embedded else KUBELET_CLIENT_CURRENT
        pem = embedded or look.certs.get(KUBELET_CLIENT_CURRENT, b"")
        now = look.now or facts.now
        try:
            cert = x509.load_cert(pem)
        except ConfigError:
            continue  # without one the kubelet does not start, and says why
        start, end = cert.not_valid_before_utc, cert.not_valid_after_utc
        yield from _of_certificate(node, path, bool(embedded), look, start, end, now)


def _of_certificate(
    node: NodeFacts, path: str, embedded: bool, look: Look, start: datetime, end: datetime, now: datetime
) -> Iterator[Finding]:
    if end <= now:
        yield Finding(
            "kubelet-certificate",
            Severity.ERROR,
            "the kubelet's client certificate has expired",
            hosts=(node.name,),
            pitfall="P22",
            evidence=(f"{path}: ended {end:%Y-%m-%d %H:%M} UTC, {span(now - end)} ago",),
            breaks="the API server refuses the kubelet: the node becomes NotReady and gets no Pods",
            mend=(
                "on a control plane: kubewright init phase kubeconfig kubelet && systemctl restart kubelet",
                "on a worker: kubewright reset, then kubewright join",
            ),
        )
        return
    rotates = (
        look.kubelet_config.get("rotateCertificates") is True
        or look.kubelet_flags.get("rotate-certificates") == "true"
    )
    left = (end - now) / (end - start)
    # The kubelet asks for a new one when 10 to 30 percent of its life are left.
    if (
        (embedded and end - now < timedelta(days=30))
        or (not rotates and end - now < timedelta(days=30))
        or left < 0.05
    ):
        why = (
            "its kubeconfig holds a certificate of its own"
            if embedded
            else ("rotateCertificates is not set" if not rotates else "it should have been renewed by now")
        )
        yield Finding(
            "kubelet-rotation",
            Severity.WARNING,
            "the kubelet's client certificate does not rotate",
            hosts=(node.name,),
            pitfall="P23",
            evidence=(f"{path}: ends {end:%Y-%m-%d %H:%M} UTC, in {span(end - now)}; {why}",),
            breaks="when it ends, the node becomes NotReady",
            mend=(
                f"let {KUBELET_CONF} name {KUBELET_CLIENT_CURRENT}, and set rotateCertificates in {CONFIG_PATH}",
                "kubectl get csr: approve what waits",
            ),
        )


def _config(look: Look) -> dict[str, object]:
    return read_mapping(look.files.get(KUBELET_CONF, "")) or {}


def _user(document: dict[str, object]) -> dict[str, object]:
    try:
        return kubeconfig.current(document)[1]
    except (ConfigError, KeyError, TypeError, AttributeError):
        return {}


def server_of(look: Look) -> str:
    """The URL by which the kubelet reaches the API; empty where its kubeconfig cannot be read."""
    try:
        return str(kubeconfig.current(_config(look))[0].get("server") or "").rstrip("/")
    except (ConfigError, KeyError, TypeError, AttributeError):
        return ""


def server(facts: DoctorFacts) -> Iterator[Finding]:
    """A kubelet that asks one API server, although the cluster has an endpoint (P30)."""
    wanted = endpoint_of(facts)
    if not wanted:
        return
    for node, look in facts.looks():
        url = server_of(look)
        if not url or where(url) == wanted or (node.control_plane and asks_itself(look, url)):
            continue
        answers = {one.url.rstrip("/"): one for one in (*facts.status.servers, *facts.status.endpoint)}
        one = answers.get(url)
        lost = one is not None and not one.answers
        yield Finding(
            "kubelet-server",
            Severity.ERROR if lost else Severity.WARNING,
            "the kubelet asks one API server, and not the cluster's endpoint",
            hosts=(node.name,),
            pitfall="P30",
            evidence=(
                f"{KUBELET_CONF}: server: {url}",
                f"the endpoint is {wanted}",
                *((f"{url}: {one.detail}",) if one is not None and lost else ()),
            ),
            breaks="the node is NotReady while that server is away"
            if lost
            else "when that server dies, so does the node",
            mend=(
                f"set server: https://{wanted} in {KUBELET_CONF}",
                _RESTART,
                "or: kubewright apply -f cluster.yaml",
            ),
        )


def asks_itself(look: Look, url: str) -> bool:
    """Whether a control plane's kubelet asks its own API server, as newer versions have it (kubeadm's feature
    ControlPlaneKubeletLocalMode)."""
    own = {address.partition("/")[0] for found in look.addresses.values() for address in found}
    return (urlsplit(url).hostname or "") in own and "kube-apiserver" in look.manifests


def endpoint_of(facts: DoctorFacts) -> str:
    """The cluster's endpoint as `host:port`; empty where it has none."""
    text = facts.cluster_endpoint
    try:
        return host_port(*split_endpoint(text)).lower() if text else ""
    except ConfigError:
        return ""


def where(url: str) -> str:
    """Host and port of a URL."""
    parts = urlsplit(url)
    try:
        return host_port(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else API_PORT))
    except ValueError:
        return ""


DIAGNOSES = (dead, disabled, certificate, server, not_ready)
