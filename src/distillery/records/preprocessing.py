"""What released weights were trained to see: kept in the header of a teacher's weights, and said in params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Preprocessing(BaseModel):
    """Mean and std per channel in units of full brightness, side in pixels; without a size, that of the data.

    `short_side` is what the short side of a photograph is resized to before the centre of `size` is tested; without it,
    it is to `size` as it is in the data.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(min_length=1)
    std: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(min_length=1)
    size: int | None = Field(None, ge=1)
    short_side: int | None = Field(None, ge=1)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    @model_validator(mode="after")
    def _of_one_length(self) -> Preprocessing:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean and std need a value for each channel, not {len(self.mean)} and {len(self.std)}")
        if self.short_side is not None and self.short_side < (self.size or self.short_side + 1):
            raise ValueError("short_side needs a size that is no larger")
        return self
