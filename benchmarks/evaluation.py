"""Measure scoring beside lm-eval's `hf` backend: MMLU's development questions, the same model, one thread, in turns.

`python -m benchmarks.evaluation [--rounds N] [--items N] [--write]` builds models with random weights, on which the
speed does not depend, and a tokenizer of the questions; `--write` puts the table into docs/evaluation.md.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.markers import markdown, replace_tables

ROOT = Path(__file__).parents[1]
SHAPES: dict[str, dict[str, Any]] = {
    "1 M": {"hidden_size": 128, "layers": 4, "heads": 2, "kv_heads": 2, "context": 512, "qk_norm": True},
    "11 M": {"hidden_size": 320, "layers": 6, "heads": 5, "kv_heads": 5, "context": 512},
}
FORMATS = ("the answer's text", "a letter")
BATCHES = (16,)
"""lm-eval's default of 1 is slower."""
VOCAB = 8_192


class Asked(NamedTuple):
    """One continuation: prompt, text, and the number of its question."""

    prompt: str
    continuation: str
    question: int


class Measured(NamedTuple):
    """Nats by continuation, and seconds of processor time."""

    nats: list[float]
    cpu_s: float


def read_questions() -> list[dict[str, Any]]:
    """Questions of the installed lm-eval, as the set mmlu-dev has them."""
    import lm_eval

    from sluice.model.evaluation.sets.mmlu import _read

    folder = Path(lm_eval.__file__).parent / "tasks/mmlu/flan_cot_fewshot"
    return list(_read({path.name: path.read_bytes() for path in sorted(folder.glob("mmlu_*.yaml"))}))


def requests(rows: Sequence[dict[str, Any]], form: str) -> list[Asked]:
    """Four continuations for each question: its letters after the options, or the options themselves."""
    asked = []
    for number, row in enumerate(rows):
        head, _, rest = row["asked"].rpartition("\nA. ")
        options = [line[3:] for line in f"A. {rest}".splitlines()[:4]]
        if form == "a letter":
            asked += [Asked(row["asked"], f" {letter}", number) for letter in row["choices"]]
        else:
            asked += [Asked(f"{head}\nAnswer:", f" {option}", number) for option in options]
    return asked


def build(folder: Path, texts: Sequence[str], shape: dict[str, Any]) -> Path:
    """A model directory that transformers loads, with a tokenizer of `texts`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from sluice.data.tokenization import SPECIAL_TOKENS
    from sluice.model.architecture.config import ModelConfig, TransformerConfig
    from sluice.model.architecture.initialization import initialize
    from sluice.model.architecture.transformer import Transformer
    from sluice.model.directory import save_model

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": SPECIAL_TOKENS[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    model = Transformer(TransformerConfig.from_settings(ModelConfig(**shape), tokenizer.get_vocab_size()))
    initialize(model, 0)
    save_model(folder / "model", model, folder, {})
    return folder / "model"


def ours(folder: Path) -> Callable[[Sequence[Asked]], Measured]:
    from sluice.model.evaluation.evaluated import ContinuationRequest
    from sluice.model.evaluation.model_folder import ModelFolder

    model = ModelFolder(folder)

    def score(asked: Sequence[Asked]) -> Measured:
        started = time.process_time()
        found = model.score([ContinuationRequest(each.prompt, each.continuation) for each in asked])
        return Measured([each.nats for each in found], time.process_time() - started)

    return score


def theirs(folder: Path, batch: int) -> Callable[[Sequence[Asked]], Measured]:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=batch)

    def score(asked: Sequence[Asked]) -> Measured:
        instances = [
            Instance("loglikelihood", {}, (each.prompt, each.continuation), number) for number, each in enumerate(asked)
        ]
        started = time.process_time()
        found = lm.loglikelihood(instances, disable_tqdm=True)
        return Measured([-nats for nats, _ in found], time.process_time() - started)

    return score


def chosen(asked: Sequence[Asked], nats: Sequence[float]) -> dict[int, int]:
    """Question -> place of its likeliest continuation."""
    best: dict[int, tuple[float, int]] = {}
    for place, (each, value) in enumerate(zip(asked, nats, strict=True)):
        best[each.question] = min(best.get(each.question, (float("inf"), 0)), (value, place))
    return {question: place for question, (_, place) in best.items()}


def measure(rows: Sequence[dict[str, Any]], rounds: int) -> list[dict[str, Any]]:
    """One row of the table for each shape and form of the questions."""
    from tokenizers import Tokenizer

    table = []
    with tempfile.TemporaryDirectory() as temporary:
        for size, shape in SHAPES.items():
            folder = build(Path(temporary) / size.replace(" ", ""), [row["asked"] for row in rows], shape)
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            with contextlib.redirect_stderr(io.StringIO()):
                scorers = {"ours": ours(folder), **{f"hf {batch}": theirs(folder, batch) for batch in BATCHES}}
            for form in FORMATS:
                asked = requests(rows, form)
                tokens = sum(len(tokenizer.encode(each.prompt + each.continuation).ids) for each in asked)
                for score in scorers.values():
                    score(asked[:8])
                runs = [{name: score(asked) for name, score in scorers.items()} for _ in range(rounds)]
                cpu_s = {name: median(run[name].cpu_s for run in runs) for name in scorers}
                found, expected = runs[0]["ours"].nats, runs[0][f"hf {BATCHES[-1]}"].nats
                same = chosen(asked, found).items() & chosen(asked, expected).items()
                fastest = min(cpu_s[f"hf {batch}"] for batch in BATCHES)
                table.append(
                    {
                        "model": size,
                        "continuation": form,
                        "tokens": tokens,
                        "ours": tokens / cpu_s["ours"],
                        **{f"hf {batch}": tokens / cpu_s[f"hf {batch}"] for batch in BATCHES},
                        "ratio": fastest / cpu_s["ours"],
                        "largest_difference": max(abs(a - b) for a, b in zip(found, expected, strict=True)),
                        "same_answers": len(same) / len({each.question for each in asked}),
                    }
                )
    return table


def machine() -> str:
    """Processor and number of cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{name or platform.machine()}, {os.cpu_count()} cores"


def as_markdown(table: Sequence[dict[str, Any]], questions: int, rounds: int) -> str:
    head = (
        "model | continuation | >tokens | >ours | "
        + "".join(f">`hf`, batch {batch} | " for batch in BATCHES)
        + ">ours / best `hf` | >largest difference, nats | >same answers"
    )
    rows = [
        [
            f"{row['model']} parameters",
            row["continuation"],
            f"{row['tokens']:,}",
            f"{row['ours']:,.0f}",
            *(f"{row[f'hf {batch}']:,.0f}" for batch in BATCHES),
            f"{row['ratio']:.1f}x",
            f"{row['largest_difference']:.1e}",
            f"{row['same_answers']:.1%}",
        ]
        for row in table
    ]
    text = markdown(head, rows)
    return (
        f"{text}\n\n{questions} questions with 4 continuations each; tokens per second of processor time, one thread, "
        f"median of {rounds} in turns. {machine()}.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--items", type=int, help="only the first questions")
    parser.add_argument("--write", action="store_true", help="write the table into docs/evaluation.md")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    torch.set_num_threads(1)
    rows = read_questions()[: arguments.items]
    table = measure(rows, arguments.rounds)
    text = as_markdown(table, len(rows), arguments.rounds)
    print(text)
    if arguments.write:
        replace_tables(ROOT / "docs/evaluation.md", {"mmlu-speed": text})


if __name__ == "__main__":
    main()
