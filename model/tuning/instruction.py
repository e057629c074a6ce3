"""Supervised fine-tuning on question/answer pairs made from the training documents."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel
from tokenizers import Tokenizer

from sluice.core.progress import Progress, no_progress
from sluice.data.config import PackConfig
from sluice.data.document import Document, read_documents
from sluice.data.extraction.sections import continuations, sections
from sluice.data.split import Split, split_of
from sluice.model.architecture.loss import cross_entropy_sum
from sluice.model.architecture.transformer import Transformer
from sluice.model.config import TuneConfig
from sluice.model.directory import load_model, model_hash, save_continued
from sluice.model.training.batches.batch import Batch
from sluice.model.training.engines.local import LocalEngine
from sluice.model.training.loop import LoopClock, LoopHooks, train
from sluice.model.training.optimization.optimizers.adamw import adamw
from sluice.model.training.optimization.parameter_groups import parameter_groups
from sluice.model.training.optimization.schedule import learning_rate_scale
from sluice.model.tuning.chat import Rendered, collate, padding_id, render_pair

_SHORTEST_ANSWER_BYTES = 80
_VALIDATION_PAIRS = 128


@dataclass(frozen=True)
class QuestionAnswer:
    """A heading and the text under it, or a passage and the one that follows it."""

    question: str
    answer: str


class TuneReport(BaseModel):
    """Result of tuning. All but `timings` is the same for the same inputs and settings."""

    pairs: int = 0
    steps: int = 0
    answer_tokens: int = 0
    """Tokens trained on."""
    final_loss: float | None = None
    """Nats an answer token in the last step; None where tuning is skipped."""
    validation_pairs: int = 0
    validation_loss_before: float | None = None
    """Nats an answer token on pairs of validation documents, of the base model; None without such pairs."""
    validation_loss: float | None = None
    timings: dict[str, float] = {}


def tune(
    config: TuneConfig,
    base: Path,
    documents: Path,
    split: PackConfig,
    out: Path,
    *,
    progress: Progress = no_progress,
) -> TuneReport:
    """Teach the model in `base` to answer with the text that belongs to a heading, or that follows a passage; write it
    and tuning.jsonl to `out`. Without stages, `out` is the base model.

    Runs in this process, which costs less than a second group of workers would save. Raises ValueError where no
    training document has a pair.
    """
    started = time.perf_counter()
    model, tokenizer = load_model(base)
    if not config.stages:
        save_continued(out, model, base, {"tune": config.model_dump(mode="json"), "base": model_hash(base)})
        return TuneReport(timings={"total_seconds": time.perf_counter() - started})
    texts = list(read_documents(documents))
    pairs = make_pairs(texts, split, "train")[: config.max_pairs]
    if not pairs:
        raise ValueError(
            f"no training document in {documents} has a pair to tune on (a heading with text, or 160 characters): add "
            "text, or skip tuning by tune.stages=[]"
        )
    longest = model.config.context + 1  # the last token is only a target
    held_out = [
        render_pair(tokenizer, pair.question, pair.answer, longest)
        for pair in make_pairs(texts, split, "valid")[:_VALIDATION_PAIRS]
    ]
    before = _answer_loss(model, tokenizer, held_out, config.batch_size)
    clock = LoopClock()
    optimizer = adamw(parameter_groups(model), config.learning_rate, weight_decay=0.0, betas=(0.9, 0.95))
    engine = LocalEngine(model, optimizer, gradient_clip=1.0)
    hooks = _hooks(config, tokenizer, pairs, longest)
    log = train(engine, hooks, done=0, log=[], progress=progress, clock=clock)
    after = _answer_loss(model, tokenizer, held_out, config.batch_size)
    save_continued(out, model, base, {"tune": config.model_dump(mode="json"), "base": model_hash(base)})
    (out / "tuning.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log), encoding="utf-8")
    return TuneReport(
        pairs=len(pairs),
        steps=config.steps,
        answer_tokens=clock.tokens,
        final_loss=log[-1]["loss"],
        validation_pairs=len(held_out),
        validation_loss_before=before,
        validation_loss=after,
        timings={
            "train_seconds": clock.train,
            "tokens_per_second": clock.tokens / clock.train,
            "total_seconds": time.perf_counter() - started,
        },
    )


def _hooks(config: TuneConfig, tokenizer: Tokenizer, pairs: Sequence[QuestionAnswer], longest: int) -> LoopHooks:
    order = PairOrder(len(pairs), config.batch_size, config.unasked_fraction, config.seed)
    padding = padding_id(tokenizer)

    def batch(step: int) -> Batch:
        chosen = [(pairs[index], asked) for index, asked in order.at(step)]
        rendered = [
            render_pair(tokenizer, pair.question if asked else "", pair.answer, longest) for pair, asked in chosen
        ]
        return collate(rendered, padding)

    return LoopHooks(
        steps=config.steps,
        micro_batch_size=config.batch_size,
        learning_rate_scale=lambda step: learning_rate_scale(
            step, config.steps, warmup_steps=config.warmup_steps, decay_fraction=1.0, last=0.0
        ),
        batch=batch,
    )


def make_pairs(documents: Sequence[Document], split: PackConfig, side: Split) -> list[QuestionAnswer]:
    """Pairs from the documents of one side of the split: continuations of those without headings, then sections of
    the others, in the documents' order.

    A heading of several sections ("Examples") is joined with the heading above it, or left out at the top level.
    """
    found = []
    pairs = []
    for document in documents:
        if split_of(document.id, split) != side:
            continue
        pairs += [QuestionAnswer(before, after) for before, after in continuations(document.text)]
        above: dict[int, str] = {}
        for section in sections(document.text):
            above = {level: heading for level, heading in above.items() if level < section.level}
            parent = above[max(above)] if above else ""
            above[section.level] = section.heading
            if section.heading and len(section.body.encode()) >= _SHORTEST_ANSWER_BYTES:
                found.append((parent, section.heading, section.body.strip()))
    times = Counter(heading.casefold() for _, heading, _ in found)
    for parent, heading, body in found:
        if times[heading.casefold()] == 1:
            pairs.append(QuestionAnswer(heading, body))
        elif parent:
            pairs.append(QuestionAnswer(f"{parent}: {heading}", body))
    return pairs


@dataclass(frozen=True)
class PairOrder:
    """Which pairs a step sees: a pure function of seed and step; each epoch in an order of its own."""

    pairs: int
    batch_size: int
    unasked_fraction: float
    """Share of answers given without their question, which teaches the form of an answer."""
    seed: int

    def at(self, step: int) -> list[tuple[int, bool]]:
        """(pair, whether its question is included) of each row of `step`, counted from 0."""
        visits = range(step * self.batch_size, (step + 1) * self.batch_size)
        rows = []
        for epoch, place in (divmod(visit, self.pairs) for visit in visits):
            generator = np.random.Generator(np.random.PCG64([self.seed, epoch]))
            index = int(generator.permutation(self.pairs)[place])
            rows.append((index, bool(generator.random(self.pairs)[place] >= self.unasked_fraction)))
        return rows


@torch.inference_mode()
def _answer_loss(
    model: Transformer, tokenizer: Tokenizer, conversations: Sequence[Rendered], batch_size: int
) -> float | None:
    """Nats a learned token; None without conversations."""
    if not conversations:
        return None
    model.eval()
    nats, tokens = 0.0, 0
    for first in range(0, len(conversations), batch_size):
        batch = collate(conversations[first : first + batch_size], padding_id(tokenizer))
        summed, count = cross_entropy_sum(model, batch.ids, batch.targets, batch.mask)
        nats, tokens = nats + float(summed), tokens + int(count)
    return nats / tokens
