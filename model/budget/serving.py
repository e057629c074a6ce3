"""How many users a machine can serve at a context length: what its memory holds beside the weights."""

from model.architecture.config import TransformerConfig
from model.budget.devices import Device
from model.budget.kv_cache import CacheDtype, cache_bytes
from model.budget.parameters import count_parameters
from model.budget.record import WEIGHT_BYTES, Dtype, Record


class Capacity(Record):
    """Users of a machine of `devices` that share the model."""

    device: str
    devices: int
    context: int
    cache_dtype: CacheDtype
    weights_bytes: int
    cache_bytes: int
    """Of one user, over all devices."""
    users: int
    tokens_per_s: float | None
    """At most, a user, with all of them at once: weights and caches are read once a token. None: bandwidth unknown."""


def users(
    config: TransformerConfig,
    device: Device,
    *,
    devices: int = 1,
    context: int | None = None,
    dtype: Dtype = "bf16",
    cache_dtype: CacheDtype = "bf16",
    reserve: float = 0.1,
) -> Capacity:
    """`reserve`: share of the memory left to activations and the runtime. Several devices divide the heads (tensor
    parallelism), and each holds whole heads of keys and values.

    Raises ValueError for a context beyond the model's, a reserve outside [0, 1) and devices that do not divide heads.
    """
    context = context or config.context
    if context > config.context:
        raise ValueError(f"context {context} is longer than the model's {config.context}")
    if not 0 <= reserve < 1:
        raise ValueError(f"reserve {reserve} must be at least 0 and below 1")
    if config.has_attention and config.heads % devices:
        raise ValueError(f"serving_devices {devices} must divide heads {config.heads}")
    weights = count_parameters(config).total * WEIGHT_BYTES[dtype]
    each = cache_bytes(_held_by(config, devices), context, cache_dtype)
    free = int(device.memory_bytes * devices * (1 - reserve)) - weights
    count = max(0, free // each) if each else 0
    rate = None
    if device.bandwidth_bytes_per_s is not None and count:
        rate = device.bandwidth_bytes_per_s * devices / (weights + count * each)
    return Capacity(
        device=device.name,
        devices=devices,
        context=context,
        cache_dtype=cache_dtype,
        weights_bytes=weights,
        cache_bytes=each,
        users=count,
        tokens_per_s=rate,
    )


def _held_by(config: TransformerConfig, devices: int) -> TransformerConfig:
    """With as many key-value heads as the devices hold together: fewer than one each is one each."""
    each = -(-config.kv_heads // devices)
    return config.model_copy(update={"kv_heads": each * devices})
