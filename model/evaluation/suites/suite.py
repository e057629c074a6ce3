"""A suite: a YAML file that says what is asked and how it is scored, and a JSONL file of samples, pinned by sha256."""

import string
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from sluice.core.manifest import file_hash
from sluice.core.settings.block import Block
from sluice.core.settings.errors import mistake
from sluice.model.evaluation.judging.judge import LabelledAnswer
from sluice.model.evaluation.judging.labelled import read_labelled
from sluice.model.evaluation.judging.rubric import Rubric, find_rubric, load_rubric
from sluice.model.evaluation.suites.perturbations import PERTURBATIONS
from sluice.model.evaluation.suites.samples import LETTERED_CHOICES, SampleFields, SuiteSample, read_samples
from sluice.model.evaluation.suites.scorers import SCORERS
from sluice.model.evaluation.yaml_file import read_yaml

NAME_PATTERN = "[a-z0-9][a-z0-9_-]*"
"""Names of suites; a dot ends the name in a metric's."""


class Sampling(Block):
    """Answers drawn beside the greedy one, for pass@k and the spread over seeds."""

    answers: int = Field(5, ge=2)
    temperature: float = Field(0.8, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int = 1234
    """Seed of the first answer; each further one adds 1."""
    pass_at: list[int] = Field([1], min_length=1)
    """The k of pass@k. One over `answers` is inconclusive."""

    @field_validator("pass_at")
    @classmethod
    def _positive(cls, values: list[int]) -> list[int]:
        if min(values) < 1:
            raise ValueError("each k is at least 1")
        return values


class JudgeSettings(Block):
    """A judge beside the scorers; `sluice evaluate` asks the one that SLUICE_JUDGE_URL and SLUICE_JUDGE_MODEL name."""

    rubric: str = Field(min_length=1)
    """A YAML file, relative to the suite's, or one that comes with sluice: answer, refusal."""
    labels: str | None = None
    """JSONL file of answers that people labelled, relative to the suite's; without it the judge decides nothing."""
    labels_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """Hash of the labels' file."""
    compare: str | None = None
    """Rubric by which answers are compared with the baseline's, in both orders: a YAML file, or `better`."""

    @model_validator(mode="after")
    def _pinned(self) -> "JudgeSettings":
        if (self.labels is None) != (self.labels_sha256 is None):
            raise ValueError("labels and labels_sha256 belong together: name both")
        return self


class SuiteSettings(Block):
    """Content of a suite's YAML file."""

    name: str = Field(pattern=f"^{NAME_PATTERN}$")
    """Names the suite's metrics: NAME, or NAME.SCORER where there are several scorers."""
    version: int | str
    source: str = Field(min_length=1)
    """Where the samples come from."""
    licence: str = Field(min_length=1)
    created: date
    refresh_by: date
    """After this day the suite's checks are inconclusive, until its samples are renewed."""
    data: str = Field(min_length=1)
    """JSONL file of the samples, relative to the YAML file."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Hash of the data file."""
    scorers: list[str] = Field(min_length=1)
    prompt: str = "{question}"
    """Template; `{field}` is a field of the sample, `{lettered_choices}` its choices as a list from A, `{{` a brace."""
    chat: bool = True
    """Whether the prompt is a question in the model's chat template; false: text that the model continues."""
    target: str = "target"
    """Field of the right answer, or of a list of right answers."""
    choices: str = "choices"
    """Field of the choices: a list, or a mapping of labels to choices."""
    key: str = "answer"
    """Field of the right choice: its index from 0, its letter from A, or its label."""
    choice_prefix: str = ""
    """Text between prompt and choice, such as a space where the prompt is continued."""
    alone_prompt: str = ""
    """Prompt without a question, against which `choice_gain` compares."""
    few_shot: int = Field(0, ge=0)
    """Examples before each prompt: other samples of the suite, never of the same prompt or cluster."""
    max_tokens: int = Field(64, ge=1)
    stop: list[str] = []
    cluster: str | None = None
    """Field that alike samples share, such as their document; null: every sample is on its own."""
    metadata: list[str] = []
    """Fields by which the gate may slice, which every sample has. Other short fields are kept too where they are."""
    task: str = ""
    language: str = ""
    """ISO 639 code of all samples, as metadata."""
    tolerance: float = Field(0.0, ge=0, lt=1)
    """Relative difference that `numeric` allows."""
    high_risk: bool = False
    """Whether a person has to review the answers."""
    perturbations: list[Literal["typos", "case", "format"]] = []
    """Answered also with prompts perturbed so, for the agreement with the plain prompts' answers."""
    sampling: Sampling | None = None
    judge: JudgeSettings | None = None
    recall_at: list[int] = []
    """The k of recall@k, beside the mean reciprocal rank, for samples with a ranking: `ranked` and `relevant`, lists of
    ids."""

    @model_validator(mode="after")
    def _belong_together(self) -> "SuiteSettings":
        assert set(PERTURBATIONS) == {"typos", "case", "format"}
        for name in self.scorers:
            if name not in SCORERS:
                raise ValueError(f"scorer {name} is not known: use some of {', '.join(sorted(SCORERS))}")
        if self.created > self.refresh_by:
            raise ValueError(f"refresh_by {self.refresh_by} is before created {self.created}")
        if any(len(set(values)) < len(values) for values in (self.scorers, self.perturbations)):
            raise ValueError("scorers and perturbations are named once each")
        if not self.generates and (self.sampling or self.stop or self.perturbations):
            raise ValueError(
                "sampling, stop and perturbations are for scorers of text: no scorer of this suite reads any"
            )
        if min(self.recall_at, default=1) < 1:
            raise ValueError("each k of recall_at is at least 1")
        if self.judge is not None and not self.generates:
            raise ValueError("a judge reads text: no scorer of this suite has the model write any")
        if "" in self.stop:
            raise ValueError("an empty stop string would end every answer at once: leave it out")
        prompt_fields(self.prompt)
        return self

    @property
    def generates(self) -> bool:
        """Whether a scorer reads generated text."""
        return any(SCORERS[name].reads == "text" for name in self.scorers)

    @property
    def fields(self) -> SampleFields:
        """Fields that the samples must have."""
        needs = {SCORERS[name].needs for name in self.scorers}
        if LETTERED_CHOICES in prompt_fields(self.prompt):
            needs.add("choices")
        return SampleFields(
            prompt=tuple(name for name in prompt_fields(self.prompt) if name != LETTERED_CHOICES),
            target=self.target if "targets" in needs else None,
            choices=self.choices if "choices" in needs else None,
            key=self.key,
            cluster=self.cluster,
            metadata=tuple(self.metadata),
            ids=("ranked", "relevant") if self.recall_at else (),
            texts=tuple(dict.fromkeys(field for name in self.scorers for field in SCORERS[name].fields)),
            tolerance=self.tolerance,
        )

    def metric(self, scorer: str) -> str:
        """Return the name of a scorer's metric."""
        return self.name if len(self.scorers) == 1 else f"{self.name}.{scorer}"

    def is_overdue(self, today: date) -> bool:
        return today > self.refresh_by


@dataclass(frozen=True)
class Judging:
    """The rubric of a suite's judge, and answers that people labelled by it."""

    rubric: Rubric
    labelled: tuple[LabelledAnswer, ...] = ()
    compare: Rubric | None = None
    """Rubric by which answers are compared with the baseline's."""


@dataclass(frozen=True)
class Suite:
    """A suite that was read and checked."""

    settings: SuiteSettings
    samples: tuple[SuiteSample, ...]
    judging: Judging | None = None
    """Rubric and labels of the judge, where the suite has one."""


def prompt_fields(template: str) -> tuple[str, ...]:
    """Return the fields that a template names, in its order. ValueError for anything but `{field}`."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{error}: write {{field}} for a field of the sample and {{{{ for a brace") from None
    names = [name for _, name, _, _ in parts if name is not None]
    if wrong := [
        name for (_, name, form, how) in parts if name is not None and (form or how or not name.isidentifier())
    ]:
        raise ValueError(f"{{{wrong[0]}}} is no field: write {{field}} for a field of the sample and {{{{ for a brace")
    if not names:
        raise ValueError("the prompt names no field of the sample, such as {question}")
    return tuple(dict.fromkeys(names))


def load_suite(path: Path) -> Suite:
    """Read and check a suite. ValueError naming file, line and reason for what cannot be used."""
    content: Any = read_yaml(path, "suite")
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no suite: it is a mapping with name, version, data, sha256, scorers, ..")
    if "sha256" not in content and isinstance(named := content.get("data"), str) and (path.parent / named).is_file():
        raise ValueError(
            f"{path}: sha256 is missing, which pins {named}: add `sha256: {file_hash(path.parent / named)}`"
        )
    try:
        settings = SuiteSettings.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{path}: {mistake(SuiteSettings, error)}") from None
    data = path.parent / settings.data
    if not data.is_file():
        raise ValueError(f"{path}: data={settings.data} is no file (looked for at {data}): correct the path")
    if (found := file_hash(data)) != settings.sha256:
        raise ValueError(
            f"{data}: its sha256 is {found}, and {path} pins {settings.sha256}: restore the file, or raise the suite's "
            "version and pin the new hash"
        )
    return Suite(settings, read_samples(data, settings.fields), _judging(path, settings.judge))


def _judging(path: Path, judge: JudgeSettings | None) -> Judging | None:
    if judge is None:
        return None
    rubric = _rubric(path, judge.rubric, "score")
    compare = _rubric(path, judge.compare, "pair") if judge.compare is not None else None
    if judge.labels is None:
        return Judging(rubric, compare=compare)
    labels = path.parent / judge.labels
    labelled = read_labelled(labels)
    if (found := file_hash(labels)) != judge.labels_sha256:
        raise ValueError(f"{labels}: its sha256 is {found}, and {path} pins {judge.labels_sha256}: restore or pin it")
    return Judging(rubric, labelled, compare)


def _rubric(path: Path, name: str, kind: str) -> Rubric:
    own = path.parent / name
    rubric = load_rubric(own if own.is_file() else find_rubric(name))
    if rubric.kind != kind:
        raise ValueError(f"{path}: the judge's rubric {name} is of kind {rubric.kind}: name one of kind {kind}")
    return rubric
