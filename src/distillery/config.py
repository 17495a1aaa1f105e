"""Typed settings of a component: a nested, frozen `Config` with a default, a range and a line of text for every key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distillery.errors import DistilleryError
from distillery.errors.words import explain

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_OF_A_TERM = object()
Weight = Annotated[NonNegative, _OF_A_TERM]  # of a loss term; 0 switches it off
Finite = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Spread = Annotated[float, Field(gt=0, le=1)]  # a standard deviation of what lies between 0 and 1
Count = Annotated[int, Field(ge=1)]
Epochs = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Config(BaseModel):
    """Base of every component's settings. A string below a field documents it:

        class Config(Objective.Config):
            temperature: Positive = 4.0
            \"\"\"Of both softmaxes.\"\"\"

    A whole number is taken where a fraction is asked for, a list where a tuple is; nothing else is converted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)
    idle: ClassVar[Mapping[str, tuple[dict[str, Any], ...]]] = MappingProxyType({})
    """Keys that have no effect beside some values of other keys: these, by name; several such cases one by one."""

    @classmethod
    def read(cls, values: dict[str, Any], where: str = "") -> Self:
        """Make settings of what a study says. Raises Problems with one sentence per mistake; `where` precedes keys."""
        try:
            # JSON, because there a list is the only sequence: "strict" then still takes it for a tuple.
            found = cls.model_validate_json(json.dumps(values))
        except ValidationError as error:
            raise Problems(explain(cls, error, values, where)) from None
        except TypeError as error:  # a date, for instance
            raise Problems([f"{where}{error}: give numbers, text, lists or mappings"]) from None
        if lost := [f"{key}: has no effect with {why}: leave it out" for key, why in found._without_effect(where)]:
            raise Problems(lost)
        return found

    def _without_effect(self, where: str) -> Iterator[tuple[str, str]]:
        """Keys that were said in vain, those of nested blocks too, and what beside."""
        for key, cases in self.idle.items():
            held = [case for case in cases if all(getattr(self, other) == value for other, value in case.items())]
            if held and getattr(self, key) != type(self).model_fields[key].default:
                yield f"{where}{key}", " and ".join(f"{other}: {json.dumps(getattr(self, other))}" for other in held[0])
        for key, value in self:
            if isinstance(value, Config):
                yield from value._without_effect(f"{where}{key}.")

    def effective(self) -> dict[str, Any]:
        """All values, defaults filled in, as JSON has them."""
        return self.model_dump(mode="json")


def weights_of(config: Config) -> dict[str, float]:
    """The values of all keys that are a `Weight`."""
    return {k: getattr(config, k) for k, field in type(config).model_fields.items() if _OF_A_TERM in field.metadata}


class Problems(DistilleryError):
    """Several mistakes in one block."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences
