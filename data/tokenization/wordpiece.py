"""WordPiece (Wu et al. 2016, arXiv 1609.08144): repeatedly take the longest token that matches, from the left.

The vocabulary grows by merging pairs, as in the Hugging Face trainer. It is over bytes, and the space before a word is
part of its token, so there is neither an unknown token nor a continuation mark, and every text survives the round trip.
"""

from collections.abc import Sequence

from tokenizers import Tokenizer, models

from sluice.core.progress import Progress, no_progress
from sluice.data.tokenization.bpe import train_bpe
from sluice.data.tokenization.bytelevel import byte_level

# Matching is quadratic in the length of a piece, so pieces are short: 25 characters or 33 of white space, 108 bytes.
SPLIT_SHORT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}{1,24}|\p{N}{1,2}|"
    r" ?[^\s\p{L}\p{N}]{1,24}[\r\n]{0,8}|\s{0,24}[\r\n]{1,8}|\s{1,24}(?!\S)|\s{1,24}"
)
_LONGEST_PIECE_BYTES = 128


def train_wordpiece(
    texts: Sequence[str],
    vocab_size: int,
    min_frequency: int,
    special: Sequence[str],
    *,
    progress: Progress = no_progress,
) -> tuple[Tokenizer, str]:
    """Train a tokenizer of at most `vocab_size` tokens, with ids as in BPE; returns it and the training library."""
    merged, trainer = train_bpe(texts, vocab_size, min_frequency, special, split=SPLIT_SHORT, progress=progress)
    model = models.WordPiece(
        vocab=merged.get_vocab(),
        unk_token="[UNK]",  # noqa: S106  Not in the vocabulary: a piece without tokens would be an error, not an unknown.
        continuing_subword_prefix="",
        max_input_chars_per_word=_LONGEST_PIECE_BYTES,
    )
    tokenizer = byte_level(model, SPLIT_SHORT)
    tokenizer.add_special_tokens(list(special))
    return tokenizer, trainer
