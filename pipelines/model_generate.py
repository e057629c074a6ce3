"""`sluice model generate`: continue a prompt or answer a question with a model directory, token by token."""

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from sluice.model.architecture.transformer import Transformer
    from sluice.model.text.prompt import PromptEncoder

DTYPES = {"auto": None, "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def add_dtype(action: argparse.ArgumentParser) -> None:
    text = "arithmetic of the model (default: auto, which is bf16 for weights in bf16, else fp32)"
    action.add_argument("--dtype", choices=list(DTYPES), default="auto", help=text)


def add_arguments(action: argparse.ArgumentParser) -> None:
    action.add_argument("folder", metavar="DIR", help="a model directory")
    action.add_argument("--prompt", required=True, metavar="TEXT", help="for an encoder-decoder: its source")
    action.add_argument("--chat", action="store_true", help="ask the prompt in the model's chat template")
    action.add_argument("--max-tokens", type=int, default=96, metavar="N", help="new tokens at most (default: 96)")
    action.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the sampling (default: 0)")
    action.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token (default: 0.8)")
    action.add_argument("--top-k", type=int, metavar="K", help="draw from the K likeliest tokens (default: all)")
    action.add_argument("--top-p", type=float, default=1.0, help="share of probability drawn from (default: 1)")
    action.add_argument(
        "--repetition-penalty",
        type=float,
        default=1.0,
        metavar="X",
        help="above 1: make tokens of the prompt and the answer less probable (default: 1)",
    )
    action.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text (may be repeated)"
    )
    add_dtype(action)
    action.add_argument(
        "--compile",
        action="store_true",
        help="compile a step first: half a minute or more, then each token in about half the time or less",
    )


def run(arguments: argparse.Namespace, folder: Path) -> None:
    check_sampling(arguments)
    from sluice.model.architecture.compiled import CompiledDecoder
    from sluice.model.architecture.generation import GenerationOptions, stream
    from sluice.model.directory import CONFIG, load_model
    from sluice.model.text.detokenizer import Detokenizer, text_streams
    from sluice.model.text.prompt import load_prompt_encoder

    if (folder / CONFIG).is_file() and not (folder / "tokenizer.json").is_file():
        raise ValueError(
            f"{folder / 'tokenizer.json'} does not exist, and text needs one: put the model's own there, or give token "
            "ids to `sluice model logits`"
        )
    model, tokenizer = load_model(folder, None)
    convert(model, arguments.dtype)
    encoder = load_prompt_encoder(folder, tokenizer, model.config.vocab_size)
    prompt, beside = _prompt(arguments, folder, model, tokenizer, encoder)
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
    tokens = stream(
        model,
        prompt,
        arguments.max_tokens,
        GenerationOptions(
            temperature=arguments.temperature,
            top_p=arguments.top_p,
            top_k=arguments.top_k,
            repetition_penalty=arguments.repetition_penalty,
            stop_ids=encoder.stop_ids,
            seed=arguments.seed,
            decoder=decoder,
            **beside,
        ),
    )
    answer: list[int] = []
    text = Detokenizer(text_streams(tokenizer)(), arguments.stop)
    show: Callable[[str], Any] = (lambda piece: None) if arguments.json else partial(print, end="", flush=True)
    pieces = []
    with closing(tokens):  # type: ignore[type-var]
        for token in tokens:
            answer.append(token)
            pieces.append(text.push(token))
            show(pieces[-1])
            if text.stopped:
                break
    pieces.append(text.flush())
    show(pieces[-1])
    if arguments.json:
        found = {"text": "".join(pieces), "tokens": answer, "seed": arguments.seed}
        print(json.dumps(found, ensure_ascii=False))
    else:
        print()


def convert(model: "Transformer", dtype: str) -> None:
    """Convert the weights to the type of --dtype; `auto` leaves bf16, and computes the rest in fp32."""
    import torch

    name = DTYPES[dtype]
    if name is None:
        name = "bfloat16" if model.embedding.weight.dtype == torch.bfloat16 else "float32"
    model.to(getattr(torch, name))


def _prompt(
    arguments: argparse.Namespace,
    folder: Path,
    model: "Transformer",
    tokenizer: "Tokenizer",
    encoder: "PromptEncoder",
) -> tuple[list[int], dict[str, Any]]:
    """Token ids to continue, and the source of an encoder-decoder."""
    from sluice.model.text.chat_template import PromptMessage
    from sluice.model.text.prompt import special_ids

    if model.config.kind == "encoder-decoder":
        if arguments.chat:
            raise ValueError("--chat needs a decoder: leave it out for an encoder-decoder")
        start = special_ids(folder, "decoder_start_token_id") or special_ids(folder, "pad_token_id")
        if not start:
            raise ValueError(
                f"{folder / 'config.json'} has none of decoder_start_token_id, pad_token_id: add the id of the token "
                "to begin with"
            )
        # The post-processor ends a source as the model was trained on it.
        prompt, beside = start[:1], {"source": tokenizer.encode(arguments.prompt).ids}
        read = beside["source"]
    else:
        message = PromptMessage("user", arguments.prompt)
        prompt = encoder.encode((message,)) if arguments.chat else encoder.encode_marked(arguments.prompt)
        read, beside = prompt, {}
    if not read:
        raise ValueError(f"--prompt {arguments.prompt!r} has no token: give some text to begin with")
    return prompt, beside


def check_sampling(arguments: argparse.Namespace) -> None:
    """Raises ValueError for a setting out of its range, before anything is loaded."""
    if arguments.max_tokens < 1:
        raise ValueError(f"--max-tokens {arguments.max_tokens} must be at least 1")
    # Written so that NaN fails too.
    if not 0 <= arguments.temperature < float("inf"):
        raise ValueError(f"--temperature {arguments.temperature} must be at least 0; 0 is greedy")
    if arguments.top_k is not None and arguments.top_k < 1:
        raise ValueError(f"--top-k {arguments.top_k} must be at least 1; leave it out to draw from all tokens")
    if not 0 < arguments.top_p <= 1:
        raise ValueError(f"--top-p {arguments.top_p} must be above 0 and at most 1")
    if not 0 < arguments.repetition_penalty < float("inf"):
        raise ValueError(f"--repetition-penalty {arguments.repetition_penalty} must be above 0; 1 is none")
    if not all(arguments.stop):
        raise ValueError("--stop '' would end every answer at once: name a text")
    if not 0 <= arguments.seed < 2**63:
        raise ValueError(f"--seed {arguments.seed} must be at least 0 and below 2^63")
