"""Candidates beside each other, one round of each in turn, and their figures, kept as JSON."""

import json
import multiprocessing
import statistics
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection

from pydantic import BaseModel

from benchmarks.model.candidate import serve
from benchmarks.model.case import Case, Round, Started
from benchmarks.report import OnGpu, Timed, run_in_turns

START_S, ROUND_S = 900.0, 300.0
"""Bounds of waiting: the first covers compilation."""


class Measured(BaseModel):
    case: Case
    started: Started
    rounds: list[Round]

    @property
    def median_s(self) -> float:
        return statistics.median(each.seconds for each in self.rounds)

    @property
    def rate(self) -> float:
        """Units a second at the median round: tokens, or FLOPs of a matrix product."""
        return self.rounds[0].units / self.median_s

    @property
    def spread(self) -> float:
        """The slowest round over the fastest."""
        return max(each.seconds for each in self.rounds) / min(each.seconds for each in self.rounds)

    @property
    def best(self) -> float:
        """Units a second at the fastest round: what a peak means."""
        return self.rounds[0].units / min(each.seconds for each in self.rounds)

    @property
    def peak_bytes(self) -> int:
        return max(each.peak_bytes for each in self.rounds)


class Comparison(BaseModel):
    """Candidates that took turns on one model."""

    shape: str
    sequence: int
    candidates: dict[str, Measured]

    def of(self, library: str) -> list[Measured]:
        return [each for each in self.candidates.values() if each.case.library == library]

    @property
    def default(self) -> Measured:
        """The peer as it is used by default."""
        return self.candidates["transformers, fp32, eager"]


class ModelsOnGpu(OnGpu):
    """Figures of forward and backward on an accelerator."""

    comparisons: list[Comparison]


class ModelResults(Timed):
    """Figures of one run on one machine."""

    machine: str
    threads: int
    rounds: int
    libraries: str
    matmul: dict[str, float] = {}
    """FLOPs a second of the machine's largest product, by precision."""
    training: list[Comparison] = []
    generation: list[Comparison] = []
    accelerated: ModelsOnGpu | None = None


def in_turns(cases: Mapping[str, Case], rounds: int) -> dict[str, Measured]:
    """`rounds` rounds of every case. RuntimeError, naming the case, where one fails or does not answer."""
    with ExitStack() as stack:
        connections, started = {}, {}
        for name, case in cases.items():
            print(f"  {name} ..", file=sys.stderr, flush=True)
            connections[name] = stack.enter_context(_process(name, case))
            started[name] = Started.model_validate_json(_answer(name, connections[name], START_S))

        def work(name: str) -> Round:
            connections[name].send_bytes(b"round")
            return Round.model_validate_json(_answer(name, connections[name], ROUND_S))

        found = run_in_turns({name: partial(work, name) for name in cases}, rounds)
    return {name: Measured(case=cases[name], started=started[name], rounds=found[name]) for name in cases}


@contextmanager
def _process(name: str, case: Case) -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, case.model_dump_json()), name=name, daemon=True)
    process.start()
    # Ours alone would keep the pipe open after the process has died.
    there.close()
    try:
        yield here
    finally:
        here.close()
        process.join(timeout=10)
        if process.is_alive():
            process.terminate()
            process.join(timeout=10)


def _answer(name: str, connection: Connection, bound_s: float) -> bytes:
    if not connection.poll(bound_s):
        raise RuntimeError(f"candidate {name} did not answer within {bound_s:g} s")
    try:
        answer = connection.recv_bytes()
    except EOFError:
        raise RuntimeError(f"candidate {name} died without a word, as one killed for memory does") from None
    if answer.startswith(b'{"error"'):
        raise RuntimeError(f"candidate {name}: {json.loads(answer)['error']}")
    return answer
