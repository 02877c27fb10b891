"""The base of all configuration models."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel


class Strict(BaseModel):
    """camelCase in the file, snake_case here; a field that is not known is an error, an empty one is not set."""

    model_config = ConfigDict(
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        frozen=True,
        use_attribute_docstrings=True,
        field_title_generator=lambda name, info: info.alias or name,
    )

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        """A known field without a value is one that is not set, as everywhere in Kubernetes."""
        if not isinstance(data, dict):
            return data
        known = {name for field, info in cls.model_fields.items() for name in (field, info.alias)}
        return {name: value for name, value in data.items() if value is not None or name not in known}


Model = TypeVar("Model", bound=Strict)


def with_defaults(model: Model, defaults: dict[str, Any]) -> Model:
    """A model with these values in its fields, which still count as fields that the user did not say.

    What the user did say, `model_fields_set` goes on telling.
    """
    copy = model.model_copy(update=defaults)
    copy.model_fields_set.intersection_update(model.model_fields_set)
    return copy
