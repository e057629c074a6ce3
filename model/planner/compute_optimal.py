"""Compute-optimal size and tokens for a budget of arithmetic, by published scaling laws."""

from math import sqrt
from typing import Literal

from sluice.model.planner.base import Record

TOKENS_PER_PARAMETER = 20
"""Compute-optimal data for a model's size: Chinchilla (Hoffmann et al., arXiv 2203.15556), by its table 3."""
_PETAFLOP_DAY = 1e15 * 86_400

Law = Literal["kaplan", "chinchilla", "besiroglu", "20 tokens a parameter"]


class ParametricLaw(Record):
    """L(N, D) = E + A / N^alpha + B / D^beta, in nats a token (arXiv 2203.15556, equation 2)."""

    irreducible: float
    size_factor: float
    data_factor: float
    size_exponent: float
    data_exponent: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Nats a token of a model of so many parameters after so many tokens."""
        return (
            self.irreducible
            + self.size_factor / parameters**self.size_exponent
            + self.data_factor / tokens**self.data_exponent
        )

    def optimum(self, flops: float) -> tuple[float, float]:
        """(parameters, tokens) of the least loss with 6 N D = flops (equation 4)."""
        total = self.size_exponent + self.data_exponent
        ratio = self.size_exponent * self.size_factor / (self.data_exponent * self.data_factor)
        parameters = ratio ** (1 / total) * (flops / 6) ** (self.data_exponent / total)
        return parameters, flops / 6 / parameters

    def flops_for(self, parameters: float) -> float:
        """The budget whose optimum has so many parameters: `optimum` the other way round."""
        total = self.size_exponent + self.data_exponent
        ratio = self.size_exponent * self.size_factor / (self.data_exponent * self.data_factor)
        return 6 * (parameters / ratio ** (1 / total)) ** (total / self.data_exponent)


CHINCHILLA = ParametricLaw(
    irreducible=1.69, size_factor=406.4, data_factor=410.7, size_exponent=0.34, data_exponent=0.28
)
"""Approach 3 (arXiv 2203.15556, equation 10). Its own optimum has more tokens than the paper's table 3."""

BESIROGLU = ParametricLaw(
    irreducible=1.8172, size_factor=482.01, data_factor=2085.43, size_exponent=0.3478, data_exponent=0.3658
)
"""The same runs fitted again, which brings approach 3 in line with the other two (arXiv 2404.10102)."""


class Optimum(Record):
    """The optimum by one law."""

    law: Law
    parameters: float
    """Without embedding for `kaplan`, all of them for the others."""
    tokens: float
    loss: float | None
    """Nats a token that the law expects there; of its own text and tokenizer. None: it has no such form."""


def optima(flops: float) -> list[Optimum]:
    """The best size and data for a training budget by each law. Raises ValueError for a budget that is none."""
    if not flops > 0:
        raise ValueError(f"a budget of {flops} FLOPs trains nothing: it must be above 0")
    days = flops / _PETAFLOP_DAY
    # arXiv 2001.08361, appendix A, table 6: N = 1.3e9 C^0.73 and D = 2e10 C^0.27, C in PF-days.
    found = [Optimum(law="kaplan", parameters=1.3e9 * days**0.73, tokens=2e10 * days**0.27, loss=None)]
    laws: dict[Law, ParametricLaw] = {"chinchilla": CHINCHILLA, "besiroglu": BESIROGLU}
    for law, form in laws.items():
        parameters, tokens = form.optimum(flops)
        found.append(Optimum(law=law, parameters=parameters, tokens=tokens, loss=form.loss(parameters, tokens)))
    parameters = sqrt(flops / (6 * TOKENS_PER_PARAMETER))
    tokens = TOKENS_PER_PARAMETER * parameters
    return [*found, Optimum(law="20 tokens a parameter", parameters=parameters, tokens=tokens, loss=None)]


def optimal_tokens(parameters: float) -> dict[Law, float]:
    """For a model of this size, the tokens at which it is the best one for its budget."""
    return {
        "chinchilla": CHINCHILLA.flops_for(parameters) / 6 / parameters,
        "besiroglu": BESIROGLU.flops_for(parameters) / 6 / parameters,
        "20 tokens a parameter": TOKENS_PER_PARAMETER * parameters,
    }
