"""Texts as bags of hashed tokens: which tokens, with which weights, the same everywhere."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xxhash
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st

import shortlist
from shortlist.errors import DataError
from shortlist.features import text as text_module
from shortlist.features.text import TextEncoder, fit_text
from shortlist.sections import FeatureSettings

STEADY = property_settings(deadline=None, derandomize=True)
BUCKETS = 4093  # large enough that the few tokens of these tests do not meet (asserted where it matters)


def fitted(texts: Sequence[str | None], *, ngrams: tuple[int, int] = (0, 0), max_tokens: int = 128, buckets: int = BUCKETS) -> TextEncoder:
    settings = FeatureSettings(kind="text", buckets=buckets, character_ngrams=ngrams, max_tokens=max_tokens)
    return fit_text(pl.Series("t", texts, dtype=pl.String), settings)


def row_of(piece: str, buckets: int = BUCKETS) -> int:
    """The row of a token, by the definition: xxh3 of its bytes with seed 29."""
    return xxhash.xxh3_64_intdigest(piece.encode(), seed=29) % buckets + 1


def bags(encoder: TextEncoder, texts: Sequence[str | None]) -> list[dict[int, float]]:
    """Each text's {row: weight}, in order of the array."""
    bag = encoder.encode(pl.Series("t", texts, dtype=pl.String))
    ranges = zip(bag.offsets[:-1], bag.offsets[1:], strict=True)
    return [dict(zip(bag.values[a:b].tolist(), bag.weights[a:b].tolist(), strict=True)) for a, b in ranges]


def test_inverse_document_frequencies_and_unit_weights_by_hand() -> None:
    encoder = fitted(["red fish", "red red bird", "red", None])
    red, fish, bird = (row_of(f"<{word}>") for word in ("red", "fish", "bird"))
    assert len({red, fish, bird}) == 3
    # n = 4 texts; red in 3 (twice in one is once), fish and bird in 1, missing in 1
    idf = {red: math.log(5 / 4) + 1, fish: math.log(5 / 2) + 1, bird: math.log(5 / 2) + 1}  # 1.2231 and 1.9163
    assert {row: encoder.inverse_frequency[row] for row in idf} == pytest.approx(idf, abs=1e-6)
    assert encoder.inverse_frequency[0] == pytest.approx(math.log(5 / 2) + 1)
    assert encoder.inverse_frequency[row_of("<never>")] == pytest.approx(math.log(5) + 1)
    # red fish: length sqrt(1.2231^2 + 1.9163^2) = sqrt(1.4961 + 3.6722) = 2.2734 -> 0.5380 and 0.8429
    assert bags(encoder, ["red fish"]) == [pytest.approx({fish: 0.8429, red: 0.5380}, abs=1e-4)]
    assert bags(encoder, ["RED, red! (red)"]) == [{red: 1.0}]


def test_a_text_without_a_word_is_missing() -> None:
    encoder = fitted(["a b", None])
    assert bags(encoder, [None, "", " -- ’ ", "a"]) == [{0: 1.0}, {0: 1.0}, {0: 1.0}, {row_of("<a>"): 1.0}]
    assert bags(encoder, []) == []
    assert encoder.encode(pl.Series("t", [None, None])).values.tolist() == [0, 0]  # a column without any value


def test_a_column_that_is_no_text_is_refused() -> None:
    with pytest.raises(DataError, match="column 't' must hold text: got Int64; convert it to strings"):
        fitted(["a"]).encode(pl.Series("t", [7]))


def test_only_the_heaviest_tokens_stay_and_the_heaviest_comes_first() -> None:
    texts = ["common", "common", "common middle", "common middle", "common rare"]
    encoder = fitted(texts, max_tokens=2)
    (kept,) = bags(encoder, ["common middle rare"])
    assert list(kept) == [row_of("<rare>"), row_of("<middle>")]
    assert sum(weight**2 for weight in kept.values()) == pytest.approx(1)
    (one,) = bags(fitted(texts, max_tokens=1), ["rare common middle common"])
    assert one == {row_of("<rare>"): 1.0}


def test_tokens_of_equal_weight_are_kept_by_row() -> None:
    words = [f"w{number}" for number in range(23)]
    (kept,) = bags(fitted([" ".join(words)], max_tokens=5), [" ".join(words[::-1])])
    assert list(kept) == sorted({row_of(f"<{word}>") for word in words})[:5]


def test_character_ngrams_stay_inside_the_marked_word() -> None:
    encoder = fitted(["cat"], ngrams=(3, 4))
    # <cat> itself; of three: <ca, cat, at>; of four: <cat, cat>
    assert set(bags(encoder, ["cat"])[0]) == {row_of(piece) for piece in ("<cat>", "<ca", "cat", "at>", "<cat", "cat>")}
    # <a> is its own only three-gram
    assert set(bags(encoder, ["a"])[0]) == {row_of("<a>")}
    assert set(bags(fitted(["cat"], ngrams=(2, 2)), ["a b"])[0]) == {row_of(piece) for piece in ("<a>", "<a", "a>", "<b>", "<b", "b>")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("don't don’t", {"don", "t"}),  # both apostrophes part words alike
        ("Émile Zola’s “naïve”", {"émile", "zola", "s", "naïve"}),
        ("nai\u0308ve ﬁne ①", {"naïve", "fine", "1"}),  # NFKC: one spelling of what looks the same
        ("İstanbul", {"i\u0307stanbul"}),  # its lower case has a combining dot, which does not break the word
        ("हिन्दी में", {"हिन्दी", "में"}),  # nor do vowel signs
        ("ΟΔΥΣΣΕΥΣ", {"οδυσσευς"}),
        ("snake_case x-y 3.5", {"snake_case", "x", "y", "3", "5"}),
        ("東京 タワー", {"東京", "タワー"}),
        ("a\u0000b 🙂", {"a", "b"}),
    ],
)
def test_words_of_many_scripts(text: str, words: set[str]) -> None:
    assert set(bags(fitted(["x"]), [text])[0]) == {row_of(f"<{word}>") for word in words}


