"""Asking an API server or a member of etcd how it is: a bounded time, and words in place of an error."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from typing import TypeVar

from kubewright.clients.etcd import EtcdClient, Member
from kubewright.clients.kube import KubeClient
from kubewright.errors import ApiError, KubewrightError, leaves
from kubewright.model.status_api import ApiAnswer
from kubewright.model.status_etcd import ListedMember, MemberAnswer, MemberWords

T = TypeVar("T")

ASK = 4.0
"""Seconds in which a question about health must be answered."""
LOOK = 8.0
"""Seconds for what takes a host several commands to find out, its certificates for example."""
_REASON = re.compile(r"\[(?:Errno -?\d+ ?)?(.+)\]$")
_NOT_TRUSTED = re.compile(r"certificate verify failed: (.+?)\.?(?: \(_ssl.*)?$")
_TUNNEL_ENDS = re.compile(
    r"\[None\]|Server disconnected|Connection reset|Connection lost|EOF occurred|ConnectionReset"
)


async def bounded(question: Awaitable[T], seconds: float = ASK) -> tuple[T | None, str]:
    """The answer, or None and why there is none."""
    try:
        async with asyncio.timeout(seconds):
            return await question, ""
    except TimeoutError:
        return None, f"no answer within {seconds:g} s"
    except (KubewrightError, ExceptionGroup) as error:
        first, *_ = leaves(error)
        if not isinstance(first, KubewrightError | TimeoutError):
            raise
        return None, reason(str(first))


def reason(message: str) -> str:
    """What a client says of a connection that did not come about, without its own addresses and objects."""
    text = " ".join(message.split())
    if "Connection timeout" in text or text == "no answer in time":
        return f"no answer within {ASK:g} s"
    if _TUNNEL_ENDS.search(text):
        return "nothing listens there"
    if refused := _NOT_TRUSTED.search(text):
        return f"its certificate is not accepted: {refused[1]}"
    if "Connect call failed" in text:
        return "no connection can be made"
    found = _REASON.search(text)
    if "Cannot connect to host" in text and found:
        return found[1]
    return text


async def ask_api(kube: KubeClient, name: str) -> tuple[ApiAnswer, KubewrightError | None]:
    """What an API server says of its version and readiness, and the error where it says nothing to us.

    One that does not know us, or lets us see nothing, answers all the same. Raises nothing.
    """
    url = kube.server.url
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        async with asyncio.timeout(ASK):
            version = await kube.json(
                "GET", "/version", timeout=ASK
            )  # opens the connection, which counts for nothing
            started = loop.time()
            readyz = await _readyz(kube)
            took = (loop.time() - started) * 1000
    except TimeoutError:
        late = f"no answer within {ASK:g} s"
        return ApiAnswer(name, url, error=late), ApiError(f"GET {url}/readyz: {late}")
    except KubewrightError as error:
        said = reason(error.message.partition(": ")[2] or error.message)
        known = isinstance(error, ApiError) and error.status in (401, 403)
        took = (loop.time() - started) * 1000
        return ApiAnswer(name, url, took if known else None, error=said), error
    return ApiAnswer(name, url, took, str(version.get("gitVersion", "")), readyz), None


async def _readyz(kube: KubeClient) -> str:
    """The readiness checks' text; empty for a user who may not see it."""
    try:
        return await kube.readyz(timeout=ASK)
    except ApiError as error:
        if error.status in (401, 403):
            return ""
        raise


async def ask_member(etcd: EtcdClient, url: str, where: str) -> MemberAnswer:
    """What a member of etcd says of itself and of the others. `etcd` has this member alone. Raises nothing.

    What needs a majority is not waited for longer than the rest: without one there is no answer.
    """
    async with asyncio.TaskGroup() as group:
        status = group.create_task(bounded(etcd.status(url)))
        health = group.create_task(bounded(etcd.health(url)))
        members = group.create_task(bounded(etcd.members(linearizable=False)))
        alarms = group.create_task(bounded(etcd.alarms()))
    words, error = status.result()
    if words is None:
        return MemberAnswer(where, error=reason(error.removeprefix(f"etcd at {url}: ")))
    raised: dict[int, tuple[str, ...]] = {}
    for alarm in alarms.result()[0] or ():
        raised[alarm.member_id] = (*raised.get(alarm.member_id, ()), alarm.kind)
    ill, late = health.result()
    return MemberAnswer(
        where,
        MemberWords(
            words.member_id, words.version, words.leader, words.is_learner, words.db_size, words.db_size_in_use,
            words.raft_term, words.raft_index, words.errors,
        ),
        ill=late if ill is None else ill.removeprefix(f"etcd at {url}: "),
        listed=tuple(map(_listed, members.result()[0] or ())),
        alarms=raised,
    )  # fmt: skip


def _listed(member: Member) -> ListedMember:
    return ListedMember(member.id, member.name, member.peer_urls, member.client_urls, member.is_learner)
