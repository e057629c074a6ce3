"""Generated code: whether the sample's tests pass when the sandbox runs them."""

import re
import secrets

from sluice.model import sandbox
from sluice.model.evaluation.suites.samples import SuiteSample
from sluice.model.evaluation.suites.scorer import Scorer

_FENCED = re.compile(r"```(?:[pP]y(?:thon)?3?)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


def program(answer: str, sample: SuiteSample, end: str) -> str:
    """Return the program that runs the sample's `test` on the answer, and prints `end` if it gets that far.

    The answer continues the `prompt`. If it is a chat's, its first fenced block that defines the function is taken, and
    replaces the prompt's unfinished one.
    """
    fields = sample.fields
    definition = re.compile(rf"^(?:async )?def {re.escape(fields['entry_point'])}\b", re.MULTILINE)
    blocks = _FENCED.findall(answer)
    code = next(filter(definition.search, blocks), blocks[0] if blocks else answer)
    # A function with only its docstring is whole, so a definition may follow it.
    joint = "\n    pass\n\n" if definition.search(code) else ""
    return f"{fields['prompt']}{joint}{code}\n\n{fields['test']}\ncheck({fields['entry_point']})\nprint({end!r})\n"


def code(answer: str, sample: SuiteSample) -> float | None:
    """Return 1 where all tests pass within the sandbox's limits; None where no program can be isolated here.

    A program that exits before its last test has not passed: the last line of its output must be a word that is drawn
    for the run.
    """
    end = secrets.token_hex(16)
    try:
        outcome = sandbox.run(program(answer, sample, end))
    except sandbox.SandboxUnavailable:
        return None
    return float(outcome.succeeded and outcome.stdout.endswith(f"{end}\n"))


SCORERS = (Scorer("code", "text", code, needs="nothing", fields=("prompt", "test", "entry_point")),)
