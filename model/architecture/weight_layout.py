"""Weight layouts in which a CPU multiplies a matrix with one or a few rows at memory bandwidth.

Decoding multiplies every matrix with one row, so its time is that of reading the weights. On 2 cores torch's own linear
map read 8 GB/s in float32 and 6 in bfloat16, these layouts 15 in both, and a plain sum over the same memory 33.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Product = Callable[[Tensor, Tensor | None], Tensor]
"""(x [.., in], bias [out] or None) -> [.., out], over a copy of a weight."""


def pack(weight: Tensor, rows: int) -> Product:
    """Copy `weight` [out, in] for products with about `rows` rows of x, without gradients.

    Equals functional.linear up to rounding; bit for bit in bfloat16.
    """
    weight = weight.detach()
    if weight.device.type == "cpu" and weight.dtype == torch.float32:
        return _split(weight, torch.get_num_threads())
    onednn = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and onednn:
        # oneDNN's own layout, which torch's compiler uses for frozen weights.
        blocked, run = torch.ops.mkldnn._reorder_linear_weight(weight, rows), torch.ops.mkldnn._linear_pointwise
        return lambda x, bias: run(x, blocked, bias, "none", [], "")
    return lambda x, bias: functional.linear(x, weight, bias)


def _split(weight: Tensor, threads: int) -> Product:
    """A batch of narrower products, one per thread, with the outputs contiguous in memory.

    The library's matrix-vector product runs in one thread, as dot products along the inputs; its batched products run
    in one thread per member. Outputs are zero-padded to a multiple of the threads.
    """
    outputs, inputs = weight.shape
    filled = -(-outputs // threads) * threads
    padded = weight if filled == outputs else functional.pad(weight, (0, 0, 0, filled - outputs))
    stacked = padded.view(threads, filled // threads, inputs).transpose(1, 2).contiguous()  # [threads, in, out / ..]

    def product(x: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.numel() // inputs
        y = torch.matmul(x.reshape(1, rows, inputs), stacked)  # [threads, rows, out / threads]
        y = (y if rows == 1 else y.transpose(0, 1)).reshape(*x.shape[:-1], filled)
        y = y if filled == outputs else y[..., :outputs]
        return y if bias is None else y.add_(bias)

    return product
