"""docs/kubeadm-parity.md: how two command lines are compared, and that the page is what they are now."""

from __future__ import annotations

import click
from tools.parity.__main__ import PAGE, compared, stored_tree, written
from tools.parity.compare import compare
from tools.parity.reasons import Reason
from tools.parity.tree import Command, Flag, Tree, dump, load, our_tree


def tree(**commands: str) -> Tree:
    """Commands (`_` stands for a space) with their flags: `name`, `name=` with a value."""
    found: Tree = {}
    for name, flags in commands.items():
        path = name.replace("_", " ")
        words = flags.split()
        found[path] = Command(
            path, (), False, {w.rstrip("="): Flag(w.rstrip("="), "", w.endswith("=")) for w in words}
        )
    return found


def faults(theirs: Tree, ours: Tree, *reasons: Reason) -> list[str]:
    return list(compare(theirs, ours, ours.__contains__, reasons).faults)


def test_the_page_says_what_is_there_now() -> None:
    """After a change of commands, flags, reasons or differences: `python -m tools.parity write`."""
    text, faults = written()
    assert faults == ()
    assert PAGE.read_text() == text


def test_no_command_of_kubeadm_is_missing() -> None:
    commands, of_kubeadm, flags, _ = compared().count()
    assert commands == of_kubeadm == len(stored_tree())
    assert flags > 400


def test_what_is_there_needs_no_reason() -> None:
    both = tree(init="config= dry-run", init_phase="")
    result = compare(both, both, both.__contains__, ())
    assert result.faults == ()
    assert result.count() == (2, 2, 2, 2)


def test_an_absence_needs_its_reason() -> None:
    theirs, ours = tree(init="config= force", token=""), tree(init="config=")
    assert faults(theirs, ours) == [
        "kubeadm init --force: missing without a reason", "kubeadm token: missing without a reason",
    ]  # fmt: skip
    assert faults(theirs, ours, Reason("init", "force", "no"), Reason("token", "", "no")) == []
    assert faults(theirs, ours, Reason("*", "force", "no"), Reason("tok*", "", "no")) == []


def test_a_reason_needs_its_absence() -> None:
    theirs = tree(init="config=", join="config=")
    [fault] = faults(theirs, theirs, Reason("reset", "", "no"))
    assert fault == "tools/parity/reasons.py: reset: nothing is missing there"
    unneeded = faults(theirs, tree(init="config=", join=""), Reason("*", "config", "no"))
    assert unneeded == ["tools/parity/reasons.py: * config: kubewright init has --config"]


def test_a_flag_that_means_something_else_is_a_fault() -> None:
    assert "one takes a value" in faults(tree(init="yes"), tree(init="yes="))[0]


def test_short_forms_aliases_and_arguments_count() -> None:
    theirs = {"reset": Command("reset", ("undo",), True, {"force": Flag("force", "f", False)})}
    ours = tree(reset="force")
    assert len(faults(theirs, ours)) == 3
    reasons = [Reason("reset", what, "no") for what in ("undo", "argument", "-f")]
    assert faults(theirs, ours, *reasons) == []


def test_a_tree_can_be_written_and_read() -> None:
    some = tree(init="config= dry-run", init_phase="") | {
        "": Command("", (), False, {"v": Flag("v", "v", True)}),
        "certs": Command("certs", ("certificates",), True, {}),
    }
    assert load(dump(some)) == some


def test_our_tree_is_read_off_click() -> None:
    @click.group()
    def top() -> None: ...

    @top.command(hidden=True)
    @click.argument("where")
    @click.option("-o", "--output", "--experimental-output")
    @click.option("--dry-run", is_flag=True)
    def deep(where: str, output: str, dry_run: bool) -> None: ...

    found = our_tree(top)["deep"]
    assert found.arguments
    assert found.flags == {
        "output": Flag("output", "o"),
        "experimental-output": Flag("experimental-output", "o"),
        "dry-run": Flag("dry-run", "", False),
    }
    assert our_tree(top, hidden=False).keys() == {""}
