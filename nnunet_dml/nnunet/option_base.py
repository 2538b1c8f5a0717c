"""What all groups of options have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class OptionGroup(BaseModel):
    """Options that refuse unknown names, infinities and changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
