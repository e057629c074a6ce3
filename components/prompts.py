"""Prompts to replay: headings of documents that the model has never seen."""

import hashlib

from sluice.components.params import load_block
from sluice.components.workspace import Workspace
from sluice.data.config import PackConfig


def held_out_prompts(workspace: Workspace) -> list[str]:
    """The headings of the test documents, each once, in an order that depends on nothing but themselves."""
    from sluice.data.document import read_documents
    from sluice.data.extraction.sections import sections
    from sluice.data.split import split_of

    split = load_block(workspace, PackConfig)
    headings = {
        section.heading
        for document in read_documents(workspace.artifact("refine"))
        if split_of(document.id, split) == "test"
        for section in sections(document.text)
        if section.heading
    }
    return sorted(headings, key=lambda heading: hashlib.sha256(heading.encode()).digest())


def split_prompts(prompts: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Prompts for the canary, the reference and the bake: three disjoint samples of one population.

    Raises ValueError where there are fewer than three.
    """
    if len(prompts) < 3:
        raise ValueError(f"{len(prompts)} held-out headings are too few to replay: raise pack.test_fraction")
    return prompts[0::3], prompts[1::3], prompts[2::3]
