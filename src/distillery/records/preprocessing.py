"""What released weights were trained to see: kept in the header of a teacher's weights, and said in params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Preprocessing(BaseModel):
    """Mean and std per channel in units of full brightness, side in pixels; without a size, that of the data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: tuple[float, ...] = Field(min_length=1)
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    size: int | None = Field(None, ge=1)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    @model_validator(mode="after")
    def _of_one_length(self) -> Preprocessing:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean and std need a value for each channel, not {len(self.mean)} and {len(self.std)}")
        return self
