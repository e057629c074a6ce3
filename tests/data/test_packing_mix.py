"""The mix: weights are targets, caps hold, and which documents are used follows from their content alone."""
# ruff: noqa: F811

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packing_fixtures import CONFIG, made_documents, mixed_corpus, small_tokenizer, write_corpus  # noqa: F401

from sluice.data.config import MixShare, PackConfig
from sluice.data.packing import PackedTokens, PackReport, pack
from sluice.data.packing.mix import plan, sample
from sluice.data.packing.order import identity_hash, keyed

NAMES = st.sampled_from("abcdef")
AVAILABLE = st.dictionaries(NAMES, st.integers(0, 10**6), min_size=1)
SHARES = st.builds(MixShare, weight=st.floats(0, 10), max_epochs=st.floats(0.125, 8))


def shares(**settings: tuple[float, float]) -> dict[str, MixShare]:
    return {name: MixShare(weight=weight, max_epochs=epochs) for name, (weight, epochs) in settings.items()}


def planned(available: dict[str, int], mix: dict[str, MixShare], train_tokens: int | None) -> dict[str, int]:
    return {name: share.planned for name, share in plan(available, mix, train_tokens).items()}


def test_weights_are_shares_of_the_tokens():
    mix = shares(a=(3, 1), b=(1, 1))
    assert planned({"a": 9000, "b": 9000}, mix, 4000) == {"a": 3000, "b": 1000}


def test_a_source_at_its_cap_leaves_the_rest_to_the_others():
    mix = shares(a=(8, 2), b=(1, 1), c=(1, 1))
    share = plan({"a": 1000, "b": 50_000, "c": 50_000}, mix, 12_000)
    assert {name: each.planned for name, each in share.items()} == {"a": 2000, "b": 5000, "c": 5000}
    assert (share["a"].available, share["a"].epochs, share["b"].epochs) == (1000, 2.0, 0.1)


def test_without_a_number_the_first_cap_sets_the_whole():
    assert planned({"a": 1000, "b": 50_000}, shares(a=(1, 4), b=(1, 1)), None) == {"a": 4000, "b": 4000}
    assert planned({"a": 1000, "b": 500}, {}, None) == {"a": 1000, "b": 500}


def test_a_source_without_an_entry_weighs_its_share_of_the_tokens():
    assert planned({"a": 1000, "b": 7000, "c": 2000}, shares(a=(0.9, 9)), 3600) == {"a": 1800, "b": 1400, "c": 400}
    assert planned({"a": 1000, "b": 3000}, {}, 400) == {"a": 100, "b": 300}


def test_a_glob_divides_its_weight_by_tokens_and_a_name_precedes_it():
    mix = {"py:*": MixShare(weight=1), "py:c": MixShare(weight=2), "d": MixShare(weight=1)}
    available = {"py:a": 3000, "py:b": 1000, "py:c": 8000, "d": 9000}
    assert planned(available, mix, 4000) == {"py:a": 750, "py:b": 250, "py:c": 2000, "d": 1000}


def test_a_mix_that_cannot_be_had_is_refused():
    available = {"a": 100, "b": 200}
    with pytest.raises(ValueError, match=r"'web\*' matches no source .* the sources are a, b"):
        plan(available, {"web*": MixShare()}, None)
    with pytest.raises(ValueError, match=r"'a\*' and '\*' both match source 'a'"):
        plan(available, {"a*": MixShare(), "*": MixShare()}, None)
    with pytest.raises(ValueError, match=r"'\?' matches no source that has no entry of its own"):
        plan(available, {"a": MixShare(), "b": MixShare(), "?": MixShare()}, None)
    with pytest.raises(ValueError, match=r"train_tokens 301 is more than pack.mix gives \(300\)"):
        plan(available, {}, 301)
    with pytest.raises(ValueError, match="weight 0"):
        plan(available, {"*": MixShare(weight=0)}, 10)


