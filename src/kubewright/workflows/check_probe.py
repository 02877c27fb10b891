"""Running the checks: the probe program in each pod at once, and requests from this computer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import aiohttp

from kubewright.clients.kube import KubeClient
from kubewright.errors import ApiError
from kubewright.events import Activity
from kubewright.workflows.check_diagnosis import CANNOT_RUN
from kubewright.workflows.check_objects import CONTAINER
from kubewright.workflows.check_plan import REQUEST_SECONDS, Check, Place, Result, Source, request

_AT_ONCE = 8
"""Commands run in pods at the same time: each is a Python start on its node and a stream through the API."""
_PAUSE = 0.25
"""Seconds between two attempts at what failed."""
_CONFIRMATIONS = 3
_KUBELET = 10250


class Prober:
    """Runs checks in the pods of `names`."""

    def __init__(
        self, kube: KubeClient, namespace: str, names: Mapping[Source, str], phase: Activity
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._names = names
        self._phase = phase
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def run(self, checks: Sequence[Check], *, settle: float) -> list[Result]:
        """All checks, in their order.

        What fails is tried again for `settle` seconds, because endpoints and names take a moment to be known
        everywhere. What did not pass at the first try is then made once more, and all of it must pass at once: an
        address that answers now and then is broken, too. A busy computer gets a few chances for that.
        """
        results = {result.check: result for result in await self._round(checks)}
        loop = asyncio.get_running_loop()
        end = loop.time() + settle
        late = {check for check, result in results.items() if result.tries > 1}
        while (again := _to_repeat(results.values())) and loop.time() < end:
            failed = sum(1 for result in results.values() if not result.ok)
            self._phase.progress(f"{failed} of {len(checks)} checks have not passed yet: trying them again")
            await asyncio.sleep(_PAUSE)
            late.update(again)
            results |= {result.check: result for result in await self._round(again)}
        if confirm := [check for check in checks if check in late and results[check].ok]:
            self._phase.progress(f"making {len(confirm)} checks once more that needed several tries")
            for _ in range(_CONFIRMATIONS):
                for result in await self._round(confirm, tries=1):
                    results[result.check] = replace(result, tries=results[result.check].tries + 1)
                if all(results[check].ok for check in confirm):
                    break
        return [results[check] for check in checks]

    async def _round(self, checks: Iterable[Check], *, tries: int = 0) -> list[Result]:
        ordered = sorted(checks, key=_by_source)
        by_source = [(source, list(mine)) for source, mine in groupby(ordered, lambda check: check.source)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._from(source, mine, tries)) for source, mine in by_source]
        return [result for task in tasks for result in task.result()]

    async def _from(self, source: Source, checks: list[Check], tries: int) -> list[Result]:
        if source.place is Place.COMPUTER:
            return await self._from_here(checks)
        line = json.dumps(request(checks, tries=tries)).encode() + b"\n"
        command = ["python3", "-m", "kubewright.probe", "run"]
        # The probe makes its checks at once; what it may need beyond their time is its start on a busy node.
        timeout = REQUEST_SECONDS + 20
        try:
            async with self._slots:
                ended = await self._kube.exec(
                    self._namespace,
                    self._names[source],
                    command,
                    container=CONTAINER,
                    stdin=line,
                    timeout=timeout,
                )
        except ApiError as error:
            return [Result(check, False, CANNOT_RUN + error.message) for check in checks]
        answers = _answers(ended.stdout)
        if answers is None:
            said = " ".join(ended.stderr.decode(errors="replace").split())[-300:]
            why = f"exit code {ended.exit_code}{': ' if said else ''}{said}"
            return [Result(check, False, CANNOT_RUN + why) for check in checks]
        return [_result(check, answers.get(check.id)) for check in checks]

    async def _from_here(self, checks: list[Check]) -> list[Result]:
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        connector = aiohttp.TCPConnector(force_close=True, limit=_AT_ONCE)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            return list(await asyncio.gather(*(_get(session, check) for check in checks)))


def _to_repeat(results: Iterable[Result]) -> list[Check]:
    """What failed, with the passed checks of the same source and topic: a round counts as a whole."""
    results = list(results)
    failed = {(result.check.source, result.check.topic) for result in results if not result.ok}
    return [result.check for result in results if (result.check.source, result.check.topic) in failed]


def _by_source(check: Check) -> tuple[str, str]:
    return check.source.place, check.source.node


def _answers(output: bytes) -> dict[str, dict[str, object]] | None:
    """The probe's results by id; None where it has written none."""
    for line in output.decode(errors="replace").splitlines():
        try:
            rows = json.loads(line)
        except ValueError:
            continue
        if isinstance(rows, list):
            return {str(row.get("id")): row for row in rows if isinstance(row, dict)}
    return None


def _result(check: Check, answer: dict[str, object] | None) -> Result:
    if answer is None:
        return Result(check, False, "the probe did not answer this one")
    seconds, tries = answer.get("seconds"), answer.get("tries")
    return Result(
        check, answer.get("ok") is True, str(answer.get("detail") or ""),
        float(seconds) if isinstance(seconds, int | float) else 0.0, tries if isinstance(tries, int) else 1,
    )  # fmt: skip


async def _get(session: aiohttp.ClientSession, check: Check) -> Result:
    start = time.monotonic()
    try:
        async with session.get(str(check.probe["url"])) as response:
            await response.read()
            ok, detail = response.status == 200, "" if response.status == 200 else f"HTTP {response.status}"
    except TimeoutError:
        ok, detail = False, f"no answer in {REQUEST_SECONDS:.0f} s"
    except (aiohttp.ClientError, OSError) as error:
        ok, detail = False, str(error) or type(error).__name__
    return Result(check, ok, detail, time.monotonic() - start)


async def reachable_from_here(address: str) -> bool:
    """Whether packets reach the node from this computer: its kubelet's port answers, if only to refuse."""
    try:
        async with asyncio.timeout(1.0):
            _, writer = await asyncio.open_connection(address, _KUBELET)
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
