"""Settings of the model room. Light on purpose: every command validates them before torch is imported."""

from typing import Literal

from pydantic import Field, model_validator

from data.config import Block


class PretrainConfig(Block):
    """One pretraining run."""

    workers: int = Field(2, ge=1)
    """Data-parallel processes."""
    zero_stage: Literal[0, 1] = 1
    dtype: Literal["fp32", "bf16"] = "fp32"
    steps: int = Field(1000, ge=1)
    batch_size: int = Field(32, ge=1)
    """Sequences an optimizer step, over all workers."""
    micro_batch_size: int = Field(16, ge=1)
    """Sequences a forward pass of one worker."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: matrices by Muon (momentum orthogonalized by Newton-Schulz), embedding and norms by AdamW."""
    learning_rate: float = Field(3e-3, gt=0)
    """Peak of AdamW's learning rate."""
    muon_learning_rate: float = Field(0.02, gt=0)
    """Peak of Muon's learning rate, in units of spectral norm; unused with adamw."""
    muon_momentum: float = Field(0.95, ge=0, lt=1)
    min_learning_rate_ratio: float = Field(0.0, ge=0, le=1)
    """Last learning rate over the peak."""
    warmup_steps: int = Field(50, ge=0)
    decay_fraction: float = Field(1.0, gt=0, le=1)
    """Share of the steps, at the end, in which the rate falls linearly; before, it stays at its peak."""
    weight_decay: float = Field(0.1, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    gradient_clip: float | None = Field(None, gt=0)
    """Largest norm of the gradient; unset: no clipping. Muon's update does not depend on the gradient's norm."""
    checkpoint_every: int = Field(200, ge=1)
    validate_every: int = Field(250, ge=1)
    validation_batches: int = Field(8, ge=1)
    seed: int = 1234

    @model_validator(mode="after")
    def _batch_divides(self) -> "PretrainConfig":
        if self.batch_size % (self.workers * self.micro_batch_size):
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of workers x micro_batch_size "
                f"= {self.workers} x {self.micro_batch_size}"
            )
        if self.dtype == "bf16" and self.zero_stage < 1:
            raise ValueError("dtype bf16 needs zero_stage 1: at stage 0 DeepSpeed's bf16 Adam is one step off")
        if self.optimizer == "muon" and self.gradient_clip is not None:
            raise ValueError(
                f"gradient_clip {self.gradient_clip} does not go with optimizer muon, whose updates have a fixed norm: "
                "set it to null, or optimizer to adamw"
            )
        return self


class TuneConfig(Block):
    """Supervised fine-tuning on question/answer pairs made from the training documents."""

    steps: int = Field(150, ge=1)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(5e-4, gt=0)
    warmup_steps: int = Field(10, ge=0)
    max_pairs: int = Field(20_000, ge=1)
    unasked_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of answers learned without their question: what multiple choice compares an answer's likelihood with."""
    seed: int = 1234


class EvaluateConfig(Block):
    """What the candidate is measured on; all of it held-out (test split) text."""

    documents: int = Field(120, ge=1)
    """Held-out documents scored for bits per byte."""
    max_document_bytes: int = Field(8_000, ge=100)
    multiple_choice_items: int = Field(300, ge=1)
    choices: int = Field(4, ge=2)
    max_passage_bytes: int = Field(400, ge=40)
    golden_max_tokens: int = Field(32, ge=1)
    latency_prompts: int = Field(16, ge=1)
    latency_max_tokens: int = Field(32, ge=2)
    latency_rounds: int = Field(4, ge=1)
    """Times each latency prompt is measured; prompts x rounds are the samples the gate counts."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    resamples: int = Field(10_000, ge=100)
    seed: int = 1234


class GateConfig(Block):
    """Bounds of the verdict. Differences are candidate minus champion on the same items."""

    max_bits_per_byte: float = Field(3.0, gt=0)
    """The upper end of the candidate's interval must lie below this, champion or not."""
    max_bits_per_byte_increase: float = Field(0.02, ge=0)
    """Non-inferiority margin: the upper end of the paired difference must lie below it."""
    min_choice_accuracy_over_chance: float = Field(0.0)
    """The lower end of the accuracy's interval must exceed 1/choices by more than this."""
    max_choice_accuracy_drop: float = Field(0.10, ge=0)
    min_golden_pass_rate: float = Field(1.0, ge=0, le=1)
    max_first_token_p95_ms: float = Field(3000.0, gt=0)
    min_samples: int = Field(30, ge=1)
    """Fewer items than this is `inconclusive`, which holds the candidate."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """With which all intervals of a verdict hold together."""
    resamples: int = Field(10_000, ge=100)
    seed: int = 1234
