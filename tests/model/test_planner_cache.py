"""Bytes of the cache: those of the real one, for every kind of layer and type."""

import pytest
import torch
from architecture_fixtures import CONTEXT, DECODERS, ENCODER_DECODERS, ENCODERS, shape, shapes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluice.model.architecture.cache import Cache
from sluice.model.architecture.config import TransformerConfig
from sluice.model.planner.accelerators import DEVICES
from sluice.model.planner.kv_cache import CacheDtype, cache_bytes, cache_sizes, head_sharing
from sluice.model.planner.parameters import count_parameters
from sluice.model.planner.serving import users

TYPES: dict[CacheDtype, tuple[torch.dtype, bool]] = {
    "fp32": (torch.float32, False),
    "bf16": (torch.bfloat16, False),
    "int8": (torch.bfloat16, True),
}


def assert_real(config: TransformerConfig, length: int, source: int | None, dtype: CacheDtype) -> None:
    torch_dtype, quantized = TYPES[dtype]
    expected = cache_bytes(config, length, dtype, source)
    if quantized and not config.has_attention:
        return  # there are no keys and values to quantize
    cache = Cache(config, 1, length, dtype=torch_dtype, quantized=quantized, source_length=source)
    assert expected == cache.size_bytes


@pytest.mark.parametrize("name", [*DECODERS, *ENCODER_DECODERS])
@pytest.mark.parametrize("dtype", TYPES)
def test_it_is_as_large_as_the_real_one(name: str, dtype: CacheDtype) -> None:
    config = shape({**DECODERS, **ENCODER_DECODERS}[name])
    assert_real(config, CONTEXT, 9 if config.kind == "encoder-decoder" else None, dtype)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(
    config=shapes(("decoder", "encoder-decoder")), length=st.integers(1, CONTEXT), dtype=st.sampled_from(sorted(TYPES))
)
def test_so_it_is_for_every_combination(config: TransformerConfig, length: int, dtype: CacheDtype) -> None:
    assert_real(config, length, 7 if config.kind == "encoder-decoder" else None, dtype)


def test_sharing_heads_divides_the_cache() -> None:
    config = shape({"kv_heads": 2})
    assert head_sharing(config) == "GQA"
    sizes = {size.sharing: size for size in cache_sizes(config) if size.dtype == "bf16"}
    assert list(sizes) == ["MHA", "GQA", "MQA"]
    assert sizes["MHA"].context_bytes == 2 * sizes["GQA"].context_bytes == 4 * sizes["MQA"].context_bytes
    assert sizes["GQA"].context_bytes == CONTEXT * sizes["GQA"].token_bytes


def test_windows_and_states_do_not_grow() -> None:
    window, state = shape({"window": 4, "global_tokens": 2}), shape(DECODERS["mamba"])
    for config, full in ((window, 6), (state, 1)):
        assert cache_bytes(config, full, "fp32") == cache_bytes(config, CONTEXT, "fp32") > 0
        assert {size.token_bytes for size in cache_sizes(config)} == {0}
    assert len(cache_sizes(state)) == len(TYPES)


def test_an_encoder_keeps_none() -> None:
    assert cache_bytes(shape(ENCODERS["bert"]), CONTEXT, "fp32") == 0


def test_users_fill_the_memory_beside_the_weights() -> None:
    config, device = shape({}), DEVICES["h100-sxm"]
    found = users(config, device, devices=2, context=12, reserve=0.2)
    free = 2 * device.memory_bytes * 0.8 - 2 * count_parameters(config).total
    assert found.users == int(free // cache_bytes(config, 12, "bf16"))
    assert found.cache_bytes * found.users + found.weights_bytes <= 2 * device.memory_bytes * 0.8
    assert users(config, device, context=12, cache_dtype="int8").users > users(config, device, context=12).users
    too_large = device.model_copy(update={"memory_bytes": 1000})
    assert users(config, too_large).users == 0 and users(config, too_large).tokens_per_s is None


@pytest.mark.parametrize(("memory_bytes", "met"), [(1, 2), (2, 3)])
def test_users_of_a_mixture_read_the_experts_that_they_meet(memory_bytes: int, met: int) -> None:
    # Of 4 experts with 2 a token one user reads 2, and two read 3: each of them misses half.
    config, h100 = shape(DECODERS["mixture"]), DEVICES["h100-sxm"]
    parameters, each = count_parameters(config), cache_bytes(config, CONTEXT, "bf16")
    device = h100.model_copy(update={"memory_bytes": 2 * parameters.total + memory_bytes * each})
    found = users(config, device, reserve=0)
    assert found.users == memory_bytes and h100.bandwidth_bytes_per_s is not None
    expert = (parameters.total - parameters.active) / 2
    read = 2 * (parameters.active + (met - 2) * expert) + found.users * each
    assert found.tokens_per_s == pytest.approx(h100.bandwidth_bytes_per_s / read)
    # Users enough to meet them all.
    many = users(config, h100)
    assert many.tokens_per_s == pytest.approx(h100.bandwidth_bytes_per_s / (many.weights_bytes + many.users * each))


@pytest.mark.parametrize(("kv_heads", "devices", "held"), [(1, 4, 4), (2, 4, 4), (4, 4, 4), (2, 2, 2), (1, 1, 1)])
def test_each_device_holds_whole_heads_of_keys_and_values(kv_heads: int, devices: int, held: int) -> None:
    config, device = shape({"kv_heads": kv_heads}), DEVICES["h100-sxm"]
    alone = cache_bytes(shape({"kv_heads": 1}), CONTEXT, "bf16")
    assert users(config, device, devices=devices).cache_bytes == held * alone


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("llama", {"context": 25}, "context 25 is longer"),
        ("llama", {"reserve": 1.0}, "reserve 1.0 must"),
        ("llama", {"devices": 3}, "serving_devices 3 must divide heads 4"),
        ("mamba", {"devices": 7}, "serving_devices 7 must divide state_space.groups 1"),
        ("hybrid_mixture", {"devices": 4}, "serving_devices 4 must divide state_space.groups 2"),
    ],
)
def test_users_that_cannot_be_are_refused(name: str, change: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        users(shape(DECODERS[name]), DEVICES["a10g"], **change)  # type: ignore[arg-type]
