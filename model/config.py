"""Settings of training, tuning, evaluation and gate. Imports no torch: commands validate them before loading it."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from sluice.core.settings.block import Block
from sluice.core.settings.files import NamesFile
from sluice.model.parallelism.optimizers import OPTIMIZERS, OptimizerName, optimizers_with

OBJECTIVE_KINDS = {"causal": "decoder", "masked": "encoder", "span": "encoder-decoder"}
"""The kind of model that each objective trains."""


class SizeSchedule(Block):
    """A batch or sequence size that grows over the run, from `start` to the run's own size."""

    start: int = Field(ge=1)
    stages: int = Field(4, ge=2)
    """Number of sizes, first and last included, spaced by equal factors and rounded down to divisible sizes."""
    fraction: float = Field(0.3, gt=0, le=1)
    """Share of the steps after which the full size is used."""


class PretrainConfig(Block):
    """One pretraining run."""

    block_name: ClassVar[str] = "pretrain"

    workers: int = Field(2, ge=1)
    """Processes: data-parallel x pipeline_stages x tensor_parallel."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """Sharded over data-parallel workers: 1 optimizer states, 2 also gradients, 3 also weights (arXiv 1910.02054)."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """Kept in host memory by ZeRO: optimizer states, or also the weights (stage 3)."""
    pipeline_stages: int = Field(1, ge=1)
    tensor_parallel: int = Field(1, ge=1)
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16 keep float32 master weights; fp16 scales the loss, and needs CUDA."""
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    """full: a layer stores only its input; selective: cheap activations are recomputed (arXiv 2205.05198)."""
    compile: bool = False
    """Compile the layers with torch.compile."""

    objective: Literal["causal", "masked", "span"] = "causal"
    """causal: the next token (decoder); masked: 15 % of the tokens (encoder, arXiv 1810.04805); span: corrupted spans
    (encoder-decoder, arXiv 1910.10683).
    """
    mask_fraction: float = Field(0.15, gt=0, lt=1)
    mean_span: float = Field(3.0, ge=1)
    isolate_documents: bool = False
    """Tokens of a packed row attend to their own document only."""
    max_epochs: float | None = Field(None, gt=0)
    """Largest number of epochs; a run that needs more is refused rather than memorizing its text. Unset: no limit."""

    steps: int = Field(1000, ge=1)
    batch_size: int = Field(32, ge=1)
    """Sequences per optimizer step, over all workers."""
    micro_batch_size: int = Field(16, ge=1)
    """Sequences per forward pass of one worker."""
    batch_schedule: SizeSchedule | None = None
    sequence_schedule: SizeSchedule | None = None

    optimizer: OptimizerName = "adamw"
    """model/parallelism/optimizers.py describes them."""
    learning_rate: float = Field(3e-3, gt=0)
    """Peak learning rate, of AdamW's part with muon."""
    muon_learning_rate: float = Field(0.02, gt=0)
    """Peak of Muon's learning rate, in units of spectral norm; unused with adamw."""
    muon_momentum: float = Field(0.95, ge=0, lt=1)
    schedule: Literal["wsd", "cosine", "linear", "inverse_sqrt"] = "wsd"
    """After the warm-up; wsd: a plateau, then a linear fall over `decay_fraction` (arXiv 2404.06395)."""
    min_learning_rate_ratio: float = Field(0.0, ge=0, le=1)
    """Last learning rate over the peak."""
    warmup_steps: int = Field(50, ge=0)
    decay_fraction: float = Field(1.0, gt=0, le=1)
    """wsd: share of the steps, at the end, in which the rate falls linearly from its peak."""
    weight_decay: float = Field(0.1, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    gradient_clip: float | None = Field(None, gt=0)
    """Largest norm of the gradient; unset: no clipping. Muon's update does not depend on the gradient's norm."""
    skip_sigma: float | None = Field(None, gt=0)
    """Skip and log a step whose loss or gradient norm exceeds the mean of the last `skip_window` steps by more than
    this many standard deviations (OLMo-core's skip-step); unset: never.
    """
    skip_window: int = Field(128, ge=8)
    z_loss: float = Field(0.0, ge=0)
    """Weight of the squared log of the softmax's normalizer (PaLM, arXiv 2204.02311)."""
    average_decay: float | None = Field(None, gt=0, lt=1)
    """Decay per step of an exponential moving average of the weights, which is validated and saved; unset: the last
    weights are.
    """

    metrics_every: int | None = Field(None, ge=1)
    """Steps between records of gradient and update norms by layer group, speed and memory; unset: none."""
    checkpoint_every: int = Field(200, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    keep_every: int | None = Field(None, ge=1)
    """Checkpoints of steps that are multiples of this are never deleted."""
    decay_from: Annotated[str | None, NamesFile()] = None
    """Checkpoint on another run's plateau to start a decay branch from (wsd)."""
    restarts: int = Field(0, ge=0)
    """How often Ray Train restarts the workers from the last checkpoint after one of them died."""
    watchdog_s: float = Field(600.0, gt=0)
    """Seconds without a step after which the run writes the stacks of all threads and ends."""
    validate_every: int = Field(250, ge=1)
    validation_batches: int = Field(8, ge=1)
    seed: int = 1234

    @property
    def copies(self) -> int:
        """Number of data-parallel replicas; one if the model has more parts than there are workers."""
        return max(1, self.workers // (self.pipeline_stages * self.tensor_parallel))

    @model_validator(mode="after")
    def _has_effect(self) -> "PretrainConfig":
        if self.batch_size % (self.copies * self.micro_batch_size):
            share, rest = divmod(self.batch_size, self.copies)
            fitting = [each for each in range(1, self.micro_batch_size + 1) if share and share % each == 0]
            advice = f": micro_batch_size {fitting[-1]} would do" if fitting and not rest else ""
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of workers x micro_batch_size "
                f"= {self.copies} x {self.micro_batch_size}{advice}"
            )
        if self.gradient_clip is not None and not OPTIMIZERS[self.optimizer].clips_gradients:
            raise ValueError(
                f"gradient_clip {self.gradient_clip} does not go with optimizer {self.optimizer}, whose updates have a "
                f"fixed norm: set it to null, or optimizer to {optimizers_with(lambda each: each.clips_gradients)}"
            )
        if self.schedule != "wsd" and (self.decay_fraction != 1.0 or self.decay_from is not None):
            raise ValueError(
                f"decay_fraction {self.decay_fraction:g} and decay_from {self.decay_from or 'null'} have no effect "
                f"with schedule {self.schedule}, which is not wsd: set them to 1.0 and null"
            )
        return self


class TuneConfig(Block):
    """Supervised fine-tuning on question/answer pairs made from the training documents."""

    block_name: ClassVar[str] = "tune"

    stages: list[Literal["pairs"]] = ["pairs"]
    """Stages of tuning, in order; []: nothing, and the base model itself is evaluated and released."""
    steps: int = Field(150, ge=1)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(5e-4, gt=0)
    warmup_steps: int = Field(10, ge=0)
    max_pairs: int = Field(20_000, ge=1)
    unasked_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of answers trained without their question: multiple choice compares an answer's likelihood with this."""
    seed: int = 1234


class SuiteFile(Block):
    """A suite that is run beside the metrics, by its YAML file."""

    path: Annotated[str, NamesFile(sha256="sha256")]
    sha256: str | None = None
    """Hash of the file, which pins the samples. Filled in when the settings are composed."""

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


class EvaluateConfig(Block):
    """Evaluation of a candidate, on held-out (test split) text only."""

    block_name: ClassVar[str] = "evaluate"

    documents: int = Field(120, ge=1)
    """Held-out documents scored for bits per byte."""
    max_document_bytes: int = Field(8_000, ge=100)
    multiple_choice_items: int = Field(300, ge=1)
    choices: int = Field(4, ge=2)
    max_passage_bytes: int = Field(400, ge=40)
    golden_prompts: Annotated[str, NamesFile(sha256="golden_prompts_sha256")] = "conf/golden.yaml"
    """YAML list of prompts that every model must answer."""
    golden_prompts_sha256: str | None = None
    """Hash of the file. Filled in when the settings are composed."""
    golden_max_tokens: int = Field(32, ge=1)
    parity_prompts: int = Field(128, ge=0)
    """Greedy answers kept of a candidate, of `golden_max_tokens` each: a rollout holds the served version to them."""
    latency_prompts: int = Field(16, ge=1)
    latency_max_tokens: int = Field(32, ge=2)
    latency_rounds: int = Field(4, ge=1)
    """Measurements per latency prompt; prompts x rounds are the samples that the gate counts."""
    price_per_hour: float | None = Field(None, ge=0)
    """Price of the machine, in any currency; with it the money for 1,000 answers is reported."""
    suites: Annotated[list[SuiteFile], NamesFile()] = []
    """YAML files of suites, such as conf/suites/arithmetic.yaml."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    seed: int = 1234


class GateConfig(Block):
    """The policy by which the gate judges (sluice.model.evaluation.policy)."""

    block_name: ClassVar[str] = "gate"

    policy: Annotated[str, NamesFile(sha256="policy_sha256")] = "conf/gate/default.yaml"
    """YAML file of bounds, required suites and slices."""
    policy_sha256: str | None = None
    """Hash of the file. Filled in when the settings are composed."""
