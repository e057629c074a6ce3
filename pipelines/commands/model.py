"""`sluice model ..`: model directories, to and from transformers; the logits and the text of one."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sluice.pipelines.options import add_json, with_debug

if TYPE_CHECKING:
    from sluice.model.architecture.config import TransformerConfig

_OUT_HELP = "folder to write; what this command wrote there before is replaced"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=text, description=text, parents=[with_debug()])
        add_json(action)
        return action

    families = "Llama, Mistral, Qwen2, Qwen3, Mixtral, GPT-2, BERT, T5, Mamba-2"
    importing = add("import", f"convert a model of transformers to a model directory ({families})")
    importing.add_argument("source", metavar="HF_DIR", help="a directory of transformers: config.json and safetensors")
    importing.add_argument("out", metavar="OUT", help=_OUT_HELP)
    importing.add_argument("--force", action="store_true", help="replace a model in OUT that something else wrote")

    importing.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="FIELD",
        help="read the model as if config.json had no such field; lineage.json keeps it (repeatable)",
    )

    exporting = add("export", "convert a model directory to one that transformers loads, where it has such a family")
    exporting.add_argument("source", metavar="DIR", help="a model directory")
    exporting.add_argument("out", metavar="HF_OUT", help=_OUT_HELP)
    exporting.add_argument("--force", action="store_true", help="replace a model in HF_OUT that something else wrote")

    action = add("logits", "compute the logits of a model directory after each of some token ids")
    action.add_argument("folder", metavar="DIR", help="a model directory")
    action.add_argument("--ids", required=True, metavar="FILE.json", help="a list of lists of one length")
    action.add_argument("--out", required=True, metavar="FILE.npy", help="float32 [batch, seq, vocab]")
    action.add_argument("--source", metavar="FILE.json", help="an encoder-decoder's source; --ids are its decoder's")
    action.add_argument(
        "--kernel",
        choices=["reference", "sdpa", "flex", "flash", "blocked"],
        help="attention kernel (default: the fastest that fits, which --json names)",
    )

    action = add("generate", "continue a prompt, and print the continuation; the same seed gives the same text")
    action.add_argument("folder", metavar="DIR", help="a model directory")
    action.add_argument("--prompt", required=True, metavar="TEXT", help="for an encoder-decoder: its source")
    action.add_argument("--max-tokens", type=int, default=96, metavar="N", help="new tokens at most (default: 96)")
    action.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the sampling (default: 0)")
    action.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token (default: 0.8)")
    action.add_argument("--top-p", type=float, default=1.0, help="share of probability drawn from (default: 1)")
    action.add_argument(
        "--compile",
        action="store_true",
        help="compile a step first: half a minute or more, then each token in about half the time or less",
    )


def run(arguments: argparse.Namespace) -> int:
    actions: dict[str, Callable[[argparse.Namespace], None]] = {
        "import": _convert,
        "export": _convert,
        "logits": _logits,
        "generate": _generate,
    }
    actions[arguments.action](arguments)
    return 0


def _convert(arguments: argparse.Namespace) -> None:
    source, out = _check_folder(arguments.source), Path(arguments.out)
    from sluice.model.huggingface.convert import export_model, import_model

    is_import = arguments.action == "import"
    if is_import:
        done = import_model(source, out, force=arguments.force, ignore=arguments.ignore)
    else:
        done = export_model(source, out, force=arguments.force)
    if arguments.json:
        fields = {"family": done.family, "parameters": done.parameters, "weights": done.weights}
        lists = {name: list(getattr(done, name)) for name in ("left_out", "unwritten", "kept")}
        print(json.dumps({**fields, **lists, "out": arguments.out}))
        return
    print(
        f"{arguments.action}ed {done.family}, {done.parameters:,} parameters in {done.weights} weights, to "
        f"{arguments.out}"
    )
    if done.kept:
        print(f"kept, having been put there: {', '.join(done.kept)}")
    for name, found in (("weights", done.left_out), ("settings", done.unwritten)):
        if found:
            more = f" and {len(found) - 4} more" if len(found) > 4 else ""
            print(f"left out, without effect on the logits: {name} {', '.join(found[:4])}{more}")
    if is_import and not (out / "tokenizer.json").is_file():
        print("no tokenizer.json came with it: logits needs none, generate does")


def _check_folder(name: str) -> Path:
    """Raises ValueError where there is no such folder: at once, without what reads models, which takes seconds."""
    if not Path(name).is_dir():
        raise ValueError(f"{name} is not a folder: name a model directory on this machine")
    return Path(name)


def _logits(arguments: argparse.Namespace) -> None:
    folder, out = _check_folder(arguments.folder), Path(arguments.out)
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder: name a file")
    if beneath := next((each for each in out.parents if each.is_file()), None):
        raise ValueError(f"--out {out}: {beneath} is a file; name a file in a folder")
    ids = read_ids(Path(arguments.ids), "--ids")
    source = None if arguments.source is None else read_ids(Path(arguments.source), "--source")
    import torch
    from numpy.lib import format as npy

    from sluice.model.architecture.kernels import choices
    from sluice.model.directory import check_files, load_transformer

    check_files(folder)
    model = load_transformer(folder)
    _check_ids(model.config, ids, source)
    beside = {} if source is None else {"source": torch.tensor(source)}
    model.kernel = arguments.kernel
    choices().clear()
    with torch.inference_mode():
        found = model(torch.tensor(ids), **beside).float().contiguous().numpy()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # A folder of its own for each run: gone whatever fails, and the file has the permissions of any other.
        with TemporaryDirectory(dir=out.parent, prefix=".partial-") as beside_out:
            partial = Path(beside_out) / "logits.npy"
            # np.save does not notice if the disk is full at the last bytes.
            with partial.open("wb") as file:
                npy.write_array_header_1_0(file, npy.header_data_from_array_1_0(found))
                file.write(found.data)
            partial.replace(out)
    except OSError as error:
        raise ValueError(f"--out {out} cannot be written: {error.strerror}") from error
    if arguments.json:
        used = sorted({kernel for kernel, _ in choices()})
        print(json.dumps({"shape": list(found.shape), "dtype": "float32", "kernels": used, "out": str(out)}))
    else:
        print(f"logits {list(found.shape)} [batch, seq, vocab] float32, in {out}")


def read_ids(path: Path, option: str) -> list[list[int]]:
    """The token ids in a JSON file, [batch, seq]. Raises ValueError naming the file and the row that is wrong."""
    try:
        rows: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{option} {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{option} {path} is not JSON: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{option} {path} must hold a list of lists of token ids, such as [[1, 2, 3], [4, 5, 6]]")
    for number, row in enumerate(rows):
        if not isinstance(row, list) or not row:
            raise ValueError(f"{option} {path}: row {number} is {str(row)[:40]}, not a list of at least one token id")
        # True is an int to Python, and no token id.
        if wrong := [token for token in row if not isinstance(token, int) or isinstance(token, bool)]:
            raise ValueError(f"{option} {path}: row {number} holds {str(wrong[0])[:40]!r}, which is no token id")
        if len(row) != len(rows[0]):
            raise ValueError(
                f"{option} {path}: row {number} has {len(row)} ids and row 0 has {len(rows[0])}: give rows of one "
                "length, others in a call of their own"
            )
    return rows


def _check_ids(config: "TransformerConfig", ids: list[list[int]], source: list[list[int]] | None) -> None:
    """Raises ValueError for ids that this model does not read."""
    both = config.kind == "encoder-decoder"
    if both and source is None:
        raise ValueError("an encoder-decoder needs --source FILE.json too: --ids are what its decoder has read")
    if not both and source is not None:
        raise ValueError(f"--source would be ignored: a model of kind {config.kind} reads --ids alone")
    if source is not None and len(source) != len(ids):
        raise ValueError(f"--source has {len(source)} rows and --ids {len(ids)}: give one source for each row")
    for option, rows in (("--ids", ids), ("--source", source or [])):
        for number, row in enumerate(rows):
            if wrong := [token for token in row if not 0 <= token < config.vocab_size]:
                last = config.vocab_size - 1
                raise ValueError(
                    f"{option}: row {number} holds token {wrong[0]}, which is outside the vocabulary of 0 to {last}"
                )
            if len(row) > config.context:
                raise ValueError(
                    f"{option}: row {number} has {len(row)} tokens, more than the context {config.context}"
                )


def _generate(arguments: argparse.Namespace) -> None:
    check_sampling(arguments)
    folder = _check_folder(arguments.folder)
    from sluice.model.architecture.compiled import CompiledDecoder
    from sluice.model.architecture.generation import generate
    from sluice.model.directory import CONFIG, load_model

    if (folder / CONFIG).is_file() and not (folder / "tokenizer.json").is_file():
        raise ValueError(
            f"{folder / 'tokenizer.json'} does not exist, and text needs one: put the model's own there, or give token "
            "ids to `sluice model logits`"
        )
    model, tokenizer = load_model(folder)
    prompt = tokenizer.encode(arguments.prompt).ids
    if not prompt:
        raise ValueError(f"--prompt {arguments.prompt!r} has no token: give some text to begin with")
    beside: dict[str, Any] = {}
    if model.config.kind == "encoder-decoder":
        beside, prompt = {"source": prompt}, [_special(folder, "decoder_start_token_id", "pad_token_id")[0]]
    free = model.config.context - len(prompt)
    if 0 < free < arguments.max_tokens and model.config.kind != "encoder":
        print(
            f"--max-tokens {arguments.max_tokens} exceeds the {free} tokens that fit beside the {len(prompt)} of the "
            f"prompt, in a context of {model.config.context}",
            file=sys.stderr,
        )
    decoder = None
    if arguments.compile:
        decoder = CompiledDecoder(model)
        print("compiling a step of decoding, which takes half a minute or more", file=sys.stderr)
    answer = generate(
        model,
        prompt,
        arguments.max_tokens,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        stop_ids=_special(folder, "eos_token_id", required=False),
        seed=arguments.seed,
        decoder=decoder,
        **beside,
    )
    text = tokenizer.decode(answer)
    if arguments.json:
        print(json.dumps({"text": text, "tokens": answer, "seed": arguments.seed}, ensure_ascii=False))
    else:
        print(text)


def check_sampling(arguments: argparse.Namespace) -> None:
    """Raises ValueError for a setting out of its range, before anything is loaded."""
    if arguments.max_tokens < 1:
        raise ValueError(f"--max-tokens {arguments.max_tokens} must be at least 1")
    # Written so that NaN fails too.
    if not 0 <= arguments.temperature < float("inf"):
        raise ValueError(f"--temperature {arguments.temperature} must be at least 0; 0 is greedy")
    if not 0 < arguments.top_p <= 1:
        raise ValueError(f"--top-p {arguments.top_p} must be above 0 and at most 1")
    if not 0 <= arguments.seed < 2**63:
        raise ValueError(f"--seed {arguments.seed} must be at least 0 and below 2^63")


def _special(folder: Path, *names: str, required: bool = True) -> list[int]:
    """Token ids that generation_config.json or else config.json has under the first of these names."""
    from sluice.model.directory import CONFIG, GENERATION, read_json

    files = [read_json(folder / name) for name in (GENERATION, CONFIG) if (folder / name).is_file()]
    for name in names:
        for content in files:
            found = content.get(name)
            ids = [token for token in (found if isinstance(found, list) else [found]) if isinstance(token, int)]
            if ids:
                return ids
    if required:
        raise ValueError(f"{folder / CONFIG} has none of {', '.join(names)}: add the id of the token to begin with")
    return []