@given(AVAILABLE, st.dictionaries(NAMES, SHARES), st.floats(0, 1))
def test_the_laws_of_the_plan(available: dict[str, int], mix: dict[str, MixShare], fraction: float):
    mix = {name: share for name, share in mix.items() if name in available}
    weights = {n: mix[n].weight if n in mix else available[n] / max(sum(available.values()), 1) for n in available}
    weights = {name: weight for name, weight in weights.items() if weight and available[name]}
    if not weights:
        with pytest.raises(ValueError, match="weight 0"):
            plan(available, mix, 1)
        return
    caps = {name: available[name] * (mix[name].max_epochs if name in mix else 1) for name in available}
    train_tokens = int(fraction * sum(int(caps[name]) for name in weights) * 0.999)
    result = planned(available, mix, train_tokens)
    assert sum(result.values()) == train_tokens
    assert all(result[name] <= caps[name] for name in result)
    assert all(result[name] == 0 for name in result if name not in weights)
    # Past the caps, tokens are in proportion to weights, to within the rounding of one token each.
    free = [name for name in weights if result[name] < int(caps[name]) - 1]
    for one in free:
        for other in weights:
            assert result[other] <= (result[one] + 1) * weights[other] / weights[one] * (1 + 1e-9) + 1
    assert result == planned(dict(reversed(available.items())), dict(reversed(mix.items())), train_tokens)


def identities(count: int) -> np.ndarray:
    return np.array([identity_hash(str(number)) for number in range(count)], dtype=np.uint64)


LENGTHS = st.lists(st.one_of(st.integers(1, 500), st.integers(5000, 9000)), min_size=1, max_size=60)


@given(LENGTHS, st.floats(0, 4), st.integers(0, 5), st.randoms())
def test_sampling_depends_on_ids_alone_and_stays_near_its_plan(
    lengths: list[int], epochs: float, seed: int, draw: random.Random
):
    tokens, hashes = np.array(lengths), identities(len(lengths))
    target = int(epochs * tokens.sum())
    copies = sample(tokens, hashes, target, seed)
    used = (copies * tokens).sum()
    assert copies.max() - copies.min() <= 1
    assert (used > 0) == (target > 0)
    assert abs(target - used) < tokens.max()
    left = tokens[copies == copies.min()]
    if used > target:
        # Only what had less than half goes beyond its plan, and nothing beyond a whole epoch.
        assert target < tokens.sum() and (copies.sum() == 1 or used < 2 * target)
    elif target % tokens.sum():
        assert len(left) == 0 or left.min() > target - used, "a document that fits was passed over"
    order = draw.sample(range(len(lengths)), len(lengths))
    assert np.array_equal(sample(tokens[order], hashes[order], target, seed), copies[order])


@given(LENGTHS, st.integers(0, 5), st.integers(0, 5))
def test_whole_epochs_use_every_document(lengths: list[int], epochs: int, seed: int):
    tokens = np.array(lengths)
    assert (sample(tokens, identities(len(lengths)), epochs * int(tokens.sum()), seed) == epochs).all()


@pytest.mark.parametrize("seed", range(12))
def test_what_does_not_fit_keeps_nothing_else_out(seed: int):
    tokens = np.array([5000, 6000, 4000, 5500])
    assert (sample(tokens, identities(4), 4500, seed) * tokens).sum() == 4000
    tokens = np.array([9000, *[100] * 10])
    assert (sample(tokens, identities(11), 5000, seed) * tokens).sum() == 1000
    tokens = np.array([5000, 6000])
    assert sample(tokens, identities(2), 10, seed).tolist() == [1, 0], "the shortest, rather than nothing"
    tokens = np.array([100, 6000])
    assert sample(tokens, identities(2), 5000, seed).tolist() == [1, 1], "6100 is nearer to 5000 than 100"


