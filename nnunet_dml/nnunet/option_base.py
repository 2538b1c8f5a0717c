"""What all groups of options have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


class OptionGroup(BaseModel):
    """Options that refuse unknown names, infinities, huge numbers, truth values as numbers, and changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_values_are_no_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        default = cls.model_fields[info.field_name].default
        if isinstance(default, bool | OptionGroup):
            return value
        if any(isinstance(it, bool) for it in _parts(value)):  # which Pydantic takes for 0 or 1
            raise PydanticCustomError("truth_value", "Input should not be true or false")
        return value

    @field_validator("*")
    @classmethod
    def _numbers_are_not_huge(cls, value: Any) -> Any:
        """However they are written: 3e9 and "3000000000" are integers, too."""
        if any(isinstance(it, int | float) and abs(it) >= 2**31 for it in _parts(value)):
            raise PydanticCustomError("huge_number", "Input should be within ±2³¹")
        return value


def _parts(value: Any) -> Iterable[Any]:
    """What a list or a mapping holds, else the value."""
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else (value,)
