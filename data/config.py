"""Settings of the data room. Light on purpose: every command validates them before anything heavy is imported."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Block(BaseModel):
    """A block of params.yaml. An unknown key is an error, and a validated block does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
    markup: Literal["rst", "md", "html", "txt"] | None = None
    """Of every file, where the suffix does not say it: Django's `.txt` files are reStructuredText."""


class IngestConfig(Block):
    """Where the text comes from."""

    sources: list[str] | str | None = None
    """Local files or directories (txt, md, rst, html, jsonl). Unset: the packages below."""
    packages: list[PackageSource] = []
    max_document_bytes: int = Field(1_000_000, ge=1)
    documents_per_shard: int = Field(512, ge=1)
    fallback_bytes: int = Field(16_000_000, ge=1)
    """Text taken from the installed packages' documentation when the package index cannot be reached."""

    @model_validator(mode="after")
    def _some_source(self) -> "IngestConfig":
        if not self.local_sources and not self.packages:
            raise ValueError("no source: set data.sources to a path, or list data.packages")
        return self

    @property
    def local_sources(self) -> list[str]:
        return [self.sources] if isinstance(self.sources, str) else list(self.sources or [])


class RefineConfig(Block):
    """What is kept. Thresholds follow Gopher (arXiv 2112.11446) and FineWeb (arXiv 2406.17557) where they have one."""

    min_words: int = Field(40, ge=0)
    max_words: int = Field(100_000, ge=1)
    min_mean_word_length: float = Field(3.0, ge=0)
    max_mean_word_length: float = Field(10.0, ge=0)
    max_symbol_word_ratio: float = Field(0.1, ge=0)
    min_alphabetic_word_fraction: float = Field(0.7, ge=0, le=1)
    min_stop_words: int = Field(2, ge=0)
    max_duplicate_line_fraction: float = Field(0.3, ge=0, le=1)
    max_duplicate_paragraph_fraction: float = Field(0.3, ge=0, le=1)
    max_top_ngram_fraction: float = Field(0.2, ge=0, le=1)
    """Share of characters inside the most frequent word 2-gram."""
    max_control_character_fraction: float = Field(0.01, ge=0, le=1)
    minhash_buckets: int = Field(14, ge=1)
    minhash_hashes_per_bucket: int = Field(8, ge=1)
    minhash_ngram: int = Field(5, ge=1)
    min_jaccard: float = Field(0.7, ge=0, le=1)
    """A MinHash pair is removed only when the Jaccard similarity of its word n-grams is at least this."""
    workers: int = Field(2, ge=1)


class TokenizerConfig(Block):
    """Byte-level BPE."""

    vocab_size: int = Field(4096, ge=300, le=2**20)
    min_frequency: int = Field(2, ge=1)


class PackConfig(Block):
    """Token shards and the split by content hash."""

    valid_fraction: float = Field(0.02, gt=0, lt=0.5)
    test_fraction: float = Field(0.04, gt=0, lt=0.5)
    split_salt: str = "sluice"
    """Another salt is another split."""
    tokens_per_shard: int = Field(4_194_304, ge=1024)
