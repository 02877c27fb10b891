"""Preflight of the node commands: look at the host, decide, and say all findings at once."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from kubewright.errors import ConfigError, ExitCode, HostError, KubewrightError
from kubewright.events import Events
from kubewright.hosts import Host
from kubewright.model.kernel_modules import modules_argument
from kubewright.model.node_checks import KERNEL_OPTIONS, PROGRAMS, check_node
from kubewright.model.node_look import LOOK, NodeLook, parse_look
from kubewright.model.node_preflight import (
    CheckFinding,
    ExternalEtcd,
    NodeChecks,
    for_facts,
    judged,
    not_root,
)
from kubewright.model.version import Version
from kubewright.model.versions import facts_for
from kubewright.phases.node import Node

_OLDEST_ETCD = Version(3, 2, 18)
"""The oldest external etcd that kubeadm 1.20 takes (its constant MinExternalEtcdVersion)."""
_ETCD_ATTEMPTS, _ETCD_TIMEOUT = 3, 10.0
_UNITS = ("kubelet", "firewalld")


class PreflightError(HostError):
    """Checks that failed; `findings` has all of them, warnings too."""

    exit_code = ExitCode.HOST_NOT_FIT

    def __init__(self, command: str, host: str, findings: Sequence[CheckFinding]) -> None:
        errors = [one for one in findings if one.error]
        names = list(dict.fromkeys(one.check for one in errors))
        count = "one check" if len(errors) == 1 else f"{len(errors)} checks"
        super().__init__(
            f"{host} is not fit for {command}: {count} failed: {', '.join(names)}",
            hint=f"mend them; or, where you know better: --ignore-preflight-errors={','.join(names)}",
            host=host,
            evidence=[line for one in errors for line in (str(one), *one.details)],
        )
        self.findings = tuple(findings)


async def run_preflight(
    node: Node,
    checks: NodeChecks,
    *,
    events: Events,
    ignore: Collection[str] = (),
    dry: bool = False,
    also: Sequence[CheckFinding] = (),
) -> list[CheckFinding]:
    """Run the checks of one command on its host; what is only worth a warning is warned of and returned.

    `ignore` is `ignored_checks(...)`: the names, in lower case, of checks whose errors are warnings; `also` are
    the caller's own findings. When all else is well, the images of `checks` are pulled that the runtime does not
    have; not with `dry`. Raises `PreflightError` with all errors at once.
    """
    async with events.phase("preflight", "check the host", host=node.name) as activity:
        if not node.facts.is_root:
            _say(checks.command, node.name, judged([not_root()], ignore), events)
        findings = judged([*also, *await look_and_check(node, checks)], ignore)
        _say(checks.command, node.name, findings, events)
        if checks.images and not dry and checks.pull_policy != "Never":
            activity.progress("pull images")
            pulled = await pull_images(
                node.host, checks.cri_socket, checks.images, always=checks.pull_policy == "Always",
                at_once=not checks.pull_one_by_one, say=activity.progress,
            )  # fmt: skip
            _say(checks.command, node.name, judged(pulled, ignore), events)
            findings += pulled
        activity.summary(
            "the host is fit" if not findings else f"the host is fit, with {len(findings)} warnings"
        )
    return findings


def _say(command: str, host: str, findings: Sequence[CheckFinding], events: Events) -> None:
    """Warn of warnings; raise where there are errors."""
    for one in findings:
        if not one.error:
            events.warn(str(one), host=host)
    if any(one.error for one in findings):
        raise PreflightError(command, host, findings)


async def look_and_check(node: Node, checks: NodeChecks) -> list[CheckFinding]:
    """All findings but those of the images, with nothing changed and nobody told."""
    if not (checks.machine or checks.system or checks.control_plane):
        return []
    look = await look_at(node.host, checks)
    if checks.facts is None and look.kubelet_version:
        with suppress(ConfigError):  # too old or too new: KubeletVersion says so
            checks = for_facts(checks, facts_for(look.kubelet_version))
    findings = check_node(checks, node.facts, look)
    async with asyncio.TaskGroup() as group:
        runtime = group.create_task(_runtime(node.host, checks))
        etcd = group.create_task(_external_etcd(node.host, checks.etcd))
    return [*findings, *runtime.result(), *etcd.result()]


async def look_at(host: Host, checks: NodeChecks) -> NodeLook:
    """One look, in one round trip."""
    done = await host.shell(
        LOOK, "\n".join(checks.paths), " ".join(PROGRAMS), " ".join(_UNITS), " ".join(checks.settings),
        "|".join(KERNEL_OPTIONS), checks.node_name or "localhost", modules_argument(checks.modules),
        check=False,
    )  # fmt: skip
    return parse_look(done.stdout.decode(errors="replace"))


async def _runtime(host: Host, checks: NodeChecks) -> list[CheckFinding]:
    from kubewright.clients.cri import find_socket, open_cri

    if not checks.machine:
        return []
    try:
        async with open_cri(host, checks.cri_socket or await find_socket(host)) as cri:
            await cri.check()
    except HostError as error:
        said = "; ".join((error.message, *error.evidence[:1]))
        return [CheckFinding("CRI", said, error.hint, details=error.evidence[1:])]
    return []


async def pull_images(
    host: Host,
    socket: str,
    images: Sequence[str],
    *,
    always: bool = False,
    at_once: bool = False,
    say: Callable[[str], None] | None = None,
) -> list[CheckFinding]:
    """Pull what the runtime does not have (with `always`, everything); one ImagePull for each that failed.

    `say`, where it is given, is called with a line about what is going on.
    """
    from kubewright.clients.cri import find_socket, open_cri

    failures: list[CheckFinding] = []
    try:
        async with open_cri(host, socket or await find_socket(host)) as cri:

            async def pull(image: str) -> None:
                try:
                    if always or await cri.image(image) is None:
                        if say is not None:
                            say(f"pull {image}")
                        await cri.pull(image)
                except HostError as error:
                    failures.append(CheckFinding("ImagePull", error.message, error.hint))

            if at_once:
                async with asyncio.TaskGroup() as group:
                    for image in images:
                        group.create_task(pull(image))
            else:
                for image in images:
                    await pull(image)
    except HostError as error:
        failures.append(CheckFinding("ImagePull", error.message, error.hint))
    return failures


async def _external_etcd(host: Host, etcd: ExternalEtcd | None) -> list[CheckFinding]:
    """ExternalEtcdVersion: each endpoint is asked from the host itself, as the API server will."""
    if etcd is None:
        return []
    name = "ExternalEtcdVersion"
    paths = [path for path in (etcd.ca_file, etcd.cert_file, etcd.key_file) if path]
    files = await host.read_files(paths)
    if len(files) < len(paths):
        return []  # ExternalEtcdClientCertificates names the missing ones
    findings = []
    for endpoint in etcd.endpoints:
        try:
            version = await _etcd_version(host, endpoint, etcd, files)
        except (KubewrightError, OSError, ValueError, TimeoutError) as error:
            why = str(error) or "no answer in time"
            findings.append(
                CheckFinding(name, f"{endpoint} does not say its version: {why}", "is etcd up there?")
            )
            continue
        if version < _OLDEST_ETCD:
            findings.append(
                CheckFinding(
                    name, f"etcd at {endpoint} is {version}; {_OLDEST_ETCD} is the oldest", "upgrade it"
                )
            )
    return findings


async def _etcd_version(host: Host, endpoint: str, etcd: ExternalEtcd, files: dict[str, bytes]) -> Version:
    import aiohttp

    from kubewright.clients.server import Server

    url = urlsplit(endpoint)
    context: ssl.SSLContext | bool = True
    if url.scheme == "https" and etcd.ca_file:
        cert, key = files.get(etcd.cert_file, b""), files.get(etcd.key_file, b"")
        context = Server("", files[etcd.ca_file], cert, key).ssl_context()
    last: Exception = TimeoutError("no answer in time")
    for _ in range(_ETCD_ATTEMPTS):
        try:
            async with (
                asyncio.timeout(_ETCD_TIMEOUT),
                host.forward_tcp(url.hostname or "", url.port or 2379) as (address, port),
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
                session.get(
                    f"{url.scheme}://{f'[{address}]' if ':' in address else address}:{port}/version",
                    headers={"Host": url.netloc}, server_hostname=url.hostname if url.scheme == "https" else None,
                ) as response,
            ):  # fmt: skip
                if response.status < 500:
                    return Version.parse(
                        str(json.loads(await response.read())["etcdserver"]), field="etcdserver"
                    )
                last = ValueError(f"it answers {response.status}")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            last = ValueError(str(error) or "no answer in time")
        except (KeyError, TypeError) as error:
            raise ValueError("its answer is not etcd's") from error
    raise last
