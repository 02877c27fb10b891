"""What to type next, at the end of a run: the shortest that works on this computer."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kubewright.cli.summary import next_lines
from kubewright.clients.kubeconfig import Merged


def found(*programs: str) -> Callable[[str], str | None]:
    return lambda name: f"/usr/bin/{name}" if name in programs else None


@pytest.mark.parametrize(
    ("programs", "current", "command"),
    [
        (("kubectl", "kubewright"), True, "kubectl get nodes"),
        (("kubectl", "kubewright"), False, "kubectl --context shop get nodes"),
        (("kubewright",), True, "kubewright lab exec shop cp1 -- kubectl get nodes"),
        ((), True, ".venv/bin/kubewright lab exec shop cp1 -- kubectl get nodes"),
    ],
)
def test_p24_the_next_command_works_here(
    monkeypatch: pytest.MonkeyPatch, programs: tuple[str, ...], current: bool, command: str
) -> None:
    monkeypatch.setattr(shutil, "which", found(*programs))
    monkeypatch.setattr(sys, "argv", [".venv/bin/kubewright", "lab", "up"])
    merged = Merged(Path("/home/me/.kube/config"), "shop", current)
    lines = next_lines(None, merged, " -f shop.yaml", "lab exec shop cp1 -- kubectl")
    me = "kubewright" if "kubewright" in programs else ".venv/bin/kubewright"
    assert lines[0].endswith("current one")
    assert [line[12:] for line in lines[1:]] == [
        command,
        f"{me} status -f shop.yaml",
        f"{me} check -f shop.yaml",
    ]
