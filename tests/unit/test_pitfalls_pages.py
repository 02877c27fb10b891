"""docs/pitfalls has a page for every pitfall, and the pages promise nothing that is not there."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kubewright.cli import cli
from kubewright.errors import ConfigError
from kubewright.model import pitfalls

ROOT = Path(__file__).parents[2]
DIRECTORY = ROOT / pitfalls.IN_CHECKOUT
README = DIRECTORY / "README.md"
IDS = [f"P{number:02}" for number in range(1, 54)]
SECTIONS = ["What you see", "Why", "What Kubewright does", "By hand"]

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`([^`]+)`")
_CODE = re.compile(r"^ {4,}(?:\$ |# |sudo )?(kubewright .*)$", re.MULTILINE)
_ROW = re.compile(r"^\| \[(P\d\d)\]\((P\d\d)\.md\) \| [^|]+ \| ([^|]+) \| (.+?) \| ([^|]+) \|$", re.MULTILINE)
_FAULT = re.compile(
    r'^(?:    Fault\(\n? *|    _rule\(\n? *|    \*_manifest\()"([^"]+)", "(?:[^"]+", ")?(P\d\d)"',
    re.MULTILINE,
)


def test_every_pitfall_has_a_page() -> None:
    assert list(pitfalls.ids()) == IDS


@pytest.mark.parametrize("name", IDS)
def test_each_page_has_the_same_headings(name: str) -> None:
    lines = pitfalls.page(name).splitlines()
    assert lines[0].startswith(f"# {name} \N{EN DASH} ")
    assert [line for line in lines[1:] if line.startswith("#")] == [f"## {title}" for title in SECTIONS]
    assert len(lines) <= 60, "it is read at three in the morning"


def test_a_page_is_found_by_its_id_in_either_case() -> None:
    assert pitfalls.page("p37") == pitfalls.page("P37") == (DIRECTORY / "P37.md").read_text()


@pytest.mark.parametrize("name", ["P54", "P00", "37", "README", "../README", ""])
def test_an_unknown_id_is_told_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pitfalls.page(name)
    assert repr(name) in caught.value.message
    assert "P01" in caught.value.hint
    assert "P53" in caught.value.hint


def test_a_wheel_has_the_pages_where_they_are_looked_for() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"][pitfalls.IN_CHECKOUT] == f"kubewright/{pitfalls.IN_PACKAGE}"


def test_every_id_that_is_named_has_a_page() -> None:
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").rglob("*.py")]
    named = {
        (name, str(file.relative_to(ROOT)))
        for file in files
        if file != Path(__file__)
        for name in re.findall(r"\bP\d\d\b", file.read_text())
    }
    assert {(name, file) for name, file in named if name not in IDS} == set()


@pytest.mark.parametrize("file", sorted(DIRECTORY.glob("*.md")), ids=lambda file: file.stem)
def test_links_lead_somewhere(file: Path) -> None:
    targets = [target for target in _LINK.findall(file.read_text()) if "://" not in target]
    assert [target for target in targets if not (file.parent / target).is_file()] == []


def complaints(words: list[str]) -> Iterator[str]:
    """What is wrong with a command line of ours that a page shows: words after `kubewright`."""
    command: click.Command = cli
    rest = list(words)
    while rest:
        word = rest.pop(0)
        context = click.Context(command)
        if word.startswith("-") and word != "-":
            name, has_value, _ = word.partition("=")
            options = [one for one in command.get_params(context) if name in (*one.opts, *one.secondary_opts)]
            if not options:
                yield f"{command.name} has no option {name}"
            elif isinstance(options[0], click.Option) and not (options[0].is_flag or has_value):
                rest = rest[1:]
        elif isinstance(command, click.Group):
            below = command.get_command(context, word)
            if below is None:
                yield f"{command.name} has no command {word}"
                return
            command = below
        elif not any(isinstance(one, click.Argument) for one in command.params):
            yield f"{command.name} takes no {word}"


def shown(text: str) -> Iterator[list[str]]:
    """Every command line of ours in a page's code, without what a shell adds."""
    spans = [span for span in _SPAN.findall(_CODE.sub("", text)) if span.startswith("kubewright ")]
    for line in [*spans, *_CODE.findall(text)]:
        plain = re.split(r"\s#\s|\s*[|;>]|\s&&", " ".join(line.split()))[0]
        yield plain.split()[1:]


@pytest.mark.parametrize("file", sorted(DIRECTORY.glob("*.md")), ids=lambda file: file.stem)
def test_pages_name_commands_that_there_are(file: Path) -> None:
    assert [f"{words}: {why}" for words in shown(file.read_text()) for why in complaints(words)] == []


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("`kubewright certs renew all --host root@192.0.2.1`", True),
        ("    kubewright token create --print-join-command   # a comment", True),
        ("`kubewright init phase kubelet-finalize all`", True),
        ("`kubewright node remove NAME -f cluster.yaml`", True),
        ("`kubewright apply --dns-replicas 3`", False),
        ("`kubewright mend`", False),
        ("    kubewright certs renew everything", False),
        ("`kubewright plan cluster.yaml`", False),
    ],
)
def test_the_rule_itself(line: str, good: bool) -> None:
    found = list(shown(line))
    assert found
    assert (not [why for words in found for why in complaints(words)]) is good


def made_faults() -> dict[str, set[str]]:
    """The faults that integration/faults.py makes, by their pitfall; of a static Pod there are two."""
    found: dict[str, set[str]] = {}
    for name, pitfall in _FAULT.findall((ROOT / "tests/integration/faults.py").read_text()):
        names = {f"{name}-flag", f"{name}-removed"} if name.startswith(("kube-", "etcd")) else {name}
        found.setdefault(pitfall, set()).update(names)
    return found


def test_the_table_has_every_page_and_its_tests_exist() -> None:
    rows = _ROW.findall(README.read_text())
    assert [(name, file) for name, file, *_ in rows] == [(name, name) for name in IDS]
    faults = made_faults()
    assert sum(map(len, faults.values())) > 40
    for name, _, _, tests, result in rows:
        shown = re.findall(r"`([^`]+)`", tests)
        listed = {fault for one in shown if one.startswith("doctor: ") for fault in one[8:].split(", ")}
        assert faults.get(name, set()) <= listed <= set().union(*faults.values()), name
        assert listed or any(one.startswith("integration/") for one in shown), (
            f"{name}: no machine has shown it"
        )
        assert result.startswith(("passes", "in part")), name
        for test in (one for one in shown if not one.startswith("doctor: ")):
            file, _, function = test.partition("::")
            source = (ROOT / "tests" / file).read_text()
            assert re.search(rf"^(async )?def {function}\(", source, re.MULTILINE), f"{name}: {test}"
