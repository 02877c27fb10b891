"""Strict YAML: text in; plain values and the line of each out; every mistake a `ConfigError` with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from kubewright.errors import ConfigError

Path: TypeAlias = tuple[str | int, ...]
"""Where a value stands in its document: field names and list indexes, from the top."""

MOST_BYTES = 1 << 20
"""A configuration file of more than 1 MiB is a mistake: the API server itself takes no larger object."""
_MOST_VALUES = 50_000
_DEEPEST = 64

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]{1,18}|(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{0,18})?)(?:[eE][-+]?[0-9]{1,2})?", re.ASCII
)
_NAME = re.compile(r"[-A-Za-z0-9_]{1,80}", re.ASCII)
_TAG = "tag:yaml.org,2002:"


@dataclass(slots=True)
class Document:
    """One document: its value, and the line (from 1) on which each part begins."""

    value: Any
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int | None:
        """The line of the value at `path`, or of the nearest value around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None


def decode(data: bytes, source: str) -> str:
    """A file's bytes as text. Raises `ConfigError` where it is too large or not UTF-8."""
    if len(data) > MOST_BYTES:
        raise ConfigError(
            f"{source}: {len(data)} bytes are too many for a configuration file",
            hint=f"at most {MOST_BYTES} bytes are read; is this the right file?",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{source}: line {line} is not UTF-8 (byte 0x{data[error.start]:02x})",
            hint="save the file as UTF-8",
        ) from error


def read_documents(text: str, source: str) -> list[Document]:
    """All documents of a YAML stream, without the empty ones.

    Plain scalars follow the core schema of YAML 1.2: `yes`, `010` and dates stay text, so that nothing is
    guessed. Keys are always text. Anchors, aliases and merge keys work. A doubled key, an unknown tag, and
    more than 50,000 values or 64 levels after aliases are replaced raise `ConfigError`.
    """
    if len(text) > MOST_BYTES:
        raise ConfigError(f"{source}: {len(text)} characters are too many for a configuration file")
    try:
        return [document for document in _Reader(text, source).documents() if document.value is not None]
    except yaml.YAMLError as error:
        raise _syntax(error, text, source) from error


def _syntax(error: yaml.YAMLError, text: str, source: str) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
    if mark is None:
        position = getattr(error, "position", None)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else 1
        return ConfigError(f"{source}: line {line}: not YAML: {problem}", hint="is this a text file?")
    lines = text.splitlines()
    if mark.line < len(lines) and re.match(r" *\t", lines[mark.line]):
        return ConfigError(
            f"{source}: line {mark.line + 1}: indented with a tab", hint="YAML is indented with spaces only"
        )
    context, began = getattr(error, "context", None), getattr(error, "context_mark", None)
    if context and began and began.line != mark.line and "block" not in context:
        # A quote or bracket that is never closed is noticed late: where it begins is where the mistake is.
        problem, noticed, mark = f"{context}: {problem}", f" (noticed on line {mark.line + 1})", began
    else:
        noticed = ""
    return ConfigError(
        f"{source}: line {mark.line + 1}, column {mark.column + 1}: not YAML: {problem}{noticed}",
        hint="text with ':', '#' or brackets in it needs quotes; indent with the same number of spaces",
    )


@dataclass(slots=True)
class _Container:
    """A mapping or sequence that is being read."""

    value: Any
    path: Path
    line: int
    anchor: str | None
    values_before: int
    key: str | None = None
    height: int = 1
    """How many levels of containers there are, this one counted."""
    merges: list[dict[str, Any]] = field(default_factory=list)

    @property
    def child_path(self) -> Path:
        if isinstance(self.value, list):
            return (*self.path, len(self.value))
        return self.path if self.key is None else (*self.path, self.key)


