"""A section of a spec file, as a frozen pydantic model, and the numbers that its keys may hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A mapping of a spec: unknown keys and silent conversions are refused, and it never changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


Count = Annotated[int, Field(ge=1, le=1000)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
"""Excludes 1, which no finite number of prompts could prove."""
Fraction = Annotated[float, Field(gt=0, le=1)]
Rate = Annotated[float, Field(gt=0, lt=0.5)]
