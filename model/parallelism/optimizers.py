"""The optimizers that a run may choose, and what settings, rules, planner and checkpoints need to know of each.

To add one: name it in `OptimizerName`, describe it in `OPTIMIZERS`, and write `build` in a module of its name below
model/training/optimization/optimizers/. Imports nothing: settings are validated before torch is loaded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

OptimizerName = Literal["adamw", "muon", "lion"]


@dataclass(frozen=True)
class UpdateRule:
    """How one kind of parameter is updated."""

    moments: tuple[str, ...]
    """Keys, in the optimizer's state and in checkpoints, of float32 tensors of the parameter's size."""
    passes: int
    """Tensors of the parameter's size that a step reads and writes, each counted as often as it goes through memory."""
    newton_schulz_steps: int = 0
    """Steps of the iteration that orthogonalizes the update (Jordan et al., 2024)."""


@dataclass(frozen=True)
class OptimizerTraits:
    """Facts about one optimizer."""

    matrices: UpdateRule
    """For the matrices inside the layers."""
    others: UpdateRule
    """For embedding, head and vectors."""
    learning_rates: tuple[str, ...] = ("learning_rate",)
    """Settings of PretrainConfig that are peak learning rates of this optimizer."""
    clips_gradients: bool = True
    """Whether the update depends on the gradient's norm, so that `gradient_clip` has an effect."""
    tensor_parallel: bool = True
    """Whether the update of a slice of a matrix is the slice of the matrix's update."""
    whole_gradients: bool = False
    """Whether ZeRO 3 must leave every rank the whole gradient."""
    fp16: bool = True
    """Whether it is tested under a dynamic loss scale."""

    def rule(self, *, is_matrix: bool) -> UpdateRule:
        return self.matrices if is_matrix else self.others

    @property
    def moments(self) -> frozenset[str]:
        """Keys of all moments."""
        return frozenset(self.matrices.moments + self.others.moments)


# AdamW (arXiv 1711.05101). Fused: weight, gradient and both moments are read, weight and moments written.
_ADAMW = UpdateRule(moments=("exp_avg", "exp_avg_sq"), passes=7)
# Lion, signs of momentum (arXiv 2302.06675). One operation after another: interpolate, sign, decay, move, update the
# momentum.
_LION = UpdateRule(moments=("momentum",), passes=13)
MUON_MOMENTUM = "momentum_buffer"
# Muon, momentum orthogonalized by Newton-Schulz; embedding and norms by AdamW. Its passes over memory are not counted:
# the products of its Newton-Schulz steps take nearly all of the time.
_MUON = UpdateRule(moments=(MUON_MOMENTUM,), passes=0, newton_schulz_steps=5)

OPTIMIZERS: dict[OptimizerName, OptimizerTraits] = {
    "adamw": OptimizerTraits(matrices=_ADAMW, others=_ADAMW),
    "muon": OptimizerTraits(
        matrices=_MUON,
        others=_ADAMW,
        learning_rates=("learning_rate", "muon_learning_rate"),
        clips_gradients=False,
        tensor_parallel=False,
        whole_gradients=True,
        fp16=False,
    ),
    "lion": OptimizerTraits(matrices=_LION, others=_LION),
}


def optimizers_with(has: Callable[[OptimizerTraits], bool]) -> str:
    """Names of the optimizers that have a trait, for messages: "adamw or lion"."""
    return " or ".join(name for name, traits in OPTIMIZERS.items() if has(traits))
