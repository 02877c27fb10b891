"""5,000 mutated files of kubeadm's: each is read, or refused with a place and without a traceback."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.config.kubeadm_files import check_file, mutated

pytestmark = pytest.mark.integration

_FILES = 5_000


@settings(max_examples=_FILES, deadline=None, derandomize=True)
@given(st.randoms(use_true_random=True))
def test_mutated_files_are_read_or_refused_with_a_place(random: Random) -> None:
    check_file(mutated(random))
