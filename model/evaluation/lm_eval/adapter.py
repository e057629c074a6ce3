"""A model under evaluation as lm-eval's `LM`, which answers the requests of its tasks."""

from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs

from sluice.core.progress import Progress, no_progress
from sluice.model.evaluation.evaluated import AnswerRequest, ContinuationRequest, EvaluatedModel

_MAX_TOKENS = 256  # of an answer whose task names no limit, as in lm-eval's backends
_UNSUPPORTED = ("top_k", "min_p", "repetition_penalty", "num_beams", "logits_processor")


class EvaluatedLM(LM):
    """Adapter; requests are answered in any order, and the errors of answers are kept by request."""

    def __init__(self, model: EvaluatedModel, progress: Progress = no_progress) -> None:
        super().__init__()
        self._model, self._progress = model, progress
        self.errors: dict[int, str] = {}
        """Why a request has no answer, by the id of its Instance."""

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation in nats, and whether it is the greedy one."""
        asked = [ContinuationRequest(*request.args) for request in requests]
        return [(-found.nats, found.is_greedy) for found in self._model.score(asked, self._progress)]

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        """Log-likelihood of each text in nats, by windows that overlap by half a context (lm-eval's are disjoint)."""
        asked = [ContinuationRequest("", request.args[0], whole=True) for request in requests]
        return [-found.nats for found in self._model.score(asked, self._progress)]

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Greedy or sampled answers; of one that failed the text is empty."""
        found = self._model.generate([_generation(*request.args) for request in requests], self._progress)
        for request, answer in zip(requests, found, strict=True):
            if answer.finish_reason == "error":
                self.errors[id(request)] = answer.error
        return [answer.text for answer in found]


def _generation(prompt: str, settings: dict[str, Any]) -> AnswerRequest:
    """Request of a prompt with lm-eval's settings of generation."""
    given = dict(normalize_gen_kwargs(settings, _MAX_TOKENS))
    if wrong := [name for name in _UNSUPPORTED if given.get(name) is not None]:
        raise ValueError(f"the task sets {wrong[0]} of generation, which is not supported: choose another task")
    return AnswerRequest(
        prompt,
        int(given["max_gen_toks"]),
        tuple(stop for stop in given.get("until", ()) if stop),
        float(given.get("temperature") or 0.0),
        float(given.get("top_p") or 1.0),
        cut_prompt=True,
    )
