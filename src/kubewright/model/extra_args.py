"""The arguments that a user adds to a program: an ordered list of flags, in which one can stand twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema


@dataclass(frozen=True, slots=True)
class ExtraArgs:
    """Flags without their dashes, each with its value, in the user's order.

    Configuration files have them as a mapping (until v1beta3) or as a list of `name` and `value` (v1beta4). Only
    a list can hold a flag twice; a mapping is read in the order of its names, as kubeadm reads it.
    """

    pairs: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, args: Mapping[str, str] | Iterable[tuple[str, str]] | ExtraArgs | None) -> ExtraArgs:
        """From a mapping, sorted by its names; or from pairs, in their order."""
        if isinstance(args, ExtraArgs):
            return args
        if isinstance(args, Mapping):
            return cls(tuple(sorted(args.items())))
        return cls(tuple(args or ()))

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """The pairs of name and value."""
        return iter(self.pairs)

    def __contains__(self, name: object) -> bool:
        """Whether a flag of that name is among them."""
        return any(flag == name for flag, _ in self.pairs)

    @property
    def names(self) -> tuple[str, ...]:
        """The flags' names, each once, in their order."""
        return tuple(dict(self.pairs))

    def get(self, name: str, default: str = "") -> str:
        """The value of a flag: that of the last one with the name, which is the one that most programs heed."""
        return dict(self.pairs).get(name, default)

    def values_of(self, name: str) -> list[str]:
        """Every value that a flag is given, in their order."""
        return [value for flag, value in self.pairs if flag == name]

    def with_flag(self, name: str, value: str) -> ExtraArgs:
        """These, with one flag given once: in the place of its first one, or at the end."""
        kept: dict[str, list[tuple[str, str]]] = {}
        for flag, text in self.pairs:
            kept.setdefault(flag if flag == name else f"{len(kept)} {flag}", []).append((flag, text))
        kept[name] = [(name, value)]
        return ExtraArgs(tuple(pair for pairs in kept.values() for pair in pairs))

    def as_map(self) -> dict[str, str]:
        """As a mapping, for v1beta3 and older: of a doubled flag the last value stays."""
        return dict(self.pairs)

    def as_list(self) -> list[dict[str, str]]:
        """As v1beta4 has it."""
        return [{"name": name, "value": value} for name, value in self.pairs]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        from kubewright.model.config.extra_args import read

        return core_schema.no_info_plain_validator_function(
            read, serialization=core_schema.plain_serializer_function_ser_schema(cls.as_list)
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        text = {"type": "string"}
        item = {
            "type": "object",
            "properties": {"name": text, "value": text},
            "required": ["name"],
            "additionalProperties": False,
        }
        return {"anyOf": [{"type": "object", "additionalProperties": text}, {"type": "array", "items": item}]}


def merged(defaults: Mapping[str, str], extra: ExtraArgs, *, last: bool) -> list[tuple[str, str]]:
    """A program's arguments: those of `defaults` that `extra` does not name, and `extra`.

    `last` is `VersionFacts.extra_args_last`: the defaults in alphabetical order and then the user's in theirs.
    Otherwise all are in alphabetical order, a flag that stands twice by its values.
    """
    kept = sorted((name, value) for name, value in defaults.items() if name not in extra)
    return [*kept, *extra] if last else sorted([*kept, *extra])
