"""Adopt an existing tokenizer.json, with the changes that the other steps require."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, processors

from sluice.data.tokenization.bytelevel import described
from sluice.data.tokenization.special import SPECIAL_TOKENS


def adopt(path: Path, special: Sequence[str]) -> tuple[Tokenizer, list[str], str]:
    """Return the tokenizer of a file, the changes made to it, and the sha256 of the file.

    Missing special tokens are added at the end of its vocabulary. Truncation, padding and added tokens are removed,
    because the other steps do these themselves. Raises ValueError if the file is missing or is no tokenizer.json.
    """
    if not path.is_file():
        raise ValueError(f"tokenizer.path {path} is not a file: name a tokenizer.json, or leave it out to train one")
    content = path.read_bytes()
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises no narrower class
        raise ValueError(f"tokenizer.path {path} is not a tokenizer.json: {error}") from error
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    missing = [token for token in special if token not in known]
    # A plain or added token that is not special becomes special with the id it has.
    tokenizer.add_special_tokens(missing)
    assert all(tokenizer.token_to_id(token) is not None for token in SPECIAL_TOKENS)
    changes = [f"added {token}" for token in missing]
    described_now = described(tokenizer)
    if described_now["truncation"] is not None:
        tokenizer.no_truncation()
        changes.append("removed truncation")
    if described_now["padding"] is not None:
        tokenizer.no_padding()
        changes.append("removed padding")
    after = described_now["post_processor"]
    if after is not None and after["type"] != "ByteLevel":
        tokenizer.post_processor = processors.Sequence([])
        changes.append(f"removed post-processor {after['type']}")
    return tokenizer, changes, hashlib.sha256(content).hexdigest()
