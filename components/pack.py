"""Step 4, pack: text -> memory-mapped token shards, split by content hash."""

from collections import Counter
from pathlib import Path

from sluice.components.stage import Stage, main
from sluice.data.config import PackConfig


def work(stage: Stage) -> object:
    from sluice.data.packing import pack

    config, documents = stage.block(PackConfig), stage.input("refine")
    check_prompts(documents, config)
    return pack(config, documents, stage.input("tokenizer"), stage.out, progress=stage.progress)


def check_prompts(documents: Path, config: PackConfig) -> None:
    """Raise ValueError, before anything is trained, where tuning, evaluation or rollout would find too few prompts."""
    from sluice.components.prompts import LEAST_PROMPTS
    from sluice.data.document import read_documents
    from sluice.data.extraction.sections import prompts
    from sluice.data.split import split_of

    found: Counter[str] = Counter()
    for document in read_documents(documents):
        found[split_of(document.id, config)] += len(prompts(document.text))
    for split, least, use in (("train", 1, "tuning"), ("test", LEAST_PROMPTS, "evaluation and rollout")):
        if found[split] < least:
            raise ValueError(
                f"{use} need {least} prompts (headings, or passages of 80 characters with one after them), and the "
                f"{split} documents have {found[split]}: add text, or change pack.test_fraction"
            )


if __name__ == "__main__":
    main("pack", work)
