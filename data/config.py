"""Settings of the data package. Every command validates them, so nothing heavy is imported here."""

from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from sluice.core.settings.block import Block
from sluice.core.settings.files import NamesFile

Markup = Literal["raw", "txt", "wrapped", "md", "rst", "html"]
"""raw: the text byte for byte; txt: plain text, unwrapped where it is shown to be hard-wrapped prose; wrapped: plain
text, always unwrapped.
"""
Format = Literal["text", "json", "jsonl", "csv", "tsv", "parquet", "warc"]


def _text_encoding(name: str | None) -> str | None:
    """Check the name of a text encoding."""
    if name is None:
        return None
    try:
        b"ab".decode(name)
    except UnicodeError:
        pass  # it decodes other bytes
    except (LookupError, ValueError):
        raise ValueError(f"{name} is no encoding of text: name one such as utf-8, cp1252, gb18030 or utf-16") from None
    return name


TextEncoding = Annotated[str | None, AfterValidator(_text_encoding)]


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
    """Markup of every file, overriding the suffix: Django's `.txt` files are reStructuredText."""


UNSPECIFIED = "unspecified"
"""Licence of a source for which none was given."""


class Source(Block):
    """One source by its URI: a path or glob, `https:// s3:// gs:// ..`, `pypi:NAME==VERSION`, `hf:OWNER/NAME`,
    `installed:`.
    """

    uri: Annotated[str, NamesFile()]
    licence: str = UNSPECIFIED
    """SPDX identifier, kept with every document."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Hash of the one file that `uri` names; other content is refused."""
    text_field: str | None = None
    """Field or column that holds the text; null: `data.text_field`."""
    fields: list[str] | None = None
    """Fields of a row to keep in the document's metadata; null: `data.fields`."""
    id_field: str | None = None
    """Field of a row to keep as `id` in the document's metadata; null: `data.id_field`."""
    encoding: TextEncoding = None
    """Encoding of every file, where a byte order mark names no other; null: `data.encoding`."""
    format: Format | None = None
    """Format of every file, overriding the suffix; null: `data.format`."""
    split: str = "train"
    """Split of a Hugging Face data set."""
    revision: str | None = None
    """Commit, tag or branch of a Hugging Face data set; a commit pins the content. null: the newest."""
    include: list[str] = []
    """Globs of the files to read below a directory or in a distribution; empty: every file of a known kind."""
    exclude: list[str] = []
    markup: Markup | None = None
    """Markup of every file or row, overriding the suffix; null: `data.markup`."""

    @model_serializer(mode="wrap")
    def _as_given(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Dump only what was set: a setting that the kind of source does not use would be refused when read again."""
        return {name: value for name, value in whole(self).items() if name in self.model_fields_set}


class IngestConfig(Block):
    """Sources of text, and limits for reading them."""

    block_name: ClassVar[str] = "data"

    sources: Annotated[list[Source | str] | str | None, NamesFile()] = None
    """A URI, or a list of URIs and of sources with settings of their own. null: the packages below.

    A relative path starts in the folder that the command is called in; in conf/ it starts in the workspace.
    """
    sources_sha256: str | None = None
    """Hash of the local sources' content. Filled in when the settings are composed; absent if no source is local."""
    versions_sha256: str | None = None
    """Hash of the remote sources' versions, such as ETags. Filled in when ingest starts; absent if none is remote."""
    text_field: str = "text"
    """Field or column that holds the text, in JSONL, Parquet, CSV and data sets."""
    fields: list[str] | None = None
    """Fields of a row to keep in the document's metadata; null: all plain ones (numbers, booleans, times, and
    strings of up to 2,000 characters); []: none."""
    id_field: str | None = None
    """Field of a row to keep as `id` in the document's metadata."""
    encoding: TextEncoding = None
    """Encoding of text, unless a byte order mark names it; null: what a page declares, else UTF-8, else a guess."""
    format: Format | None = None
    """Format of every file and of standard input; null: by its suffix; standard input: JSONL, else text."""
    markup: Markup | None = None
    """Markup of every file and row whose source sets none. null: the one that the suffix shows, and raw for rows."""
    packages: list[PackageSource] = []
    max_document_bytes: int = Field(1_000_000, ge=1, le=2**31 - 1)
    """A document, line or row larger than this is rejected."""
    max_file_bytes: int = Field(16_000_000_000, ge=1)
    """Size limit of one file, decompressed."""
    max_expansion: float = Field(200.0, gt=1)
    """Limit of decompressed over compressed bytes, after the first megabyte; a file beyond it is rejected as a bomb."""
    attempts: int = Field(4, ge=1)
    """Attempts of a remote read, with growing pauses."""
    documents_per_shard: int = Field(128, ge=1)
    workers: int = Field(2, ge=1)
    """Processes that read."""
    fallback_bytes: int = Field(16_000_000, ge=1)
    """Size of the text read from the installed packages' documentation when the package index is unreachable."""

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
        """Leave out the hash of local sources where none is local, and that of remote ones where none is remote."""
        hashes = ("sources_sha256", "versions_sha256")
        return {name: value for name, value in whole(self).items() if name not in hashes or value is not None}

    def shown(self) -> dict[str, Any]:
        """Dump the settings without the secrets of URIs."""
        sources = [source.model_copy(update={"uri": without_secrets(source.uri)}) for source in self.given]
        return self.model_copy(update={"sources": sources or None}).model_dump(mode="json")

    @property
    def given(self) -> list[Source]:
        """`sources`, each with its settings."""
        listed = [self.sources] if isinstance(self.sources, str) else list(self.sources or [])
        return [Source(uri=each) if isinstance(each, str) else each for each in listed]


UNDETERMINED = "undetermined"
"""Language of a document that is too short or too strange to be identified."""
CODE = "code"
"""Language of a document that is program code as a whole."""

IDENTIFIED = frozenset(
    """
    ace af am an ar ary arz as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu ext fa fi fo
    fr fuv fy ga gcf gcr gd gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is it ja jv ka kab kik kk km
    kn ko ku ky la lb lg lij ln lo lt ltg lv mg mk ml mn mr ms mt my ne nl nn no nso oc om or pa pcm pl ps pt
    qu ro ru rw sa sdh se si sk sl sn so sq sr st sv sw ta te tg th tk tl tr tt ug uk ur uz uzs vec vi vo wa
    wuu xh yo yue zh zu
    """.split()  # noqa: SIM905
)
"""ISO 639 codes of the languages that py3langid knows."""
ContaminationPolicy = Literal["cut", "drop", "report"]
ContaminationSign = Literal["longest", "any"]


class EvaluationSet(Block):
    """A JSONL, JSON or YAML file whose strings are the items of an evaluation set."""

    path: Annotated[str, NamesFile(sha256="sha256")]
    policy: ContaminationPolicy | None = None
    """Policy for documents that share text with it; null: `contamination_policy`."""
    sha256: str | None = None
    """Hash of the file. Filled in when the settings are composed."""

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        """A path alone is a set without a policy of its own."""
        return {"path": value} if isinstance(value, str) else value


class RefineConfig(Block):
    """Rules for keeping documents. Every rule writes a score; a threshold of null drops nothing.

    Thresholds follow Gopher (arXiv 2112.11446), C4 (arXiv 1910.10683) and FineWeb (arXiv 2406.17557) where theirs suit
    documentation; rules for web pages alone are off.
    """

    block_name: ClassVar[str] = "refine"

    # Gopher, quality
    min_words: int | None = Field(40, ge=0)
    """Here and wherever words are counted, each letter of a script without spaces (Chinese, Thai) is a word."""
    max_words: int | None = Field(100_000, ge=1)
    min_mean_word_length: float | None = Field(3.0, ge=0)
    """Not applied to languages written without spaces."""
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
    """Lines that mention cookies, privacy policies or terms of use."""
    # FineWeb
    min_punctuated_line_fraction: float | None = Field(None, ge=0, le=1)
    max_short_line_fraction: float | None = Field(None, ge=0, le=1)
    max_newline_word_ratio: float | None = Field(None, ge=0)
    # Language
    languages: list[str] | None = None
    """Codes of languages to keep, such as [en, de]; `undetermined` keeps what is too short or strange to identify, and
    code is always kept. null: every language.
    """
    min_language_probability: float | None = Field(None, ge=0, le=1)
    """Not applied to code. Below 0.5 a language is `undetermined` in any case."""
    # Others
    max_control_character_fraction: float | None = Field(0.01, ge=0, le=1)
    min_quality: float | None = Field(None, ge=0, le=1)
    """Minimum score of the quality classifier in `quality_model`."""
    quality_model: Annotated[str | None, NamesFile(sha256="quality_model_sha256")] = None
    """Path of a classifier trained by `sluice data classifier`; null: no classifier and no score."""
    quality_model_sha256: str | None = None
    """Hash of the file. Filled in when the settings are composed."""

    # Deduplication
    minhash_buckets: int = Field(14, ge=1)
    minhash_hashes_per_bucket: int = Field(8, ge=1)
    minhash_ngram: int = Field(5, ge=1)
    min_jaccard: float = Field(0.7, ge=0.5, le=1)
    """A pair that MinHash finds is removed only when the Jaccard similarity of its word n-grams is at least this."""
    max_piece_copies: int | None = Field(None, ge=1)
    """A paragraph or line that occurs in more documents than this stays in this many of them. null: off."""
    min_piece_words: int = Field(8, ge=1)
    """A paragraph or line shorter than this is never removed as a copy."""
    min_substring_words: int | None = Field(None, ge=16)
    """Minimum length of a run of words that is cut out if it occurred before, in any document. null: off."""
    index: Annotated[str | None, NamesFile()] = None
    """Folder of a duplicate index: documents that earlier runs kept are dropped; documents kept here are added."""

    # Decontamination
    evaluation_sets: Annotated[list[EvaluationSet], NamesFile()] = []
    """Each a path, or a path with a policy of its own."""
    contamination_ngrams: list[int] = [13, 8]
    """Lengths, in words, of the n-grams to search for: all that fit into an item; for a shorter item, the whole item.
    In a script without spaces the length in letters is twice (Chinese, Japanese) or four times (Thai, Lao, Khmer,
    Burmese) as many."""
    contamination_sign: ContaminationSign = "longest"
    """Which shared n-grams a policy applies to. longest: those of the item's longest length, so 13 words for an item of
    13 or more, and 8 for a shorter one; any: those of any length."""
    contamination_policy: ContaminationPolicy = "drop"
    """Policy of sets without their own. cut: remove the shared text; drop: drop the document; report: only count it."""

    # Privacy
    masks: list[Literal["SECRET", "EMAIL", "IBAN", "CARD", "PHONE", "IP_ADDRESS"]] | None = None
    """Kinds of personal data to mask; null: all."""
    workers: int = Field(2, ge=1)

    @field_validator("languages")
    @classmethod
    def _are_known(cls, value: list[str] | None) -> list[str] | None:
        # Builds of earlier versions have the code of ISO 639.
        names = value and [UNDETERMINED if name == "und" else name for name in value]
        if unknown := sorted(set(names or []) - IDENTIFIED - {UNDETERMINED, CODE}):
            raise ValueError(
                f"{unknown[0]} is no language that is identified: give codes such as en, {UNDETERMINED} or {CODE}"
            )
        return names

    @model_validator(mode="after")
    def _quality_is_scored(self) -> "RefineConfig":
        if self.min_quality is not None and self.quality_model is None:
            raise ValueError(
                f"min_quality {self.min_quality} needs quality_model, the classifier that scores it: train one with "
                "`sluice data classifier`, or leave min_quality out"
            )
        return self

    @field_validator("contamination_ngrams")
    @classmethod
    def _descends(cls, value: list[int]) -> list[int]:
        if not value or min(value) < 2 or value != sorted(set(value), reverse=True):
            raise ValueError(f"contamination_ngrams {value} must be different numbers of at least 2, the largest first")
        return value


class TokenizerConfig(Block):
    """The tokenizer: trained on the training split, or an existing one."""

    block_name: ClassVar[str] = "tokenizer"

    algorithm: Literal["bpe", "wordpiece", "unigram"] = "bpe"
    """bpe is byte-level."""
    vocab_size: int = Field(4096, ge=300, le=2**20)
    min_frequency: int = Field(2, ge=1)
    path: Annotated[str | None, NamesFile(sha256="path_sha256")] = None
    """An existing tokenizer.json to use instead of training one."""
    path_sha256: str | None = None
    """Hash of the file. Filled in when the settings are composed."""
    special_tokens: list[str] = []
    """Special tokens beside those of documents and chats."""
    # The tokenizer gate: the step fails if the tokenizer misses one of these bounds on held-out text.
    min_bytes_per_token: float | None = Field(None, gt=0)
    max_fertility: float | None = Field(None, gt=0)
    min_round_trip: float | None = Field(1.0, ge=0, le=1)
    """Share of held-out documents that decode to what was encoded; WordPiece cannot reach 1."""


class MixShare(Block):
    """Share of a source in the training tokens."""

    weight: float = Field(1.0, ge=0)
    """Relative to the other sources' weights; a source without an entry weighs its own share of the tokens."""
    max_epochs: float = Field(1.0, gt=0)
    """How often a document may be repeated at most."""


class PackConfig(Block):
    """Token shards and the split by content hash."""

    block_name: ClassVar[str] = "pack"

    valid_fraction: float = Field(0.02, gt=0, lt=0.5)
    test_fraction: float = Field(0.04, gt=0, lt=0.5)
    split_salt: str = "sluice"
    """Another salt gives another split."""
    tokens_per_shard: int = Field(4_194_304, ge=1024)
    mix: dict[str, MixShare] = {}
    """Source, or a glob of sources -> its share of the training tokens; empty: all text once."""
    train_tokens: int | None = Field(None, ge=1)
    """Training tokens to sample by `mix`; null: as many as the mix allows within its repetition limits."""
    order: Literal["stored", "shuffled"] = "stored"
    """Order of the training documents; `shuffled` is by a hash, so it does not depend on the sharding."""
    layout: Literal["concatenated", "best_fit"] = "concatenated"
    """best_fit: documents are packed into rows of `row_tokens` so that few are cut (arXiv 2404.10830)."""
    row_tokens: int | None = Field(None, ge=2)
    """Tokens per row, for best_fit: the model's context plus one."""
    seed: int = 1234

    @model_validator(mode="after")
    def _rows(self) -> "PackConfig":
        if (self.layout == "best_fit") != (self.row_tokens is not None):
            raise ValueError(
                f"layout {self.layout} with row_tokens {self.row_tokens}: best_fit needs row_tokens, "
                "concatenated has none"
            )
        return self