class _Reader:
    """Builds values out of parser events with a stack of its own: depth costs no recursion."""

    def __init__(self, text: str, source: str) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=_Loader)
        self._source = source
        self._values = 0

    def documents(self) -> Iterator[Document]:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                yield self._document()

    def _wrong(self, line: int, problem: str, hint: str = "") -> ConfigError:
        return ConfigError(f"{self._source}: line {line}: {problem}", hint=hint)

    def _document(self) -> Document:
        document = Document(None)
        anchors: dict[str, tuple[Any, int, int]] = {}
        stack: list[_Container] = []
        for event in self._events:
            line = event.start_mark.line + 1
            if isinstance(event, yaml.DocumentEndEvent):
                break
            if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                self._count(1, line)
                mapping = isinstance(event, yaml.MappingStartEvent)
                self._check_tag(event.tag, "map" if mapping else "seq", line)
                self._check_depth(len(stack) + 1, line)
                if stack and isinstance(stack[-1].value, dict) and stack[-1].key is None:
                    raise self._wrong(line, "a mapping or list cannot be a field's name")
                path = stack[-1].child_path if stack else ()
                document.lines.setdefault(path, line)
                stack.append(_Container({} if mapping else [], path, line, event.anchor, self._values))
                continue
            if isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                done = stack.pop()
                for merged in done.merges:
                    done.value.update({k: v for k, v in merged.items() if k not in done.value})
                value, height = done.value, done.height
                if done.anchor:
                    anchors[done.anchor] = (value, self._values - done.values_before + 1, height)
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor not in anchors:
                    raise self._wrong(
                        line, f"*{event.anchor} stands for no anchor before it (or for one around it)"
                    )
                value, size, height = anchors[event.anchor]
                self._count(size, line)
                self._check_depth(len(stack) + height, line)
            else:
                self._count(1, line)
                if stack and isinstance(stack[-1].value, dict) and stack[-1].key is None:
                    self._take_key(stack[-1], event, line, document)
                    continue
                value, height = self._scalar(event, line), 0
                if event.anchor:
                    anchors[event.anchor] = (value, 1, 0)
            if not stack:
                document.value = value
                continue
            stack[-1].height = max(stack[-1].height, height + 1)
            self._put(stack[-1], value, line, document)
        return document

    def _take_key(self, into: _Container, event: Any, line: int, document: Document) -> None:
        into.key = event.value
        if event.value in into.value:
            first = document.line((*into.path, event.value))
            where = f"{render_path(into.path)}: " if into.path else ""
            raise self._wrong(line, f"{where}field {event.value!r} stands here twice (first on line {first})")
        if event.value != "<<":
            document.lines[(*into.path, event.value)] = line

    def _put(self, into: _Container, value: Any, line: int, document: Document) -> None:
        if isinstance(into.value, list):
            document.lines.setdefault((*into.path, len(into.value)), line)
            into.value.append(value)
            return
        key, into.key = into.key, None
        if key is None:
            raise self._wrong(line, "an alias cannot be a field's name")
        if key == "<<":
            merged = value if isinstance(value, list) else [value]
            if not all(isinstance(item, dict) for item in merged):
                raise self._wrong(line, "'<<' merges mappings only")
            into.merges += merged
            return
        into.value[key] = value

    def _count(self, values: int, line: int) -> None:
        self._values += values
        if self._values > _MOST_VALUES:
            raise self._wrong(
                line,
                f"more than {_MOST_VALUES} values, counting what aliases stand for",
                "is this the right file?",
            )

    def _check_depth(self, levels: int, line: int) -> None:
        if levels > _DEEPEST:
            raise self._wrong(line, f"nested deeper than {_DEEPEST} levels")

    def _check_tag(self, tag: str | None, plain: str, line: int) -> None:
        if tag not in (None, "!", _TAG + plain):
            raise self._wrong(line, f"tag {tag!r} is not known", "write the value without it")

    def _scalar(self, event: Any, line: int) -> Any:
        tag, text = event.tag, event.value
        if tag in ("!", _TAG + "str") or (tag is None and not event.implicit[0]):
            return text
        value = _plain(text)
        if tag is None:
            return value
        named = {_TAG + "int": int, _TAG + "float": float, _TAG + "bool": bool, _TAG + "null": type(None)}
        if tag not in named:
            raise self._wrong(line, f"tag {tag!r} is not known", "write the value without it")
        if type(value) is int and named[tag] is float:
            return float(value)
        if type(value) is not named[tag]:
            raise self._wrong(line, f"{text!r} is not what its tag {tag.removeprefix(_TAG)!r} says")
        return value


def _plain(text: str) -> Any:
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def render_path(path: Path) -> str:
    """A path as users read it: `hosts[2].ssh.port`, `hosts[0].labels['example.com/disk']`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not _NAME.fullmatch(part):
            text += f"[{part[:80]!r}]"
        else:
            text += f".{part}" if text else part
    return text
