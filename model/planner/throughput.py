"""Time, energy and money of a run on a device, from its arithmetic and the share of the peak that it reaches."""

from sluice.model.planner.accelerators import Device
from sluice.model.planner.base import Record


class RunCost(Record):
    """A token budget on `devices` of one kind."""

    device: str
    devices: int
    mfu: float
    """Model FLOPs utilization: the model's own arithmetic, without what is computed again, over the peak (PaLM, arXiv
    2204.02311, appendix B).
    """
    tokens_per_s: float | None
    """None, as all below: the run does not fit the device."""
    step_s: float | None
    total_s: float | None
    days: float | None
    """`total_s`, as a person reads it."""
    energy_kwh: float | None
    """At the thermal design power all along, times PUE: an upper end. None also where the power is not known."""
    price: float | None
    """In the currency of `price_per_hour`. None also where no price is known."""

    def unspent(self) -> "RunCost":
        """The cost without time and price, for a run that does not fit."""
        spent = ("tokens_per_s", "step_s", "total_s", "days", "energy_kwh", "price")
        return self.model_copy(update=dict.fromkeys(spent))


def run_cost(
    device: Device,
    *,
    devices: int,
    training_flops_per_token: float,
    tokens: int,
    tokens_per_step: int,
    mfu: float,
    pue: float = 1.0,
    price_per_hour: float | None = None,
) -> RunCost:
    """`price_per_hour` of one device replaces the table's.

    Raises ValueError for an mfu outside (0, 1] and a pue below 1.
    """
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu {mfu} must be above 0 and at most 1")
    if not pue >= 1:
        raise ValueError(f"pue {pue} must be at least 1: what the building draws over what the devices do")
    tokens_per_s = device.peak_flops_per_s * devices * mfu / training_flops_per_token
    total_s = tokens / tokens_per_s
    device_hours = devices * total_s / 3600
    price = device.price_per_hour if price_per_hour is None else price_per_hour
    return RunCost(
        device=device.name,
        devices=devices,
        mfu=mfu,
        tokens_per_s=tokens_per_s,
        step_s=tokens_per_step / tokens_per_s,
        total_s=total_s,
        days=total_s / 86_400,
        energy_kwh=None if device.power_w is None else device_hours * device.power_w * pue / 1000,
        price=None if price is None else device_hours * price,
    )
