"""Users that a machine can serve at a context length, by the memory left beside the weights."""

from sluice.model.architecture.config import TransformerConfig
from sluice.model.planner.accelerators import Device
from sluice.model.planner.base import WEIGHT_BYTES, Dtype, Record
from sluice.model.planner.kv_cache import CacheDtype, cache_bytes
from sluice.model.planner.parameters import count_parameters
from sluice.model.planner.weights import StateSpaceShape


class Capacity(Record):
    """Users of a machine of `devices` that share the model."""

    device: str
    devices: int
    context: int
    cache_dtype: CacheDtype
    weights_bytes: int
    cache_bytes: int
    """Cache of one user, over all devices."""
    users: int
    tokens_per_s: float | None
    """Upper bound for each user, with all of them at once: weights and caches are read once a token; in a mixture of
    experts, those that so many tokens use where every expert is equally likely. None: bandwidth unknown.
    """


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

    Raises ValueError for a context beyond the model's, a reserve outside [0, 1) and devices that do not divide what
    they divide.
    """
    context = context or config.context
    if context > config.context:
        raise ValueError(f"context {context} is longer than the model's {config.context}")
    if not 0 <= reserve < 1:
        raise ValueError(f"reserve {reserve} must be at least 0 and below 1")
    for name, size in _divided_sizes(config).items():
        if size % devices:
            raise ValueError(f"serving_devices {devices} must divide {name} {size}")
    parameters = count_parameters(config)
    weights = parameters.total * WEIGHT_BYTES[dtype]
    # Fewer key-value heads than devices are repeated: one on each device.
    held = config.model_copy(update={"kv_heads": -(-config.kv_heads // devices) * devices})
    each = cache_bytes(held, context, cache_dtype)
    free = int(device.memory_bytes * devices * (1 - reserve)) - weights
    count = max(0, free // each) if each else 0
    rate = None
    if device.bandwidth_bytes_per_s is not None and count:
        used: float = parameters.total
        if config.mixture is not None:
            # Weights that at least one of the tokens uses: one leaves out 1 - per_token / experts of the experts.
            unused = 1 - config.mixture.per_token / config.mixture.experts
            used -= (parameters.total - parameters.active) * unused ** (count - 1)
        read = used * WEIGHT_BYTES[dtype]
        rate = device.bandwidth_bytes_per_s * devices / (read + count * each)
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


def _divided_sizes(config: TransformerConfig) -> dict[str, int]:
    """Sizes that tensor-parallel serving divides, by name; heads of keys and values are repeated where they are few."""
    divided: dict[str, int] = {}
    if config.has_attention:
        divided["heads"] = config.heads
    if config.state_space is not None:
        divided["state_space.groups"] = config.state_space.groups
        divided["state space heads"] = StateSpaceShape.of(config.hidden_size, config.state_space).heads
    if config.mixture is not None:
        divided["width of an expert"] = config.mixture.intermediate_size or config.feedforward_width
    elif config.has_attention or config.state_space_feedforward:
        divided["intermediate_size"] = config.feedforward_width
    return divided
