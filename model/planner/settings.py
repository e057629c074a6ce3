"""Settings of `sluice plan`, beside the model and the run. Imports no torch."""

from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from sluice.core.settings.block import Block
from sluice.core.settings.errors import mistake
from sluice.model.planner.accelerators import DeviceName


class PlanConfig(Block):
    """`plan.key=value` on the command line."""

    device: DeviceName | None = None
    """Unset: all of the table."""
    devices: int | None = Field(default=None, ge=1)
    """Unset: as many as pretrain.workers."""
    tensor: int | None = Field(default=None, ge=1)
    """Devices that share each layer (Megatron-LM, arXiv 1909.08053); unset: pretrain.tensor_parallel."""
    pipeline: int | None = Field(default=None, ge=1)
    """Devices that share the layers out; unset: pretrain.pipeline_stages."""
    zero_stage: Literal[0, 1, 2, 3] | None = None
    """The only stage to count; unset: all that go with the degrees, and what fits is looked for from
    pretrain.zero_stage on.
    """
    mfu: float = Field(default=0.4, gt=0, le=1)
    """Share of the device's peak that the model's arithmetic reaches (PaLM, arXiv 2204.02311)."""
    pue: float = Field(default=1.2, ge=1, allow_inf_nan=False)
    """Power of the building over that of the devices."""
    price_per_hour: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Price of one device; unset: the table's."""
    tokens: int | None = Field(default=None, ge=1)
    """Token budget; unset: what the run reads."""
    flops: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Budget of arithmetic for the compute-optimal size; unset: what training on the token budget takes."""
    context: int | None = Field(default=None, ge=1)
    """Context length of a served user; unset: the model's."""
    serving_devices: int = Field(default=1, ge=1)
    """Devices of a serving machine, which share the model."""
    reserve: float = Field(default=0.1, ge=0, lt=1)
    """Share of a device's memory left to the runtime, and in serving to activations."""

    @field_validator("tokens", mode="before")
    @classmethod
    def _in_powers(cls, value: Any) -> Any:
        """1e12 is how token budgets are written; YAML reads it as text."""
        try:
            return int(float(value)) if isinstance(value, str | float) and float(value).is_integer() else value
        except (ValueError, OverflowError):
            return value


def read_plan_settings(values: dict[str, Any]) -> PlanConfig:
    """Raises a one-line ValueError that names key, value and what is allowed."""
    try:
        return PlanConfig.model_validate(values)
    except ValidationError as error:
        raise ValueError(mistake(PlanConfig, error, ("plan",))) from None
