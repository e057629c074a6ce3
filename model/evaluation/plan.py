"""Plan of an evaluation: a model, opened when it has to answer, and the measurements to make."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sluice.core.progress import Progress
from sluice.model.config import EvaluateConfig
from sluice.model.evaluation.evaluated import EvaluatedModel
from sluice.model.evaluation.held_out import HeldOut
from sluice.model.evaluation.metric import Subject

if TYPE_CHECKING:
    from sluice.model.evaluation.judging.judge_server import JudgeServer
    from sluice.model.evaluation.suites.suite import Suite


@dataclass(frozen=True)
class EvaluationPlan:
    """The measurements."""

    config: EvaluateConfig
    held_out: HeldOut | None = None
    """Text for the metrics; None: suites and tasks alone."""
    suites: tuple["Suite", ...] = ()
    tasks: Mapping[str, Path] = field(default_factory=dict)
    """Tasks of lm-eval, with the folder of their data."""
    extraction: HeldOut | None = None
    """Corpus whose training documents the model may give away; None: not asked."""
    training_texts: tuple[str, ...] = ()
    """Texts that the model may have been trained on: items that occur in them are scored apart."""
    judge: "JudgeServer | None" = None
    """Judge of the suites that want one; None: what it would score has no rows."""
    judge_is: Literal["candidate", "baseline"] | None = None
    """Which of the evaluated models is the judge, if one is."""
    beside: Path | None = None
    """Evaluation folder of the baseline, with whose answers the judge compares; None: not compared."""

    @property
    def reads_data(self) -> bool:
        """Whether anything is asked from held-out text or a task's data."""
        from sluice.model.evaluation.suites.retrieval import NAME as RETRIEVAL

        measures = self.held_out is not None or self.extraction is not None or bool(self.tasks)
        return measures or any(suite.settings.name == RETRIEVAL for suite in self.suites)


class EvaluatedCandidate:
    """A model directory or a served URL. A directory is loaded at first use, so that kept answers need no weights."""

    def __init__(self, name: str | Path) -> None:
        self.is_served = isinstance(name, str) and name.startswith(("http://", "https://"))
        self.name = name

    @property
    def folder(self) -> Path:
        assert not self.is_served
        return Path(self.name)

    @cached_property
    def model(self) -> EvaluatedModel:
        from sluice.model.evaluation.open_model import open_model

        return open_model(self.name)

    @cached_property
    def model_hash(self) -> str:
        from sluice.model.model_files import model_hash

        return self.model.model_hash if self.is_served else model_hash(self.folder)

    @cached_property
    def has_chat(self) -> bool:
        """Whether conversations can be asked, by the tokenizer's files alone; a server is taken to do so."""
        from sluice.data.tokenization.folder import load_tokenizer
        from sluice.model.text.prompt import load_prompt_encoder

        if self.is_served or not (self.folder / "tokenizer.json").is_file():
            return True  # opening the directory says what is missing
        try:
            tokenizer = load_tokenizer(self.folder)
            return load_prompt_encoder(self.folder, tokenizer, tokenizer.get_vocab_size()).has_chat
        except Exception:  # of tokenizers, which has no class of its own; opening names the damaged file
            return True

    def subject(self, held_out: HeldOut, config: EvaluateConfig, progress: Progress) -> Subject:
        """Return the directory's model as the metrics measure it."""
        from sluice.model.evaluation.model_folder import ModelFolder
        from sluice.model.text.prompt import load_prompt_encoder

        assert isinstance(self.model, ModelFolder)
        model = self.model.model
        encoder = load_prompt_encoder(self.folder, self.model.tokenizer, model.config.vocab_size)
        return Subject(model, encoder, held_out, config, progress)
