"""Settings of the data package. Every command validates them, so nothing heavy is imported here."""

from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from sluice.core.settings.block import Block

Markup = Literal["rst", "md", "html", "txt"]


def without_secrets(uri: str) -> str:
    """The URI less user, password, query and fragment, which may hold keys."""
    parts = urlsplit(uri)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")) if parts.netloc else uri


class PackageSource(Block):
    """Documentation inside one pinned source distribution of the package index."""

    name: str
    version: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    licence: str
    """SPDX identifier, kept with every document."""
    include: list[str]
    """Globs inside the archive, below its top folder, such as `docs/**/*.txt`."""
    exclude: list[str] = []
    markup: Markup | None = None
    """Of every file, where the suffix does not say it: Django's `.txt` files are reStructuredText."""


UNSPECIFIED = "unspecified"
"""A licence that nobody has told."""


class Source(Block):
    """One source by its URI: a path or glob, `https:// s3:// gs:// ..`, `pypi:NAME==VERSION`, `hf:OWNER/NAME`,
    `installed:`.
    """

    uri: str
    licence: str = UNSPECIFIED
    """SPDX identifier, kept with every document."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Of the one file that `uri` names; another content is refused."""
    text_field: str | None = None
    """Field or column that holds the text; null: `data.text_field`."""
    split: str = "train"
    """Split of a Hugging Face data set."""
    revision: str | None = None
    """Commit, tag or branch of a Hugging Face data set; a commit pins what is read. null: what is newest."""
    include: list[str] = []
    """Globs of the files to read below a directory or in a distribution; empty: every file of a known kind."""
    exclude: list[str] = []
    markup: Markup | None = None
    """Of every file, where the suffix does not say it."""

    @model_serializer(mode="wrap")
    def _as_given(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Only what was set: a setting that the source's kind does not use is refused when it is read again."""
        return {name: value for name, value in whole(self).items() if name in self.model_fields_set}


class IngestConfig(Block):
    """Where the text comes from."""

    sources: list[Source | str] | str | None = None
    """A URI, or a list of URIs and of sources with settings of their own. Unset: the packages below.

    A relative path is from the folder that the command is called in; in conf/ it is from the workspace.
    """
    sources_sha256: str | None = None
    """Of what local sources hold. Filled in when the settings are composed, never set; absent where none is local."""
    text_field: str = "text"
    """Field or column that holds the text, in JSONL, Parquet, CSV and data sets."""
    packages: list[PackageSource] = []
    max_document_bytes: int = Field(1_000_000, ge=1, le=2**31 - 1)
    """A document, a line or a row beyond this is a reject."""
    max_file_bytes: int = Field(16_000_000_000, ge=1)
    """Of one file, decompressed."""
    max_expansion: float = Field(200.0, gt=1)
    """Decompressed over compressed bytes, beyond the first megabyte: a file that grows more is a bomb, and a reject."""
    attempts: int = Field(4, ge=1)
    """Tries of a remote read, with growing pauses."""
    documents_per_shard: int = Field(128, ge=1)
    fallback_bytes: int = Field(16_000_000, ge=1)
    """Text taken from the installed packages' documentation when the package index cannot be reached."""

    @model_validator(mode="after")
    def _some_source_and_each_once(self) -> "IngestConfig":
        if not self.given and not self.packages:
            raise ValueError("no source: set data.sources to a path or URI, or list data.packages")
        uris = [source.uri for source in self.given]
        if twice := sorted({uri for uri in uris if uris.count(uri) > 1}):
            raise ValueError(f"source {without_secrets(twice[0])} is listed twice: name each source once")
        if not all(uri.strip() for uri in uris):
            raise ValueError("a source is empty: name a path or URI")
        return self

    @model_serializer(mode="wrap")
    def _without_absent(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Sources elsewhere have no such hash, and the settings then do not speak of it."""
        return {name: value for name, value in whole(self).items() if name != "sources_sha256" or value is not None}

    def shown(self) -> dict[str, Any]:
        sources = [source.model_copy(update={"uri": without_secrets(source.uri)}) for source in self.given]
        return self.model_copy(update={"sources": sources or None}).model_dump(mode="json")

    @property
    def given(self) -> list[Source]:
        """`sources`, each with its settings."""
        listed = [self.sources] if isinstance(self.sources, str) else list(self.sources or [])
        return [Source(uri=each) if isinstance(each, str) else each for each in listed]


ContaminationPolicy = Literal["cut", "drop", "report"]
ContaminationSign = Literal["longest", "any"]


class EvaluationSet(Block):
    """A JSONL, JSON or YAML file whose strings are the items of an evaluation set."""

    path: str
    policy: ContaminationPolicy | None = None
    """What becomes of a document that shares text with it; null: `contamination_policy`."""
    sha256: str | None = None
    """Of the file. Filled in when the settings are composed, never set."""


class RefineConfig(Block):
    """What is kept. Every rule writes a score; a threshold of null keeps the score and drops nothing.

    Thresholds follow Gopher (arXiv 2112.11446), C4 (arXiv 1910.10683) and FineWeb (arXiv 2406.17557) where they have
    one that suits documentation; rules made for web pages alone are off.
    """

    # Gopher, quality
    min_words: int | None = Field(40, ge=0)
    """A letter of a script without spaces, such as Chinese or Thai, is a word, here and in all that counts words."""
    max_words: int | None = Field(100_000, ge=1)
    min_mean_word_length: float | None = Field(3.0, ge=0)
    """Not asked of languages written without spaces."""
    max_mean_word_length: float | None = Field(10.0, ge=0)
    max_symbol_word_ratio: float | None = Field(0.1, ge=0)
    max_bullet_line_fraction: float | None = Field(0.9, ge=0, le=1)
    max_ellipsis_line_fraction: float | None = Field(0.3, ge=0, le=1)
    min_alphabetic_word_fraction: float | None = Field(0.7, ge=0, le=1)
    min_stop_words: int | None = Field(2, ge=0)
    # Gopher, repetition: shares of characters
    max_duplicate_line_fraction: float | None = Field(0.3, ge=0, le=1)
    max_duplicate_paragraph_fraction: float | None = Field(0.3, ge=0, le=1)
    max_top_2gram_fraction: float | None = Field(0.20, ge=0, le=1)
    max_top_3gram_fraction: float | None = Field(0.18, ge=0, le=1)
    max_top_4gram_fraction: float | None = Field(0.16, ge=0, le=1)
    max_duplicate_5gram_fraction: float | None = Field(None, ge=0, le=1)
    max_duplicate_6gram_fraction: float | None = Field(None, ge=0, le=1)
    max_duplicate_7gram_fraction: float | None = Field(None, ge=0, le=1)
    max_duplicate_8gram_fraction: float | None = Field(None, ge=0, le=1)
    max_duplicate_9gram_fraction: float | None = Field(None, ge=0, le=1)
    max_duplicate_10gram_fraction: float | None = Field(None, ge=0, le=1)
    # C4
    min_sentences: int | None = Field(None, ge=0)
    max_curly_brackets: int | None = Field(None, ge=0)
    max_placeholder_texts: int | None = Field(0, ge=0)
    """Occurrences of `lorem ipsum`."""
    max_javascript_lines: int | None = Field(None, ge=0)
    max_policy_lines: int | None = Field(None, ge=0)
    """Lines that speak of cookies, privacy policies and terms of use."""
    # FineWeb
    min_punctuated_line_fraction: float | None = Field(None, ge=0, le=1)
    max_short_line_fraction: float | None = Field(None, ge=0, le=1)
    max_newline_word_ratio: float | None = Field(None, ge=0)
    # Language
    languages: list[str] | None = None
    """ISO 639-1 codes to keep, such as [en, de]; null: every language."""
    min_language_probability: float | None = Field(None, ge=0, le=1)
    # Others
    max_control_character_fraction: float | None = Field(0.01, ge=0, le=1)
    min_quality: float | None = Field(None, ge=0, le=1)
    """Least score of the quality classifier in `quality_model`."""
    quality_model: str | None = None
    """Path of a classifier trained by `sluice data classifier`; null: none, and no score."""
    quality_model_sha256: str | None = None
    """Of the file. Filled in when the settings are composed, never set."""

    # Deduplication
    minhash_buckets: int = Field(14, ge=1)
    minhash_hashes_per_bucket: int = Field(8, ge=1)
    minhash_ngram: int = Field(5, ge=1)
    min_jaccard: float = Field(0.7, ge=0.5, le=1)
    """A pair that MinHash finds is removed only when the Jaccard similarity of its word n-grams is at least this."""
    max_piece_copies: int | None = Field(None, ge=1)
    """Documents that may hold the same paragraph or line; in more, it stays in this many alone. null: off."""
    min_piece_words: int = Field(8, ge=1)
    """A paragraph or line shorter than this is never removed as a copy."""
    min_substring_words: int | None = Field(None, ge=16)
    """A run of at least this many words that occurred before, in any document, is cut out. null: off."""
    index: str | None = None
    """Folder of a duplicate index: what earlier runs kept is dropped here as a duplicate, what is kept is added."""

    # Decontamination
    evaluation_sets: list[EvaluationSet | str] = []
    """Each a path, or a path with a policy of its own."""
    contamination_ngrams: list[int] = [13, 8]
    """Words of the n-grams that are looked for and counted: of each item all that fit into it, and of one shorter than
    all of them the whole. Of items in a script without spaces twice as many letters (Chinese, Japanese) or four times
    (Thai, Lao, Khmer, Burmese)."""
    contamination_sign: ContaminationSign = "longest"
    """What a policy acts upon. longest: a shared n-gram of the longest that the item has, so 13 words of an item of 13
    or more, and 8 of a shorter one; any: a shared n-gram of any length."""
    contamination_policy: ContaminationPolicy = "drop"
    """Of sets without one of their own. cut: what is shared goes; drop: the document goes; report: counted alone."""

    # Privacy
    masks: list[Literal["SECRET", "EMAIL", "IBAN", "CARD", "PHONE", "IP_ADDRESS"]] | None = None
    """Kinds of personal data to mask; null: all."""
    workers: int = Field(2, ge=1)

    @property
    def sets(self) -> list[EvaluationSet]:
        """`evaluation_sets`, each with its settings as they are given."""
        return [EvaluationSet(path=each) if isinstance(each, str) else each for each in self.evaluation_sets]

    @field_validator("contamination_ngrams")
    @classmethod
    def _descends(cls, value: list[int]) -> list[int]:
        if not value or min(value) < 2 or value != sorted(set(value), reverse=True):
            raise ValueError(f"contamination_ngrams {value} must be different numbers of at least 2, the largest first")
        return value


class TokenizerConfig(Block):
    """The tokenizer, trained on the training split or taken as it is."""

    algorithm: Literal["bpe", "wordpiece", "unigram"] = "bpe"
    """bpe is byte-level."""
    vocab_size: int = Field(4096, ge=300, le=2**20)
    min_frequency: int = Field(2, ge=1)
    path: str | None = None
    """An existing tokenizer.json to use instead of training one."""
    path_sha256: str | None = None
    """Of the file. Filled in when the settings are composed, never set."""
    special_tokens: list[str] = []
    """Special tokens beside those of documents and chats."""
    # The tokenizer gate: the step fails where the tokenizer does not hold these on held-out text.
    min_bytes_per_token: float | None = Field(None, gt=0)
    max_fertility: float | None = Field(None, gt=0)
    min_round_trip: float | None = Field(1.0, ge=0, le=1)
    """Share of held-out documents that decode to what was encoded; WordPiece cannot hold 1."""


class MixShare(Block):
    """How much of a source the training tokens hold."""

    weight: float = Field(1.0, ge=0)
    """Relative to the other sources' weights; a source without an entry has 1 times its share of the tokens."""
    max_epochs: float = Field(1.0, gt=0)
    """Times a document may be repeated at most."""


class PackConfig(Block):
    """Token shards and the split by content hash."""

    valid_fraction: float = Field(0.02, gt=0, lt=0.5)
    test_fraction: float = Field(0.04, gt=0, lt=0.5)
    split_salt: str = "sluice"
    """Another salt is another split."""
    tokens_per_shard: int = Field(4_194_304, ge=1024)
    mix: dict[str, MixShare] = {}
    """Source, or a glob of sources, -> its share of the training tokens; empty: all text once."""
    train_tokens: int | None = Field(None, ge=1)
    """Training tokens to sample by `mix`; null: as many as the mix gives without repeating more than it may."""
    order: Literal["stored", "shuffled"] = "stored"
    """Of the training documents; `shuffled` is by a hash, and so the same whatever the sharding."""
    layout: Literal["concatenated", "best_fit"] = "concatenated"
    """best_fit: documents are laid into rows of `row_tokens` so that few are cut (arXiv 2404.10830)."""
    row_tokens: int | None = Field(None, ge=2)
    """Tokens a row, for best_fit: the model's context plus one."""
    seed: int = 1234

    @model_validator(mode="after")
    def _rows(self) -> "PackConfig":
        if (self.layout == "best_fit") != (self.row_tokens is not None):
            raise ValueError(
                f"layout {self.layout} with row_tokens {self.row_tokens}: best_fit needs row_tokens, "
                "concatenated has none"
            )
        return self
