"""The strict YAML reader: what it takes, what it refuses, and that every refusal has a line."""

# ruff: noqa: E501 (a case is a row of its table)

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kubewright.errors import ConfigError
from kubewright.model.config.duration import format_duration, normal_duration, parse_duration
from kubewright.model.config.yamltext import MOST_BYTES, decode, read_documents, render_path


def read(text: str) -> object:
    documents = read_documents(text, "f.yaml")
    assert len(documents) == 1
    return documents[0].value


def refusal(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read_documents(text, "f.yaml")
    return caught.value


def test_plain_scalars_follow_the_core_schema() -> None:
    text = "[1, -2, 0, 1.5, .5, 1e3, true, False, null, ~, yes, no, on, 010, 0x1f, 1_000, 12:30, 2024-01-01, '1', .inf]"
    assert read(text) == [
        1, -2, 0, 1.5, 0.5, 1000.0, True, False, None, None, "yes", "no", "on", "010", "0x1f", "1_000", "12:30",
        "2024-01-01", "1", ".inf",
    ]  # fmt: skip


def test_keys_are_text_whatever_they_look_like() -> None:
    assert read("{on: 1, 2: b, null: c, 1.5: d}") == {"on": 1, "2": "b", "null": "c", "1.5": "d"}


def test_core_tags_are_taken_and_others_refused() -> None:
    assert read("[!!str 1, !!int '2', !!float 3, !!bool 'true', !!null '', ! 4]") == [
        "1",
        2,
        3.0,
        True,
        None,
        "4",
    ]
    assert "'!thing'" in refusal("a: !thing b").message
    assert "line 2" in refusal("a: 1\nb: !!int x").message
    assert "!!python" in refusal("a: !!python/name:os.system x").message.replace("tag:yaml.org,2002:", "!!")


def test_a_doubled_key_is_refused_with_both_lines_and_its_path() -> None:
    error = refusal("hosts:\n- name: a\n  ssh:\n    port: 1\n    user: x\n    port: 2\n")
    assert error.message == "f.yaml: line 6: hosts[0].ssh: field 'port' stands here twice (first on line 4)"


def test_anchors_and_merge_keys_work() -> None:
    text = "base: &b {user: root, port: 22}\none: {<<: *b, port: 23}\ntwo: *b\nthree: {<<: [{port: 1}, *b], x: y}\n"
    value = read(text)
    assert value == {
        "base": {"user": "root", "port": 22},
        "one": {"user": "root", "port": 23},
        "two": {"user": "root", "port": 22},
        "three": {"port": 1, "user": "root", "x": "y"},
    }
    # The same as PyYAML makes of it, whose order of precedence is YAML's own.
    assert value == yaml.safe_load(text)


def test_an_alias_bomb_is_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    assert "more than 50000 values" in refusal("\n".join(lines)).message


@pytest.mark.parametrize("text", ["[" * 5000, "- " * 5000, "{a: " * 3000, "&a [*a]", "[" * 65 + "]" * 65])
def test_deep_and_endless_nesting_is_refused(text: str) -> None:
    assert "line 1" in refusal(text).message


def test_depth_counts_what_aliases_stand_for() -> None:
    lines = [f"a0: &a0 {'[' * 40}{']' * 40}", f"a1: &a1 {'[' * 40}*a0{']' * 40}"]
    assert refusal("\n".join(lines)).message == "f.yaml: line 2: nested deeper than 64 levels"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\n\tb: 2", 2), ("a: 1\nb\n", 2), ("a: [1, 2", 1), ("a: 'x", 1), ("a: 1\nb: \x01", 2), ("%YAML 9\n", 1),
        ("? [a]\n: b", 1), ("a: &x 1\n*x : 2", 2), ("- a\nb: c", 2), ("a: *nothing", 1), ("<<: 1\n", 1),
    ],
)  # fmt: skip
def test_every_refusal_has_a_line(text: str, line: int) -> None:
    assert f"f.yaml: line {line}" in refusal(text).message


def test_a_tab_is_called_a_tab() -> None:
    assert refusal("a:\n\tb: 2").message == "f.yaml: line 2: indented with a tab"


def test_empty_documents_do_not_count() -> None:
    assert read_documents("", "f") == read_documents("# nothing\n---\n---\n", "f") == []
    assert [document.line(()) for document in read_documents("---\n---\na: 1\n---\nb: 2\n", "f")] == [3, 5]


def test_lines_are_those_of_the_fields() -> None:
    document = read_documents("a: 1\nb:\n  c:\n  - x\n  - y: &v {z: 1}\nd: *v\n", "f")[0]
    wanted: dict[tuple[str | int, ...], int] = {
        ("a",): 1, ("b", "c"): 3, ("b", "c", 0): 4, ("b", "c", 1, "y"): 5, ("b", "c", 7): 3, ("d", "z"): 6,
    }  # fmt: skip
    assert {path: document.line(path) for path in wanted} == wanted


def test_bytes_must_be_utf8_and_few() -> None:
    assert decode("\ufeffa: ü".encode(), "f") == "a: ü"
    with pytest.raises(ConfigError, match="f: line 2 is not UTF-8"):
        decode(b"a: 1\nb: \xff\n", "f")
    with pytest.raises(ConfigError, match="too many"):
        decode(b"a" * (MOST_BYTES + 1), "f")


def test_paths_are_rendered_as_users_write_them() -> None:
    assert render_path(("hosts", 2, "ssh", "keyFiles", 0)) == "hosts[2].ssh.keyFiles[0]"
    assert render_path(("labels", "a.b/c", "d\ne")) == "labels['a.b/c']['d\\ne']"


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(_PLAIN)
def test_what_is_written_as_json_is_read_back(value: object) -> None:
    """JSON is YAML: the reader must see the same values, but for the merge key."""
    import json

    # libyaml knows no surrogate pairs, by which JSON escapes what lies beyond the basic plane.
    text = json.dumps(value, ensure_ascii=False)
    if '"<<"' in text or not text.isprintable():
        return
    documents = read_documents(text, "f")
    assert (documents[0].value if documents else None) == value


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%@`,? \n\t\\01<~\x00\u2028é", max_size=40))
def test_any_text_is_read_or_refused_with_a_line(text: str) -> None:
    try:
        read_documents(text, "f.yaml")
    except ConfigError as error:
        assert error.message.startswith("f.yaml: line ")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("90s", "1m30s"), ("4m", "4m0s"), ("1h", "1h0m0s"), ("0", "0s"), ("0s", "0s"), ("1.5h", "1h30m0s"),
        ("250ms", "250ms"), ("1500ms", "1.5s"), ("2us", "2µs"), ("1ns", "1ns"), ("-3m", "-3m0s"), ("1h1ms", "1h0m0.001s"),
    ],
)  # fmt: skip
def test_durations_are_printed_as_go_prints_them(text: str, normal: str) -> None:
    assert normal_duration(text) == normal


@pytest.mark.parametrize("text", ["", "5", "s", "1d", "1h ", "--1s", "99999999999h", "1.2.3s", "½s", "1m-1s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(-(2**60), 2**60))
def test_a_printed_duration_is_read_back(nanoseconds: int) -> None:
    assert parse_duration(format_duration(nanoseconds)) == nanoseconds
