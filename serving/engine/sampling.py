"""The next token of every sequence of a batch."""

from collections.abc import Sequence as Rows

from torch import Tensor

from sluice.model.architecture.sampling import sample
from sluice.serving.engine.sequence import Sequence


def sample_next(logits: Tensor, sequences: Rows[Sequence]) -> list[tuple[int, float] | None]:
    """Draw each sequence's next token from its row of logits [sequences, vocab], with the request's own generator.

    Returns the token and its log probability at temperature 1, in nats; None for a row that is not finite.
    """
    finite = logits.isfinite().all(dim=-1).tolist()
    log_probabilities = logits.log_softmax(dim=-1)
    greedy = logits.argmax(dim=-1).tolist()
    found: list[tuple[int, float] | None] = []
    for row, sequence in enumerate(sequences):
        if not finite[row]:
            found.append(None)
            continue
        request, token = sequence.request, greedy[row]
        if request.temperature > 0:
            token = int(sample(logits[row : row + 1], request.temperature, request.top_p, sequence.generator))
        found.append((token, float(log_probabilities[row, token])))
    return found
