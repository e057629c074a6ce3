"""Small tokenizers of the kinds that checkpoints come with, made by the `tokenizers` library."""

from collections.abc import Callable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers.normalizers import BertNormalizer

TEXT = """The quick brown fox doesn't jump over it's lazy dogs, is it? Größe, naïve: 日本語 (эта строка).
A request joins the running batch; and leaves it when its answer is complete! 1234 5678
"""


def byte_level() -> Tokenizer:
    """GPT-2's kind: BPE over bytes, no token before a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    return tokenizer


def llama() -> Tokenizer:
    """Llama 2's kind: characters as in SentencePiece, bytes for the others, <s> before a text."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "th", "▁th", "he", "▁the"]
    vocabulary = {name: number for number, name in enumerate([*names, *sorted(set(TEXT) - set("▁ \n日本語"))])}
    merges = [("t", "h"), ("▁", "th"), ("h", "e"), ("▁th", "e")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def unigram() -> Tokenizer:
    """T5's and XLNet's kind: Unigram over words that begin with a mark, without bytes for the unknown."""
    pieces = ["▁", "▁the", "▁quick", "▁fox", "▁lazy", "dog", "er", "it", *sorted(set(TEXT) - set(" \n"))]
    vocabulary = [("<s>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((each, -3.0 + len(each) / 9) for each in pieces)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<s>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


def wordpiece() -> Tokenizer:
    """BERT's kind: lower-case word pieces between [CLS] and [SEP]."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted(set(BertNormalizer().normalize_str(TEXT)) - set(" \n"))
    pieces = [*special, "the", "quick", "fox", "##er", "##s", *letters, *(f"##{each}" for each in letters)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": byte_level,
    "llama": llama,
    "unigram": unigram,
    "wordpiece": wordpiece,
}
