"""How unlikely the champion finds an answer. The API gives no likelihoods, so the model is loaded here."""

from collections.abc import Sequence
from pathlib import Path

from sluice.model.evaluation.evaluated import ContinuationRequest
from sluice.model.evaluation.model_folder import ModelFolder
from sluice.serving.quality.probes import Surprisal


def surprisal_under(folder: Path) -> Surprisal:
    """Return the function of the model in `folder`: a prompt to continue, and answers -> mean nats per token of each.

    Raises ValueError naming a file of the model that is missing or damaged.
    """
    model = ModelFolder(folder)

    def surprisal(prompt: str, answers: Sequence[str]) -> list[float]:
        found = model.score([ContinuationRequest(prompt, answer) for answer in answers])
        return [each.nats / max(1, len(each.tokens)) for each in found]

    return surprisal
