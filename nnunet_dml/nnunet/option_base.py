"""What all groups of options have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


class OptionGroup(BaseModel):
    """Options that refuse unknown names, infinities, huge numbers, truth values as numbers, and changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_meant(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        default = cls.model_fields[info.field_name].default
        if isinstance(value, bool) and not isinstance(default, bool):  # which Pydantic takes for 0 or 1
            raise PydanticCustomError("truth_value", "Input should not be true or false")
        if isinstance(value, int) and abs(value) >= 2**31:
            raise PydanticCustomError("huge_number", "Input should be below 2³¹")
        return value
