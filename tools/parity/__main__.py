"""`python -m tools.parity write`: write docs/kubeadm-parity.md; `walk KUBEADM`: read kubeadm's commands again."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from tools.parity.compare import Comparison, compare
from tools.parity.reasons import REASONS
from tools.parity.report import page
from tools.parity.tree import Tree, dump, kubeadm_tree, load, our_tree

from kubewright.cli import cli

STORED = Path(__file__).with_name("kubeadm-1.20.2.yaml")
PAGE = Path(__file__).parents[2] / "docs/kubeadm-parity.md"
_HEAD = "# Every command and flag of kubeadm 1.20.2, by `python -m tools.parity walk KUBEADM`.\n"


def stored_tree() -> Tree:
    """kubeadm's commands as they were read last; an integration test compares them with the program."""
    return load(STORED.read_text())


def compared() -> Comparison:
    """kubeadm's commands beside ours."""
    return compare(stored_tree(), our_tree(cli), resolves, REASONS)


def resolves(path: str) -> bool:
    """Whether a path is a command of ours, be it by a name that is not listed."""
    command: click.Command = cli
    context = click.Context(cli, info_name="kubewright")
    for word in path.split():
        found = command.get_command(context, word) if isinstance(command, click.Group) else None
        if found is None:
            return False
        command, context = found, click.Context(found, info_name=word, parent=context)
    return True


def written() -> tuple[str, tuple[str, ...]]:
    """The page as it must be now, and what is wrong with the tables of reasons."""
    comparison = compared()
    theirs = stored_tree()
    visible = {path for path in our_tree(cli, hidden=False) if path and path not in theirs}
    tops = sorted(path for path in visible if path.rpartition(" ")[0] not in visible)
    return page(comparison, tops), comparison.faults


def main(words: list[str]) -> None:
    """See the module."""
    if len(words) == 2 and words[0] == "walk":
        STORED.write_text(_HEAD + dump(kubeadm_tree(Path(words[1]))))
        return
    if words != ["write"]:
        sys.exit(__doc__)
    text, faults = written()
    PAGE.write_text(text)
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main(sys.argv[1:])
