"""Activation memory: the tensors that this model's layers and kernels keep for the backward pass.

The method is that of Korthikanti et al. (arXiv 2205.05198, section 4): every operation keeps the inputs that its
gradient needs. Their layer of a GPT (16-bit, dropout, tensor-parallel degree t) keeps s b h (10 + 24/t + 5 a s / (h t))
bytes, of which a kernel that never forms the scores drops the last term; so counts this module.
"""

from typing import Literal

from sluice.model.architecture.config import GATED, TransformerConfig
from sluice.model.planner.base import WEIGHT_BYTES, Dtype
from sluice.model.planner.weights import Stack, StateSpaceShape

Kernel = Literal["flash", "repeated", "blocked", "math", "reference"]
"""flash: no score is kept (SDPA, FlexAttention, flash-attn); repeated: nor here, but keys and values of every head;
blocked: the probabilities of the blocks that are seen, on a CPU; math: every probability, which is what SDPA falls back
to; reference: every score and probability.
"""

_FLASH_ATTN_INSTALLED = False
"""Assumed of every accelerator: the package is built by hand, and sluice does not bring it."""
_BLOCKED_ROWS: dict[Dtype, int] = {"fp32": 32, "bf16": 64, "fp16": 64}
_CHUNK_LOGITS = 2**20
_ACCELERATOR_CHUNK_LOGITS = 2**26
"""Logits that the loss holds at a time."""
_WIDE_BYTES = 4
"""Bytes of float32, which statistics and state space scans use whatever the type of the weights."""