def test_a_longer_plan_keeps_what_a_shorter_one_took():
    tokens = np.full(100, 10)
    hashes = np.array([identity_hash(str(number)) for number in range(100)], dtype=np.uint64)
    few, more, other = (sample(tokens, hashes, *arguments) for arguments in ((300, 1), (600, 1), (300, 2)))
    assert few.sum() == 30 and (more >= few).all() and (few != other).any()
    # Another epoch leaves out others, and what comes first is not what is sampled first.
    assert (sample(tokens, hashes, 1300, 1) - 1 != few).any()
    first = np.argsort(keyed(hashes, "shuffle", 1))[:30]
    assert few[first].sum() < 20


def packed(config: dict[str, Any], corpus: Path, tokenizer: Path, out: Path) -> tuple[PackReport, PackedTokens]:
    out.mkdir()
    report = pack(PackConfig(**CONFIG.model_dump(exclude=set(config)), **config), corpus, tokenizer, out)
    return report, PackedTokens(out, "train")


def texts(side: PackedTokens) -> list[bytes]:
    return [side.document(number).tobytes() for number in range(side.documents)]


MIX = {"guide*": MixShare(weight=3, max_epochs=3), "manual*": MixShare(weight=1)}


def test_the_report_has_what_was_planned_and_used(mixed_corpus: Path, small_tokenizer: Path, tmp_path: Path):
    plain, before = packed({}, mixed_corpus, small_tokenizer, tmp_path / "plain")
    report, side = packed({"mix": MIX, "train_tokens": 30_000}, mixed_corpus, small_tokenizer, tmp_path / "mixed")
    assert sum(each.planned for each in report.sources.values()) == 30_000
    assert sum(each.used for each in report.sources.values()) == report.splits["train"].tokens == len(side.tokens)
    assert report.splits["train"].documents == side.documents == sum(e.documents for e in report.sources.values())
    guide = report.sources["guide==1.0"]
    assert guide.epochs > 1 and guide.planned > report.sources["manual==2.1"].planned
    assert all(plain.sources[name].available == each.available for name, each in report.sources.items())
    # Held-out sides are never mixed, and nothing but them, the shards and the index is left.
    assert not (tmp_path / "mixed" / "encoded").exists()
    for name in ("valid-0000.bin", "test-0000.bin", "valid.offsets.npy", "test.offsets.npy"):
        assert (tmp_path / "mixed" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    copies = Counter(texts(side))
    assert set(copies) <= set(texts(before)) and max(copies.values()) <= 3


@pytest.mark.parametrize("mix", [{}, MIX])
def test_shuffled_shards_are_the_same_whatever_the_order_and_the_sharding(
    mix: dict[str, MixShare],
    mixed_corpus: Path,
    small_tokenizer: Path,
    tmp_path: Path,
):
    before = packed({"mix": mix}, mixed_corpus, small_tokenizer, tmp_path / "stored")[1]
    config = {"mix": mix, "order": "shuffled"}
    report, side = packed(config, mixed_corpus, small_tokenizer, tmp_path / "shuffled")
    other = made_documents()
    random.Random(3).shuffle(other)
    again = write_corpus(other, tmp_path / "refine", per_shard=7)
    assert packed(config, again, small_tokenizer, tmp_path / "again")[0].sources == report.sources
    for name in (*report.splits["train"].shards, "train.offsets.npy"):
        assert (tmp_path / "shuffled" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert texts(side) != texts(before) and Counter(texts(side)) == Counter(texts(before))
    seeded = packed({**config, "seed": 5}, mixed_corpus, small_tokenizer, tmp_path / "seeded")[1]
    assert texts(seeded) != texts(side)


def test_fewer_tokens_than_a_document_are_refused(mixed_corpus: Path, small_tokenizer: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="leave 3 training tokens, less than a document of any source"):
        packed({"train_tokens": 3}, mixed_corpus, small_tokenizer, tmp_path / "out")
