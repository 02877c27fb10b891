"""Reading `extraArgs`: a mapping from flag to value, or v1beta4's list of names and values."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, TypeAdapter

from kubewright.model.config import syntax
from kubewright.model.config.strict import Strict
from kubewright.model.extra_args import ExtraArgs

FlagName = Annotated[str, AfterValidator(syntax.flag_name)]


class Argument(Strict):
    """One flag of v1beta4's list."""

    name: FlagName
    """The flag, without its dashes."""
    value: str = ""
    """Its value."""


def read(value: Any) -> ExtraArgs:
    """The arguments of either form. Raises pydantic's `ValidationError` with the place inside."""
    if isinstance(value, ExtraArgs):
        return value
    if isinstance(value, list):
        return ExtraArgs(tuple((item.name, item.value) for item in _list().validate_python(value)))
    return ExtraArgs.of(_mapping().validate_python(value))


@cache
def _mapping() -> TypeAdapter[dict[FlagName, str]]:
    return TypeAdapter(dict[FlagName, str])


@cache
def _list() -> TypeAdapter[list[Argument]]:
    return TypeAdapter(list[Argument])
