"""Where item ids start: against a dense decomposition, by hand, and in a learner."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_project import small_dataset
from threadpoolctl import threadpool_limits

from shortlist.config import for_log
from shortlist.features.arrays import Ids
from shortlist.features.vocabulary import CategoryEncoder
from shortlist.learner import Learner
from shortlist.sections import SMALL_LOG
from shortlist.spectral import spectral_start

Rows = NDArray[np.int64]


def dense_start(asker: Rows, item_row: Rows, dim: int) -> dict[int, dict[int, float]]:
    """The cosines of all items that have a place, by numpy's full decomposition."""
    sets = {who: set(item_row[asker == who].tolist()) for who in set(asker.tolist()) if who >= 0}
    sets = {who: chosen for who, chosen in sets.items() if len(chosen) > 1}
    items = sorted(set().union(*sets.values())) if sets else []
    matrix = np.array([[item in chosen for item in items] for chosen in sets.values()], np.float64)
    of_people, of_items = (sums + sums.mean() for sums in (matrix.sum(axis=1), matrix.sum(axis=0)))
    _, values, right = np.linalg.svd(matrix / np.sqrt(of_people)[:, None] / np.sqrt(of_items))
    places = (right[: len(values)].T * values)[:, 1 : dim + 1]
    lengths = np.linalg.norm(places, axis=1)
    units = places / lengths[:, None]
    return {a: {b: float(units[i] @ units[j]) for j, b in enumerate(items)} for i, a in enumerate(items)}


@settings(max_examples=25)
@given(seed=st.integers(0, 999), people=st.integers(11, 17), things=st.integers(7, 13), dim=st.integers(2, 5))
def test_the_cosines_are_those_of_a_full_decomposition(seed: int, people: int, things: int, dim: int) -> None:
    random = np.random.default_rng(seed)
    asker, item_row = random.integers(-1, people, 211), 3 * random.integers(0, things, 211)
    rows, vectors = spectral_start(asker, item_row, dim=dim, seed=seed)
    expected = dense_start(asker, item_row, dim)
    assert rows.tolist() == sorted(expected)
    assert vectors.dtype == np.float32 and vectors.shape == (len(rows), dim)
    cosines = vectors.astype(np.float64) @ vectors.T
    assert np.allclose(cosines, [[expected[a][b] for b in rows.tolist()] for a in rows.tolist()], atol=1e-3)


def test_two_circles_of_people_lie_opposite() -> None:
    """Three people of each circle choose two of its three items, and one chooses across: the second direction is the circle."""
    asker = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6])
    item_row = np.array([0, 1, 1, 2, 0, 2, 10, 11, 11, 12, 10, 12, 2, 12])
    rows, vectors = spectral_start(asker, item_row, dim=1, seed=5)
    assert rows.tolist() == [0, 1, 2, 10, 11, 12]
    assert np.allclose(vectors @ vectors[0], [1, 1, 1, -1, -1, -1])


def test_repeats_lone_choices_and_unknown_people_say_nothing() -> None:
    random = np.random.default_rng(3)
    asker, item_row = random.integers(0, 13, 101), random.integers(0, 17, 101)
    plain = spectral_start(asker, item_row, dim=4, seed=0)
    more = (np.array([40, 41, 41, -1, -1, *asker[:50]]), np.array([30, 31, 31, 1, 2, *item_row[:50]]))
    rows, vectors = spectral_start(np.concatenate([asker, more[0]]), np.concatenate([item_row, more[1]]), dim=4, seed=0)
    assert rows.tolist() == plain[0].tolist()
    assert np.allclose(vectors @ vectors.T, plain[1] @ plain[1].T, atol=1e-4)


@pytest.mark.parametrize("asker", [[], [-1, -1, -1], [0, 1, 2], [0, 0, 0]])
def test_a_log_that_says_nothing_of_pairs_places_nothing(asker: list[int]) -> None:
    rows, vectors = spectral_start(np.array(asker, np.int64), np.arange(len(asker)), dim=3, seed=0)
    assert rows.shape == (0,) and vectors.shape == (0, 3)


def test_a_seed_gives_the_same_bytes_and_another_the_same_cosines() -> None:
    random = np.random.default_rng(4)
    asker, item_row = random.integers(0, 13, 151), random.integers(0, 19, 151)
    first, again, other = (spectral_start(asker, item_row, dim=5, seed=seed)[1] for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert not np.allclose(first, other, atol=0.01)
    assert np.allclose(first @ first.T, other @ other.T, atol=1e-4)


def test_people_who_chose_the_same_change_nothing_about_that() -> None:
    """Their directions coincide: an iteration that runs into it must not draw from anywhere but the seed."""
    random = np.random.default_rng(6)
    item_row = np.concatenate([random.permutation(53)[:7] for _ in range(31)])
    asker = np.repeat(np.arange(31), 7)
    twice = np.concatenate([asker, asker[:70] + 100]), np.concatenate([item_row, item_row[:70]])
    first, again = (spectral_start(*twice, dim=40, seed=1)[1] for _ in range(2))
    assert first.tobytes() == again.tobytes()


def test_the_number_of_threads_changes_no_byte() -> None:
    random = np.random.default_rng(8)
    asker, item_row = random.integers(0, 301, 3001), random.zipf(1.5, 3001) % 499
    with threadpool_limits(limits=2, user_api="blas"):
        two = spectral_start(asker, item_row, dim=32, seed=1)[1]
    with threadpool_limits(limits=1, user_api="blas"):
        one = spectral_start(asker, item_row, dim=32, seed=1)[1]
    assert one.tobytes() == two.tobytes()


def test_a_log_in_which_no_direction_leads_takes_no_longer() -> None:
    """Each of 4,001 people chose two items of a chain: a Lanczos iteration took half a minute."""
    people = np.arange(4001)
    start = time.process_time()
    rows, _ = spectral_start(np.concatenate([people, people]), np.concatenate([people, people + 1]), dim=64, seed=0)
    assert len(rows) > 3900 and time.process_time() - start < 10


def test_chosen_items_start_there_and_shared_rows_do_not(tmp_path: Path) -> None:
    dataset, config = small_dataset(tmp_path, {"model": {"id_start": "spectral"}})
    name = dataset.item_encoder.id_feature()
    assert name is not None
    started, random = (
        Learner(dataset, dataset.train, msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, id_start=start)))
        for start in ("spectral", "random")
    )
    table, plain = (learner.tables.weights[f"item/{name}"] for learner in (started, random))
    encoder, ids = dataset.item_encoder.features[name].encoder, dataset.item_features[name]
    assert isinstance(encoder, CategoryEncoder) and isinstance(ids, Ids)
    rows, vectors = spectral_start(dataset.train.asker, dataset.train.item_row, dim=table.shape[1], seed=config.train.seed)
    assert len(rows) > 3
    assert np.array_equal(table[torch.from_numpy(ids.values[rows].astype(np.int64))].numpy(), vectors)
    assert torch.equal(table[: encoder.vocabulary.unknown.stop], plain[: encoder.vocabulary.unknown.stop])
    assert all(
        torch.equal(value, random.tables.weights[other]) for other, value in started.tables.weights.items() if other != f"item/{name}"
    )


def test_small_logs_start_so_and_large_ones_at_random(tmp_path: Path) -> None:
    _, config = small_dataset(tmp_path)
    config = msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, id_start=None))
    assert [for_log(config, size).model.id_start for size in (SMALL_LOG, SMALL_LOG + 1)] == ["spectral", "random"]
