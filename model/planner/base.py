"""Base class of the parts of a plan, and the types of weights."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Dtype = Literal["fp32", "bf16", "fp16"]
WEIGHT_BYTES: dict[Dtype, int] = {"fp32": 4, "bf16": 2, "fp16": 2}


class Record(BaseModel):
    """A part of a plan: immutable, and printed as JSON as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)
