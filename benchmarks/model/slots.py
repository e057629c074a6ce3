"""One decoding step by the order of its rows' slots; writes the table of "Caches" in docs/model.md.

python -m benchmarks.model.slots [--check]
"""

import argparse
import statistics
import time

import torch

from benchmarks.markers import markdown
from benchmarks.report import print_or_write
from sluice.model.architecture.cache import Cache
from sluice.model.architecture.config import ModelConfig, TransformerConfig
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.transformer import Transformer

CONTEXTS, ROWS, HELD, VOCAB = (1024, 4096, 16384), 8, (64, 512), 4096
SHAPE = {"hidden_size": 256, "layers": 6, "heads": 8, "kv_heads": 4}
STEPS = 31
"""Steps of each order, in turns; the median counts."""


def measure(context: int, held: int) -> dict[str, float]:
    """Median CPU milliseconds of a step of ROWS rows of `held` tokens, by the order of their slots."""
    config = TransformerConfig.from_settings(ModelConfig.model_validate({**SHAPE, "context": context}), VOCAB)
    model = Transformer(config).eval()
    initialize(model, seed=0)
    cache, ids = Cache(config, ROWS), torch.zeros(ROWS, held, dtype=torch.int64)
    orders = {"in order": torch.arange(ROWS), "reversed": torch.arange(ROWS).flip(0)}
    taken: dict[str, list[float]] = {name: [] for name in orders}
    with torch.inference_mode():
        model.hidden(ids, cache=cache)
        for _ in range(STEPS):
            for name, slots in orders.items():
                cache.lengths[:] = held
                started = time.process_time()
                model.logits(model.hidden(ids[:, :1], cache=cache, slots=slots)[:, -1])
                taken[name].append(1e3 * (time.process_time() - started))
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="print the table and leave docs/model.md as it is")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for held in HELD:
        for context in CONTEXTS:
            found = measure(context, held)
            ratio = found["reversed"] / found["in order"]
            rows.append((f"{held}", f"{context:,}", *(f"{each:.1f} ms" for each in found.values()), f"{ratio:.2f}"))
    head = "tokens a row | >context | >slots in order | >reversed | >reversed / in order"
    print_or_write("model.md", {"slots": markdown(head, rows)}, is_check=arguments.check)


if __name__ == "__main__":
    main()
