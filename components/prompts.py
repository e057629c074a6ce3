"""Prompts to replay: headings, or passages, of documents that the model has never seen."""

import hashlib

from sluice.components.params import load_block
from sluice.components.workspace import Workspace
from sluice.data.config import PackConfig

LEAST_PROMPTS = 3
"""One for the canary, one for the reference and one for the bake."""


def held_out_prompts(workspace: Workspace) -> list[str]:
    """The headings of the test documents, or their passages where they have none, each once.

    Their order depends on nothing but themselves.
    """
    from sluice.data.document import read_documents
    from sluice.data.extraction.sections import prompts
    from sluice.data.split import split_of

    split = load_block(workspace, PackConfig)
    found = {
        prompt
        for document in read_documents(workspace.artifact("refine"))
        if split_of(document.id, split) == "test"
        for prompt in prompts(document.text)
    }
    return sorted(found, key=lambda prompt: hashlib.sha256(prompt.encode()).digest())


def split_prompts(prompts: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Prompts for the canary, the reference and the bake: three disjoint samples of one population.

    Raises ValueError where there are fewer than three.
    """
    if len(prompts) < LEAST_PROMPTS:
        raise ValueError(f"{len(prompts)} held-out prompts are too few to replay: raise pack.test_fraction")
    return prompts[0::3], prompts[1::3], prompts[2::3]
