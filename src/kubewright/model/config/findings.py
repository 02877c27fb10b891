"""What is wrong in a configuration: findings with paths, and the one error that they become."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kubewright.errors import ConfigError, ExitCode
from kubewright.model.config.extra_args import Argument
from kubewright.model.config.yamltext import Document, Path, render_path
from kubewright.model.extra_args import ExtraArgs
from kubewright.model.tokens import TOKEN

_ORDER = (
    ExitCode.CONFIG_UNKNOWN_FIELD,
    ExitCode.CONFIG_DUPLICATE_HOST,
    ExitCode.CONFIG_OVERLAPPING_SUBNETS,
    ExitCode.VERSION_UNAVAILABLE,
    ExitCode.CONFIG_INVALID,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake: where it stands, what is wrong, and what mends it where that is not said by then."""

    path: Path
    problem: str
    code: ExitCode = ExitCode.CONFIG_INVALID
    hint: str = ""
    key: str = ""
    """The field inside the mapping at `path` that is meant, to find its line."""
    line: int = 0
    """The line on which it stands, where that is known already; 0 to find it by `path`."""

    def placed(self, document: Document, *prefix: str | int) -> Finding:
        """The same finding with its line in the document in which its path begins, seen from further up."""
        place = (*self.path, self.key) if self.key else self.path
        return replace(self.below(*prefix), line=document.line(place) or 0)

    def below(self, *prefix: str | int) -> Finding:
        """The same finding, seen from further up."""
        return replace(self, path=(*prefix, *self.path))


class FindingsError(ConfigError):
    """A configuration with one or more mistakes. The message is the first one, `evidence` holds the others.

    The exit code is the first one's. Unknown fields come first, since they often explain the rest, and what has
    an exit code of its own comes before what has none.
    """

    def __init__(
        self, findings: Iterable[Finding], source: str = "", document: Document | None = None
    ) -> None:
        self.findings = tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.code)))
        first, *others = [_line(finding, source, document) for finding in self.findings]
        if others:
            first += f" (and {len(others)} more)"
        super().__init__(
            first, hint=self.findings[0].hint, evidence=others, exit_code=self.findings[0].code
        )  # fmt: skip


def _line(finding: Finding, source: str, document: Document | None) -> str:
    text = f"{source}: " if source else ""
    if finding.path:
        text += f"{render_path(finding.path)}{_host_name(finding.path, document)}: "
    text += finding.problem
    place = (*finding.path, finding.key) if finding.key else finding.path
    line = finding.line or (document.line(place) if document and place else None)
    return f"{text}, line {line}" if line else text


def _host_name(path: Path, document: Document | None) -> str:
    """The name of the host inside which `path` lies, in brackets."""
    if document is None or len(path) < 2 or path[0] != "hosts" or not isinstance(path[1], int):
        return ""
    try:
        name = document.value["hosts"][path[1]]["name"]
    except (KeyError, IndexError, TypeError):
        return ""
    return f" ({name})" if isinstance(name, str) and len(name) <= 253 and name.isprintable() else ""


def raise_if_any(findings: Sequence[Finding], source: str = "", document: Document | None = None) -> None:
    """Raise `FindingsError` where there are findings."""
    if findings:
        raise FindingsError(findings, source, document)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'address'?)`, or what is known where that is little, or nothing."""
    names = sorted(known)
    lower = {name.lower(): name for name in names}
    close = get_close_matches(word.lower()[:64], lower, n=1, cutoff=0.6)
    if close:
        return f" (did you mean {lower[close[0]]!r}?)"
    return f" (known: {', '.join(names)})" if 0 < len(names) <= 12 else ""


def unknown_field(path: Path, name: str, known: Iterable[str]) -> Finding:
    """A field that does not exist; `path` is that of the mapping around it."""
    return Finding(
        path,
        f"unknown field {name[:64]!r}{did_you_mean(name, known)}",
        ExitCode.CONFIG_UNKNOWN_FIELD,
        key=name,
    )


_SECRET = re.compile(rf"\b{TOKEN.pattern}\b|(?<!sha256:)\b[0-9a-fA-F]{{64}}\b")
"""A bootstrap token, and a certificate key, wherever somebody has put them; the hash of a CA, or of an image, is
public."""


def shown(value: Any) -> str:
    """A value as messages quote it: short, on one line, and without a secret that stands in the wrong field."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    text = _SECRET.sub("<secret>", text)
    return text if len(text) <= 80 else f"{text[:77]}…"


def of_validation(error: ValidationError, model: type[BaseModel], prefix: Path = ()) -> list[Finding]:
    """pydantic's errors, in our words; `prefix` is where the validated value stands in its file."""
    findings = [_finding(detail, model, prefix) for detail in error.errors(include_url=False)]
    # A misspelt field is unknown and missing at once: that is one mistake.
    meant = {(finding.path, finding.problem.partition("did you mean ")[2][:-2]) for finding in findings}
    return [
        finding
        for finding in findings
        if (finding.path, finding.problem.removeprefix("field ").removesuffix(" is missing")) not in meant
    ]


def _finding(detail: ErrorDetails, model: type[BaseModel], prefix: Path) -> Finding:
    path = (*prefix, *(part for part in detail["loc"] if part != "[key]"))
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        inside = _model_at(model, detail["loc"][:-1])
        return unknown_field(path[:-1], str(path[-1]), names_of(inside) if inside else ())
    if kind == "missing":
        return Finding(path[:-1], f"field {str(path[-1])!r} is missing")
    if kind == "value_error":
        return Finding(path, str(context.get("error", detail["msg"])))
    if kind in ("literal_error", "enum"):
        choices = str(context.get("expected", ""))
        if isinstance(value, str):
            words = {
                word.strip("' ").lower(): word.strip("' ")
                for word in choices.replace(" or ", ", ").split(",")
            }
            close = get_close_matches(value.lower()[:64], words, n=1, cutoff=0.6)
            meant = f" (did you mean {words[close[0]]!r}?)" if close else ""
            return Finding(path, f"{shown(value)} is not {choices}{meant}")
        return Finding(path, f"{shown(value)} is not {choices}")
    if kind == "string_type" and isinstance(value, int | float):
        return Finding(path, f'{shown(value)} must be text: write it in quotes, "{shown(value)}"')
    wanted = _WANTED.get(kind)
    if wanted:
        return Finding(path, f"must be {wanted}, not {_kind_of(value)}")
    if kind == "too_short":
        return Finding(path, "must not be empty")
    bounds = {"greater_than_equal": "ge", "less_than_equal": "le", "greater_than": "gt", "less_than": "lt"}
    if kind in bounds:
        words_of = {"ge": "at least", "le": "at most", "gt": "more than", "lt": "less than"}
        return Finding(path, f"{shown(value)} must be {words_of[bounds[kind]]} {context[bounds[kind]]}")
    return Finding(path, detail["msg"][:1].lower() + detail["msg"][1:])


_WANTED: Mapping[str, str] = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def _kind_of(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return shown(value)


def names_of(model: type[BaseModel]) -> list[str]:
    """The names of a model's fields, as they stand in a file."""
    return [info.alias or name for name, info in model.model_fields.items()]


def _model_at(model: type[BaseModel], location: Sequence[str | int]) -> type[BaseModel] | None:
    """The model of the value at `location` inside a value of `model`."""
    current: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int):
            continue
        if current is None:
            return None
        fields = {info.alias or name: info for name, info in current.model_fields.items()}
        current = _inner_model(fields[part].annotation) if part in fields else None
    return current


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if annotation is ExtraArgs:
        return Argument
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        if (found := _inner_model(argument)) is not None:
            return found
    return None