def slow_bag(text: str | None, encoder: TextEncoder) -> tuple[list[int], list[float]]:
    """The definition, one text at a time, for ASCII texts."""
    shortest, longest = encoder.character_ngrams
    words = "".join(c if c.isalnum() or c == "_" else " " for c in unicodedata.normalize("NFKC", text or "").lower()).split()
    rows = set()
    for marked in (f"<{word}>" for word in words):
        rows.add(row_of(marked, encoder.table_rows - 1))
        for size in range(shortest, longest + 1) if longest else []:
            rows |= {row_of(marked[a : a + size], encoder.table_rows - 1) for a in range(len(marked) - size + 1)}
    kept = sorted(rows or {0}, key=lambda row: (-encoder.inverse_frequency[row], row))[: encoder.max_tokens]
    weights = [float(encoder.inverse_frequency[row]) for row in kept]
    length = math.sqrt(math.fsum(weight**2 for weight in weights))
    return kept, [weight / length for weight in weights]


@STEADY
@given(
    st.lists(st.none() | st.text("abC _-'3", max_size=17), min_size=1, max_size=13),
    st.sampled_from([(0, 0), (3, 4), (2, 2)]),
    st.sampled_from([3, 128]),
    st.sampled_from([7, 509]),
)
def test_bags_agree_with_the_definition_even_where_tokens_collide(
    texts: Sequence[str | None], ngrams: tuple[int, int], max_tokens: int, buckets: int
) -> None:
    encoder = fitted(texts[:5], ngrams=ngrams, max_tokens=max_tokens, buckets=buckets)
    for found, text in zip(bags(encoder, texts), texts, strict=True):
        rows, weights = slow_bag(text, encoder)
        assert list(found) == rows
        assert list(found.values()) == pytest.approx(weights, rel=1e-6)


def random_texts(count: int) -> list[str | None]:
    rng = np.random.default_rng(11)
    words = np.array(["".join(rng.choice(list("abcdefgh"), rng.integers(1, 9))) for _ in range(499)])
    return [" ".join(words[rng.zipf(1.3, rng.integers(0, 41)) % 499]) or None for _ in range(count)]


def test_alone_in_blocks_and_in_bulk_a_text_has_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = random_texts(211)
    encoder = fitted(texts[:101], ngrams=(3, 4), max_tokens=31, buckets=1021)
    values = pl.Series("t", texts, dtype=pl.String)
    bulk = encoder.encode(values)
    alone = [encoder.encode(values[place : place + 1]) for place in range(len(values))]
    assert np.concatenate([bag.values for bag in alone]).tobytes() == bulk.values.tobytes()
    assert np.concatenate([bag.weights for bag in alone]).tobytes() == bulk.weights.tobytes()
    for texts_at_once, pairs_at_once in ((53, 1 << 22), (1 << 16, 997), (7, 1), (1 << 16, 1)):
        monkeypatch.setattr(text_module, "_TEXTS_AT_ONCE", texts_at_once)
        monkeypatch.setattr(text_module, "_PAIRS_AT_ONCE", pairs_at_once)
        again = encoder.encode(values)
        for part, array in bulk.arrays().items():
            assert again.arrays()[part].tobytes() == array.tobytes()
        assert fitted(texts[:101], ngrams=(3, 4), buckets=1021).inverse_frequency.tobytes() == encoder.inverse_frequency.tobytes()


def test_keys_too_large_for_32_bits_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = pl.Series("t", random_texts(29), dtype=pl.String)
    encoder = fitted(values.to_list(), ngrams=(3, 4), buckets=257)
    narrow = encoder.encode(values)
    monkeypatch.setattr(text_module, "_INT32_END", 100)  # below one text's keys: every text a block of its own, in int64
    wide = encoder.encode(values)
    assert all(wide.arrays()[part].tobytes() == array.tobytes() for part, array in narrow.arrays().items())
    assert [array.dtype for array in wide.arrays().values()] == [np.int32, np.int64, np.float32]


def test_two_processes_give_the_same_bag() -> None:
    program = (
        "import polars as pl; from shortlist.sections import FeatureSettings; from shortlist.features.text import fit_text;"
        "v = pl.Series(['naïve don’t cat', 'हिन्दी cat']); b = fit_text(v, FeatureSettings(kind='text')).encode(v);"
        "print(b.values.tolist(), b.weights.tolist())"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(shortlist.__file__).parents[1])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    values = pl.Series(["naïve don’t cat", "हिन्दी cat"])
    here = fit_text(values, FeatureSettings(kind="text")).encode(values)
    assert answers == {f"{here.values.tolist()} {here.weights.tolist()}\n"}
