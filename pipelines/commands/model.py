"""`sluice model ..`: model directories, to and from transformers; the logits and the text of one."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sluice.pipelines import model_generate
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

    families = (
        "Llama, Mistral, Mixtral, Qwen2, Qwen3, Phi-3, SmolLM3, Granite, OLMo 2, Gemma, StableLM, Falcon, GPT-NeoX, "
        "GPT-2, BERT, T5, Mamba-2"
    )
    importing = add("import", f"convert a model of transformers to a model directory ({families})")
    importing.add_argument(
        "source",
        metavar="HF_DIR",
        help="a directory of transformers: config.json and safetensors; or hf:OWNER/NAME[@REVISION], from the local "
        "cache of the hub or downloaded into it",
    )
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
    model_generate.add_dtype(action)

    action = add("surprisal", "show how many bits each token of a text costs a model, on a page that colours the text")
    action.add_argument("folder", metavar="DIR", help="a model directory")
    action.add_argument("text", metavar="FILE", help="a UTF-8 text file")
    action.add_argument("--out", metavar="FILE.html", help="page to write (default: none)")

    action = add("generate", "continue a prompt, and print the continuation; the same seed gives the same text")
    model_generate.add_arguments(action)


def run(arguments: argparse.Namespace) -> int:
    actions: dict[str, Callable[[argparse.Namespace], None]] = {
        "import": _convert,
        "export": _convert,
        "logits": _logits,
        "surprisal": _surprisal,
        "generate": lambda given: model_generate.run(given, _check_folder(given.folder)),
    }
    actions[arguments.action](arguments)
    return 0


def _convert(arguments: argparse.Namespace) -> None:
    is_import, out = arguments.action == "import", Path(arguments.out)
    from_hub = is_import and arguments.source.startswith("hf:")
    source = None if from_hub else _check_folder(arguments.source)
    from sluice.model.huggingface.convert import export_model, import_model
    from sluice.model.huggingface.hub import fetch

    origin = None
    if source is None:
        snapshot = fetch(arguments.source)
        source, origin = snapshot.folder, {"repository": snapshot.repository, "revision": snapshot.commit}
    if is_import:
        done = import_model(source, out, force=arguments.force, ignore=arguments.ignore, origin=origin)
    else:
        done = export_model(source, out, force=arguments.force)
    if arguments.json:
        fields = {"family": done.family, "parameters": done.parameters, "weights": done.weights}
        lists = {name: list(getattr(done, name)) for name in ("left_out", "unwritten", "kept")}
        print(json.dumps({**fields, **lists, "extra_tokens": done.extra_tokens, "out": arguments.out}))
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
    if done.extra_tokens:
        print(f"tokenizer.json has {done.extra_tokens} tokens more than the model: text with one of them is refused")
    if is_import and not (out / "tokenizer.json").is_file():
        print("no tokenizer.json came with it: logits needs none, generate does")


def _surprisal(arguments: argparse.Namespace) -> None:
    folder, path = _check_folder(arguments.folder), Path(arguments.text)
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        reason = "does not exist" if not path.exists() else "is a folder" if path.is_dir() else f"{error.strerror}"
        raise ValueError(f"{path} {reason}: name a text file that you may read") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text: byte {error.start} is none; save it as UTF-8") from None
    if arguments.out and Path(arguments.out).is_dir():
        raise ValueError(f"--out {arguments.out} is a folder: name a file")
    from sluice.core.check import finite_or_none
    from sluice.model.evaluation.open_model import open_model
    from sluice.model.evaluation.surprisal import render_surprisal, surprisal

    tokens = surprisal(open_model(folder), text)
    if arguments.out:
        Path(arguments.out).write_text(render_surprisal(tokens, path.name), encoding="utf-8")
    nats, size = sum(token.nats for token in tokens), len(text.encode())
    bits = sum(token.bits for token in tokens)
    if arguments.json:
        rows = [
            {"text": each.text, "nats": finite_or_none(each.nats), "bits": finite_or_none(each.bits)} for each in tokens
        ]
        print(
            json.dumps(
                {"nats": finite_or_none(nats), "bits": finite_or_none(bits), "bytes": size, "tokens": rows},
                ensure_ascii=False,
            )
        )
        return
    print(f"{len(tokens)} tokens, {size} bytes, {nats:.1f} nats, {bits:.1f} bits, {bits / size:.3f} bits per byte")
    if arguments.out:
        print(f"page: {arguments.out}")


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
    model = load_transformer(folder, None)
    model_generate.convert(model, arguments.dtype)
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
