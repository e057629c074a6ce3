"""Export the trained model as a model directory, whose tokenizer names every token that it was trained on."""

import tempfile
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from sluice.model.architecture.transformer import Transformer
from sluice.model.directory import CONFIG, GENERATION, LINEAGE, read_json, save_model, write_json, write_lineage
from sluice.model.training.batches.objectives import Objective


def export_model(
    folder: Path, model: Transformer, tokenizer: Path, objective: Objective, lineage: dict[str, Any]
) -> None:
    """`save_model`, with the names of the objective's own tokens and the token that a decoder begins with.

    `tokenizer` is the folder of the one that made the training tokens.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-tokenizer-") as named:
        if objective.reserved:
            tokenizer_with_reserved(tokenizer, objective).save(str(Path(named) / "tokenizer.json"))
            settings = read_json(tokenizer / "tokenizer_config.json")
            special = settings.get("additional_special_tokens", [])
            settings["additional_special_tokens"] = [*special, *objective.reserved]
            if objective.name == "masked":
                settings["mask_token"] = objective.reserved[0]
            write_json(Path(named) / "tokenizer_config.json", settings)
        save_model(folder, model, Path(named) if objective.reserved else tokenizer, lineage)
    if model.config.kind == "encoder-decoder":
        for name in (CONFIG, GENERATION):
            write_json(folder / name, {**read_json(folder / name), "decoder_start_token_id": objective.eos})
        write_lineage(folder, lineage, read_json(folder / LINEAGE)["files"])


def tokenizer_with_reserved(tokenizer: Path, objective: Objective) -> Tokenizer:
    """The tokenizer of a folder, with the mask or the sentinels as special tokens.

    Raises ValueError where their ids would differ from those of the model; called before a run begins.
    """
    made = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    made.add_special_tokens([AddedToken(name, normalized=False) for name in objective.reserved])
    for place, name in enumerate(objective.reserved, objective.vocabulary):
        if (number := made.token_to_id(name)) != place:
            raise ValueError(
                f"{tokenizer} numbers {name} {number}, where objective {objective.name} needs {place}: its vocabulary "
                "has gaps or the token already; train on tokens of another tokenizer"
            )
    return made