def default_kernel(
    config: TransformerConfig,
    dtype: Dtype,
    length: int,
    *,
    on_cpu: bool,
    causal: bool,
    window: int | None = None,
    is_cross: bool = False,
) -> Kernel:
    """The kernel that the model chooses for attention in training, without flash-attn and on rows that are not divided
    into documents.
    """
    import torch

    from sluice.model.architecture.kernels import KernelRequest, choose
    from sluice.model.architecture.kernels.sdpa import shares_heads

    window = window if window is not None and window < length else None
    bias, slopes = (config.positions == name and not is_cross for name in ("relative", "alibi"))
    request = KernelRequest(
        device="cpu" if on_cpu else "cuda",
        dtype={"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype],
        gradient=True,
        queries=length,
        keys=length,
        head_size=config.head_width,
        plain=window is None and not bias and not slopes,
        causal=causal,
        window=window,
        global_tokens=window is not None and config.global_tokens > 0,
        bias=bias,
        bias_gradient=bias,
        slopes=slopes,
        soft_cap=config.attention_soft_cap is not None,
        dropout=config.attention_dropout > 0,
        flash_installed=_FLASH_ATTN_INSTALLED,
    )
    kernel, _ = choose(request)
    if kernel == "sdpa" and on_cpu and (request.dropout or request.bias_gradient):
        return "math"
    shares = config.heads == config.kv_heads or shares_heads(request.device, request.dtype, masked=not request.plain)
    if kernel == "sdpa" and not shares:
        return "repeated"
    return kernel if kernel in ("blocked", "reference") else "flash"


def layer_bytes(
    config: TransformerConfig,
    layer: tuple[Stack, int],
    *,
    dtype: Dtype,
    batch: int,
    length: int,
    kernel: Kernel | None = None,
    tensor: int = 1,
    on_cpu: bool = False,
) -> int:
    """Kept by one layer for a micro-batch of `batch` sequences of `length` tokens (source and target alike).

    `kernel` unset: for each attention its `default_kernel`.
    """
    stack, number = layer
    kind = (config.encoder_kinds if stack == "encoder" else config.layer_kinds)[number]
    causal = config.kind != "encoder" and stack == "decoder"
    crosses = config.kind == "encoder-decoder" and stack == "decoder"
    feeds = kind != "state_space" or config.state_space_feedforward
    sublayers = 1 + crosses + feeds
    # Norms of a layer, the different tensors that they read, and those that the sublayers' matrices read.
    match config.sublayers:
        case "parallel":
            norms, inputs, outputs = 2, 1, 2
        case "parallel_one_norm":
            norms, inputs, outputs = 1, 1, 1
        case "sequential":
            norms = inputs = 2 * sublayers if config.norm_position == "sandwich" else sublayers
            outputs = sublayers
    # Whole on every tensor-parallel device; weights stored less one are multiplied in float32.
    copied = config.norm_plus_one and dtype != "fp32"
    whole = (outputs if copied else inputs + outputs) * config.hidden_size
    wide = norms * ((1 if config.norm == "rms" else 2) + copied * config.hidden_size)
    divided = scores = 0
    if kind == "state_space":
        narrow, scanned = _state_space(config, dtype, length)
        divided, wide = divided + narrow, wide + scanned
    else:
        window = config.window if kind == "window" else None
        each = kernel or default_kernel(config, dtype, length, on_cpu=on_cpu, causal=causal, window=window)
        divided += _attention(config, dtype, each, length, causal=causal, window=window)
        scores += _score_bytes(config, dtype, each, length, on_cpu=on_cpu)
    if crosses:
        each = kernel or default_kernel(config, dtype, length, on_cpu=on_cpu, causal=False, is_cross=True)
        divided += _attention(config, dtype, each, length, causal=False, window=None, is_cross=True)
        scores += _score_bytes(config, dtype, each, length, on_cpu=on_cpu)
    if feeds:
        divided += _feedforward(config)
        wide += 3 * config.mixture.experts if config.mixture else 0
    width = WEIGHT_BYTES[dtype]
    # An accelerator keeps a dropout's mask as bytes, a CPU in the type that it multiplies with.
    mask = sublayers * config.hidden_size * (width if on_cpu else 1) if config.dropout else 0
    return batch * length * (whole * width + (divided * width + scores) // tensor + wide * _WIDE_BYTES + mask)


def outer_bytes(config: TransformerConfig, *, dtype: Dtype, batch: int, length: int) -> int:
    """Kept outside the layers: the last norm's input, the loss's gradient by its output and by the head's weights."""
    a_token = (2 + config.embedding_norm) * config.hidden_size
    return (batch * length * a_token + config.vocab_size * config.hidden_size) * WEIGHT_BYTES[dtype]


def workspace_bytes(
    config: TransformerConfig, *, dtype: Dtype, batch: int, length: int, on_cpu: bool, tensor: int = 1
) -> int:
    """Bytes of temporary tensors: the gradients within one layer, the logits of one chunk of rows with theirs, and
    where weights are narrow the sum of the head's gradient in float32, with what a chunk adds to it.
    """
    inner = _feedforward(config) if config.has_attention or config.state_space_feedforward else 0
    narrow, wide = _state_space(config, dtype, length) if config.state_space else (0, 0)
    a_token = max(inner * WEIGHT_BYTES[dtype], narrow * WEIGHT_BYTES[dtype] + wide * _WIDE_BYTES)
    chunk = min(_CHUNK_LOGITS if on_cpu else _ACCELERATOR_CHUNK_LOGITS, batch * length * config.vocab_size)
    summed = config.vocab_size * config.hidden_size * (_WIDE_BYTES + WEIGHT_BYTES[dtype]) if dtype != "fp32" else 0
    return batch * length * a_token // tensor + chunk * (2 * _WIDE_BYTES) + summed


def input_bytes(config: TransformerConfig, *, dtype: Dtype, batch: int, length: int) -> int:
    """A layer's input: all that activation checkpointing keeps of it (Chen et al., arXiv 1604.06174)."""
    return batch * length * config.hidden_size * WEIGHT_BYTES[dtype]


def _attention(
    config: TransformerConfig,
    dtype: Dtype,
    kernel: Kernel,
    length: int,
    *,
    causal: bool,
    window: int | None,
    is_cross: bool = False,
) -> int:
    """Entries a token: queries, keys, values, what the heads give (the output matrix's input), and the kernel's own."""
    queries, keys = config.heads * config.head_width, config.kv_heads * config.head_width
    kept = 2 * queries + 2 * keys
    if config.qk_norm and config.positions == "rope" and not is_cross:
        kept += (queries + keys) * (2 if config.norm_plus_one and dtype != "fp32" else 1)
    if kernel == "repeated":
        kept += 2 * (queries - keys)
    if kernel == "blocked":
        kept += config.heads * _blocked_pairs(config, length, _BLOCKED_ROWS[dtype], causal, window) // length
    return kept


def _score_bytes(config: TransformerConfig, dtype: Dtype, kernel: Kernel, length: int, *, on_cpu: bool) -> int:
    """Bytes a token that a kernel keeps of scores, and to have them."""
    if kernel not in ("math", "reference"):
        return 0
    # The softmax, in float32, and what is left of it.
    a_pair, a_token = _WIDE_BYTES, 0
    if kernel == "reference":
        a_pair += _WIDE_BYTES * (config.attention_soft_cap is not None) + WEIGHT_BYTES[dtype]
    else:
        a_pair += _WIDE_BYTES * (config.attention_dropout > 0)
        # Queries, keys and values in float32, the first two scaled.
        a_token = config.head_width * (4 * _WIDE_BYTES - 3 * WEIGHT_BYTES[dtype])
    if config.attention_dropout:
        a_pair += _WIDE_BYTES if on_cpu else 1
    return config.heads * (length * a_pair + a_token)


def _blocked_pairs(config: TransformerConfig, length: int, rows: int, causal: bool, window: int | None) -> int:
    """Pairs of a query and a key between the first and the last key that any query of its block of `rows` sees."""
    total = 0
    for start in range(0, length, rows):
        end = min(start + rows, length)
        low, high = 0, end if causal else length
        if window is not None and not config.global_tokens:
            low = max(0, start - window + 1)
            high = end if causal else min(length, end + window - 1)
        total += (end - start) * (high - low)
    return total


def _feedforward(config: TransformerConfig) -> int:
    if (mixture := config.mixture) is None:
        return network_entries(config, config.feedforward_width)
    width = mixture.intermediate_size or config.feedforward_width
    # Of each expert that a token goes to: a copy of the token, the network's own, and what comes out, to be weighted.
    routed = mixture.per_token * (2 * config.hidden_size + network_entries(config, width))
    return routed + (network_entries(config, mixture.shared * width) if mixture.shared else 0)


def network_entries(config: TransformerConfig, width: int) -> int:
    """Gated: gate, up, activated gate, and their product, the last matrix's input. GELU: its input and output. ReLU:
    its output, which shows where it was zero.
    """
    if config.feedforward in GATED:
        return 4 * width
    return width if config.feedforward == "relu" else 2 * width


def _state_space(config: TransformerConfig, dtype: Dtype, length: int) -> tuple[int, int]:
    """Entries a token in the weights' type, and in float32, in which the convolution and the scan work."""
    assert config.state_space is not None
    state, sizes = config.state_space, StateSpaceShape.of(config.hidden_size, config.state_space)
    chunk = min(state.chunk, length)
    # Projection, the convolution's input, the normalized output and its product with the norm's weight.
    narrow = sizes.projected + sizes.channels + 2 * sizes.inner
    # The convolution before and after its activation; of the scan its inputs twice, what each chunk adds and reads,
    # its output; the activated gate and the gated output.
    wide = 2 * sizes.channels + 7 * sizes.inner
    # Decays and scores within a chunk, time steps, and the state before each chunk.
    wide += (2 * sizes.heads + state.groups) * chunk + 6 * sizes.heads + 2 * sizes.inner * state.state_size // chunk
    if dtype != "fp32":
        wide += sizes.channels + sizes.inner
    return narrow, wide
