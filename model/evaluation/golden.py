"""Golden prompts: they test that a model answers, not what it knows. A small sound model passes, a broken one fails."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import yaml
from pydantic import ValidationError

from sluice.core.canonical import canonical_json
from sluice.core.progress import Progress, no_progress
from sluice.core.settings.block import Block
from sluice.core.settings.errors import mistake
from sluice.model.architecture.generation import GenerationOptions, generate
from sluice.model.architecture.transformer import Transformer
from sluice.model.evaluation.prompts import chat_prompt, completion_prompt, special_tokens
from sluice.model.text.prompt import PromptEncoder

_REPLACEMENT = "\ufffd"
_LONG_ENOUGH_TO_VARY = 4  # tokens


class GoldenPrompt(Block):
    """One prompt of the file."""

    id: str
    kind: Literal["chat", "completion"]
    prompt: str

    @property
    def item_id(self) -> str:
        return hashlib.sha256(canonical_json(self.model_dump())).hexdigest()[:32]


@dataclass(frozen=True)
class Answer:
    """A model's two answers to one prompt at temperature 0."""

    ids: Sequence[int]
    again: Sequence[int]
    text: str
    logits_finite: bool
    """Whether the logits of prompt and answer, read in one pass, are finite."""
    max_tokens: int


@dataclass(frozen=True)
class GoldenResult:
    """A prompt, the answer's text, and the checks that it failed."""

    prompt: GoldenPrompt
    text: str
    failed: list[str]


def load_prompts(path: Path) -> list[GoldenPrompt]:
    """Read the prompts of a YAML file, which is a list of them. Raises ValueError for a file of another form."""
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} has no prompts: list some, each with id, kind (chat or completion) and prompt")
    prompts = []
    for number, entry in enumerate(entries, start=1):
        try:
            prompts.append(GoldenPrompt.model_validate(entry))
        except ValidationError as error:
            raise ValueError(f"{path}, prompt {number}: {mistake(GoldenPrompt, error)}") from None
    return prompts


def text_checks(text: str, *, is_cut: bool) -> dict[str, bool]:
    """Return the checks of a text alone, by name, and whether it passes; `is_cut` by a limit of its length."""
    # A character cut in two by the length limit is no fault; one inside the text is.
    kept = text.rstrip(_REPLACEMENT) if is_cut else text
    return {"not_empty": bool(kept.strip()), "valid_utf8": _REPLACEMENT not in kept}


def failed_checks(answer: Answer, special: frozenset[int]) -> list[str]:
    """Return the names of the checks that `answer` fails; `special` are the ids that no text may contain."""
    checks = {
        "finite_logits": answer.logits_finite,
        "deterministic": list(answer.ids) == list(answer.again),
        **text_checks(answer.text, is_cut=len(answer.ids) == answer.max_tokens),
        "no_special_tokens": special.isdisjoint(answer.ids),
        "within_length": len(answer.ids) <= answer.max_tokens,
        "not_one_token_repeated": len(answer.ids) < _LONG_ENOUGH_TO_VARY or len(set(answer.ids)) > 1,
    }
    return [name for name, passed in checks.items() if not passed]


def run_golden(
    model: Transformer,
    encoder: PromptEncoder,
    prompts: Sequence[GoldenPrompt],
    max_tokens: int,
    progress: Progress = no_progress,
) -> list[GoldenResult]:
    """Generate an answer to every prompt and check it."""
    tokenizer, options = encoder.tokenizer, GenerationOptions(stop_ids=encoder.stop_ids)
    special = special_tokens(tokenizer)
    results = []
    for done, prompt in enumerate(prompts, start=1):
        render = chat_prompt if prompt.kind == "chat" else completion_prompt
        limit = min(max_tokens, model.config.context // 2)
        ids = render(encoder, prompt.prompt, max_tokens=model.config.context - limit)
        first, again = (generate(model, ids, limit, options) for _ in range(2))
        with torch.inference_mode():
            logits = model(torch.tensor([[*ids, *first]], device=model.embedding.weight.device))
        text = tokenizer.decode(first, skip_special_tokens=False)
        answer = Answer(first, again, text, bool(torch.isfinite(logits).all()), limit)
        results.append(GoldenResult(prompt, answer.text, failed_checks(answer, special)))
        progress(done, len(prompts), "golden prompts")
    return results
