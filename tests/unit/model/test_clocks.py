"""Clocks that are apart, out of one reading each."""

from __future__ import annotations

import pytest

from kubewright.model.clocks import HERE, Reading, clock_findings


def readings(**ahead: float) -> dict[str, Reading]:
    """Hosts whose clocks are that far ahead of ours, asked in 0.1 s."""
    return {name: Reading(1000.05 + seconds, 1000.0, 1000.1) for name, seconds in ahead.items()}


def test_clocks_that_agree_are_no_finding() -> None:
    assert clock_findings(readings(cp1=0.5, cp2=-0.5, w1=1.4)) == []
    assert clock_findings({}) == []


@pytest.mark.parametrize(
    ("ahead", "words", "error"),
    [
        (40.0, "40 s ahead of", True),
        (-40.0, "40 s behind", True),
        (10.0, "10 s ahead of", False),
        (3600.0, "60 min ahead of", True),
        (-86400.0, "24 h behind", True),
    ],
)
def test_one_clock_that_is_wrong_is_one_finding(ahead: float, words: str, error: bool) -> None:
    (found,) = clock_findings(readings(cp1=0.0, cp2=0.1, w1=ahead))
    assert found.host == "w1"
    assert words in found.message
    assert found.error is error
    assert found.check == "Clock"
    assert "timedatectl set-ntp true" in found.hint


def test_our_own_clock_may_be_the_wrong_one() -> None:
    (found,) = clock_findings(readings(cp1=60.0, cp2=60.0, w1=60.1))
    assert found.host == HERE
    assert "60 s behind" in found.message


def test_of_one_host_and_us_the_host_is_right() -> None:
    (found,) = clock_findings(readings(cp1=60.0))
    assert found.host == HERE
    assert "that of cp1" in found.message


def test_an_answer_that_took_long_tells_less() -> None:
    """The clock was read at some moment of these 30 s: it may well be right."""
    slow = {"w1": Reading(1029.0, 1000.0, 1030.0)}
    assert clock_findings(readings(cp1=0.0, cp2=0.0) | slow) == []
    far = {"w1": Reading(1100.0, 1000.0, 1030.0)}
    (found,) = clock_findings(readings(cp1=0.0, cp2=0.0) | far)
    assert found.host == "w1"
    assert "70 s ahead" in found.message
