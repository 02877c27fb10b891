"""Waits: an API server that is away for a moment is waited for, and a deadline tells what was last seen."""

from __future__ import annotations

import pytest

from kubewright.errors import ApiError, WaitTimeoutError
from kubewright.phases.waiting import wait_until


async def test_an_api_server_that_starts_again_is_waited_for() -> None:
    answers = [ApiError("refused"), ApiError("etcd has no leader", status=500), None]
    seen: list[str] = []

    async def missing() -> str | None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return None

    await wait_until(missing, "it", deadline=5, interval=0, progress=seen.append)
    assert seen == ["refused", "etcd has no leader"]


async def test_a_refusal_is_no_matter_of_time() -> None:
    async def missing() -> str | None:
        raise ApiError("forbidden", status=403)

    with pytest.raises(ApiError, match="forbidden"):
        await wait_until(missing, "it", deadline=5)


async def test_at_the_deadline_what_was_last_seen_is_told() -> None:
    async def missing() -> str | None:
        raise ApiError("connection refused")

    with pytest.raises(WaitTimeoutError) as caught:
        await wait_until(missing, "it", deadline=0)
    assert caught.value.evidence == ("last seen: connection refused",)
