"""Streaming frequencies: by hand, against the algorithm in plain Python, and against what must be true of any frequency.

Long because state, hashing, starts, silence and merge are each tested against one another's settings; one class, one file.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import shortlist
from shortlist.errors import ConfigError, DataError, ShapeError
from shortlist.streaming import StreamingFrequency, StreamingSettings, keys_of_ids

PLAIN: dict[str, Any] = {"warm_start": False, "stale_after": None, "count_silence": False}  # what the paper has
PAPER = StreamingSettings(semantics="inclusion", start="paper", start_gap=100.0, hashes=1, buckets=1 << 16, **PLAIN)
OURS = StreamingSettings(hashes=1, buckets=1 << 16)
PINNED = [17795241303406493639, 2846715797289093257, 1520752211542037930]  # of "a", "7", "07"
PLACES = {0: [35, 1257, 2802], 1: [422, 1174, 2395], 2: [773, 1394, 2390]}  # of keys 0, 1, 2 in 3 * 1000 buckets


def fed(settings: StreamingSettings, *batches: list[int] | NDArray[Any]) -> StreamingFrequency:
    estimator = StreamingFrequency(settings)
    for batch in batches:
        estimator.update(np.asarray(batch, np.int64))
    return estimator


def read(estimator: StreamingFrequency, *rows: int) -> list[float]:
    return estimator.estimate(np.array(rows, np.int64)).tolist()


# --- by hand


def test_the_papers_recursion_by_hand() -> None:
    # a = .1, B = 100, A = 0; hit at t = 2: B = .9*100 + .1*2 = 90.2; hit at t = 5: B = .9*90.2 + .1*3 = 81.48
    estimator = fed(replace(PAPER, rate=0.1), [9], [7, 9], [], [9], [7, 7])
    assert read(estimator, 7) == [pytest.approx(1 / 81.48)]
    assert read(estimator, 8) == [1 / 100]  # never hit: the start value


def test_what_comes_once_in_fifty_steps_tends_to_two_percent() -> None:
    estimator = fed(replace(PAPER, rate=0.1), *([[], *[[]] * 48, [3]] * 100))
    assert read(estimator, 3) == [pytest.approx(0.02, rel=1e-4)]  # the paper's example; 50 * .9^100 = .001 of the start is left


def test_a_count_is_the_mean_multiplicity_over_the_mean_gap_by_hand() -> None:
    # hits at t = 2, 5, 6 with 3, 1, 5 copies; a = .01, warm: B = 2, then the first true gap 3, then (3 + 1)/2 = 2
    # K = 3, (3 + 1)/2 = 2, 2*2/3 + 5/3 = 3; count = 3/2
    estimator = fed(OURS, [], [4, 4, 4], [], [1], [4], [4, 4, 4, 4, 4])
    assert read(estimator, 4, 5) == [pytest.approx(1.5), 0.0]


def test_silence_lengthens_the_gap_by_hand() -> None:
    # as above B = 2 over two true gaps, K = 3; two silent steps weigh 1/2: G = 2 + 2/2 = 3, count = 1
    estimator = fed(OURS, [], [4, 4, 4], [], [1], [4], [4] * 5, [1], [1])
    assert read(estimator, 4) == [pytest.approx(1.0)]


def test_an_item_met_once_reads_once_in_all_the_steps_so_far() -> None:
    assert read(fed(OURS, [], [6], [], []), 6) == [1 / 4]
    assert read(fed(replace(OURS, count_silence=False), [], [6], [], []), 6) == [1 / 2]  # B = T alone


def test_prop_4_1_holds_in_its_corrected_form() -> None:
    # a = .01, d0 = 100, seven gaps of d = 50: B - d = .99^7 * 50 = 46.603; Eq. 7 prints .99^7 * 100 - .99^6 * 50 = 46.133
    estimator = fed(PAPER, *([*[[]] * 49, [3]] * 7))
    (mean_gap,) = estimator.state()["mean_gap"][estimator.state()["hits"] > 0]
    assert mean_gap - 50 == pytest.approx(46.603, abs=5e-4)
    assert mean_gap - 50 != pytest.approx(0.99**7 * 100 - 0.99**6 * 50, abs=0.4)


@pytest.mark.parametrize(("start", "by_hand"), [("paper", 0.99 * 20 + 0.01 * 1000), ("prior", 20.0), ("first_gap", 1000.0)])
def test_the_first_hit_follows_the_rule_that_was_chosen(start: Any, by_hand: float) -> None:
    start_gap = None if start == "first_gap" else 20.0
    estimator = fed(replace(OURS, **PLAIN, start=start, start_gap=start_gap), *[[]] * 999, [3])
    assert read(estimator, 3) == [pytest.approx(1 / by_hand)]


def test_an_item_born_late_does_not_drag_along_the_time_before() -> None:
    late = [[]] * 999 + [[3]] * 5
    assert read(fed(OURS, *late), 3) == [1.0]
    # the paper's start with a warm start: the mean of 1000, 1, 1, 1, 1 is 200.8
    assert read(fed(replace(PAPER, warm_start=True), *late), 3) == [pytest.approx(1 / 200.8)]


# --- against plain Python


def sequential(s: StreamingSettings, place: dict[int, list[int]], batches: list[list[int]], key: int) -> float:
    """Algorithms 2 and 3 one bucket at a time, in dictionaries; `place`: the m buckets of each key."""
    last: dict[int, int] = {}
    gap: dict[int, float] = {}
    hits: Counter[int] = Counter()
    copies: dict[int, float] = {}

    def averaged(n: int) -> float:
        return max(s.rate, 1 / n) if s.warm_start else s.rate

    def gap_weight(n: int) -> float:
        if s.start != "first_gap":
            return averaged(n)
        return 1.0 if n <= 2 else averaged(n - 1)

    for t, batch in enumerate(batches, start=1):
        for bucket, k in Counter(bucket for item in batch for bucket in place[item]).items():
            hits[bucket] += 1
            n, new_gap = hits[bucket], t - last.get(bucket, 0)
            if n == 1 and s.start == "first_gap":
                gap[bucket] = new_gap
            elif n == 1 and s.start == "prior":
                assert s.start_gap is not None
                gap[bucket] = s.start_gap
            else:
                before = gap.get(bucket, s.start_gap)
                assert before is not None
                gap[bucket] = (1 - gap_weight(n)) * before + gap_weight(n) * new_gap
            copies[bucket] = k if n == 1 else (1 - averaged(n)) * copies[bucket] + averaged(n) * k
            last[bucket] = t
    found = []
    for bucket in place[key]:
        if not hits[bucket] and s.start != "paper":
            return 0.0
        mean, silence = gap.get(bucket, s.start_gap), len(batches) - last.get(bucket, 0)
        assert mean is not None
        now = mean + gap_weight(max(hits[bucket], 1)) * silence if s.count_silence else mean
        if s.stale_after is not None and silence > s.stale_after * mean:
            now = silence
        found.append((copies.get(bucket, 1.0) if s.semantics == "count" else 1.0) / now)
    return min(found)


def places(s: StreamingSettings, keys: int) -> dict[int, list[int]]:
    """Each key's buckets, seen from outside: those that change when it alone is put in."""
    return {key: np.flatnonzero(fed(s, [key]).state()["hits"]).tolist() for key in range(keys)}


@pytest.mark.parametrize("semantics", ["count", "inclusion"])
@pytest.mark.parametrize("start", ["first_gap", "prior", "paper"])
@pytest.mark.parametrize(("warm", "stale", "silence"), [(False, None, False), (True, None, True), (True, 2.0, True), (False, 3.0, False)])
@pytest.mark.parametrize(("buckets", "hashes"), [(13, 1), (51, 3)])
def test_whole_batches_equal_the_algorithm_taken_one_by_one(
    semantics: Any, start: Any, warm: bool, stale: float | None, silence: bool, buckets: int, hashes: int
) -> None:
    # 29 items in 13 or 17 buckets a hash: collisions; 7 draws with replacement: duplicates; 61 steps
    s = StreamingSettings(
        rate=0.07, buckets=buckets, hashes=hashes, semantics=semantics, warm_start=warm, stale_after=stale, count_silence=silence,
        start=start, start_gap=None if start == "first_gap" else 11.0, seed=5,
    )  # fmt: skip
    rng = np.random.default_rng(3)
    q = 1.0 / np.arange(1, 30) ** 2
    batches = [rng.choice(29, 7, p=q / q.sum()).tolist() for _ in range(61)]
    place = places(s, 29)
    expected = [sequential(s, place, batches, key) for key in range(29)]
    assert all(len(buckets_of_key) == hashes for buckets_of_key in place.values())
    np.testing.assert_allclose(read(fed(s, *batches), *range(29)), expected, rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from(range(0, 2**60, 2**55)), max_size=5), min_size=1, max_size=12))  # 32 keys that do not meet
def test_without_forgetting_the_first_hits_are_counted_exactly(batches: list[list[int]]) -> None:
    # paper start with warm start: B = A/n, the mean of all gaps; K = copies/n; so count = copies / last step
    estimator = fed(replace(OURS, start="paper", start_gap=50.0, stale_after=None, count_silence=False), *batches)
    for key in {key for batch in batches for key in batch}:
        last = max(t for t, batch in enumerate(batches, start=1) if key in batch)
        assert read(estimator, key) == [pytest.approx(sum(batch.count(key) for batch in batches) / last)]


# --- what must be true of a frequency


def test_an_item_four_times_a_batch_has_four_times_the_count() -> None:
    # F1 of the pitfalls: TFRS #635
    batches = [[1, 2, 2, 2, 2]] * 30
    assert read(fed(OURS, *batches), 1, 2) == [1.0, 4.0]
    assert read(fed(replace(OURS, semantics="inclusion"), *batches), 1, 2) == [1.0, 1.0]


def test_an_item_in_every_second_batch_has_half_the_count() -> None:
    (every_second,) = read(fed(OURS, *[[1, 2], [1]] * 50), 2)
    assert every_second == pytest.approx(1 / (2 + 1 / 49))  # one silent step of weight 1/49 at the end


def test_items_never_chosen_have_no_count_even_beside_others() -> None:
    estimator = fed(replace(OURS, hashes=4, buckets=4 << 16), np.arange(1000), np.arange(1000))
    assert estimator.estimate(np.arange(1000, 2000)).max() == 0.0
    assert StreamingFrequency(OURS).estimate(np.arange(5)).tolist() == [0.0] * 5  # before the first step, too


def test_counts_of_zipf_draws_are_right_from_the_head_to_the_tail() -> None:
    # B = 61, M = 499: the first item comes 9 times a step, the last ones less than once in 50 steps; sums over slices
    rng = np.random.default_rng(11)
    q = 1 / np.arange(1, 500)
    q /= q.sum()
    counted, gap_only = StreamingFrequency(OURS), StreamingFrequency(replace(OURS, count_silence=False))
    for _ in range(40):
        batch = rng.choice(499, 61, p=q)
        counted.update(batch)
        gap_only.update(batch)
    counts = 61 * q
    estimate = counted.estimate(np.arange(499))
    assert estimate[0] == pytest.approx(counts[0], rel=0.1)  # Poisson: 3/9 of a mean over 40 steps, sd 5 %
    for is_in in (slice(1, 20), slice(20, 100), slice(100, 499)):
        assert estimate[is_in].sum() == pytest.approx(counts[is_in].sum(), rel=0.12)
    assert gap_only.estimate(np.arange(100, 499)).sum() > 1.5 * counts[100:].sum()  # why silence counts


def test_one_over_the_mean_gap_is_biased_up_by_jensens_term() -> None:
    # a = .1, p = .1: a/(2-a) (1-p) = .0526 * .9 = +4.7 %; 4,000 items at two times: sd .22/sqrt(8000) = .25 %
    # the start needs 1/(a p) = 100 steps to be forgotten, e^-6 of it is left
    rng = np.random.default_rng(2)
    estimator = StreamingFrequency(replace(PAPER, rate=0.1, start_gap=10.0, buckets=1 << 22))
    ratios = []
    for step in range(1, 901):
        estimator.update(np.flatnonzero(rng.random(4000) < 0.1))
        if step in (600, 900):
            ratios.append(estimator.estimate(np.arange(4000)).mean() / 0.1)
    assert np.mean(ratios) == pytest.approx(1.047, abs=0.01)


def test_renumbering_the_items_changes_nothing() -> None:
    # F5 of the pitfalls: ids carry no rank; no two of the 97 share a bucket here
    rng = np.random.default_rng(7)
    renumbered = rng.permutation(10**6)[:97]
    batches = [rng.integers(0, 97, 19) for _ in range(40)]
    before, after = fed(OURS, *batches), fed(OURS, *[renumbered[batch] for batch in batches])
    assert before.state()["hits"].astype(bool).sum() == after.state()["hits"].astype(bool).sum() == 97
    assert before.estimate(np.arange(97)).tolist() == after.estimate(renumbered).tolist()


def test_an_order_within_a_batch_means_nothing() -> None:
    batch = np.random.default_rng(1).integers(0, 50, 200)
    assert fed(OURS, batch).state()["multiplicity"].tobytes() == fed(OURS, batch[::-1]).state()["multiplicity"].tobytes()


# --- warm start and guard


def test_a_warm_start_forgets_the_start_value_at_the_first_hit() -> None:
    batches = [[], [3]] * 10  # every second step
    assert read(fed(replace(PAPER, warm_start=True), *batches), 3) == [pytest.approx(0.5)]
    # cold: B = 2 + .99^10 * 98 = 90.6
    assert read(fed(PAPER, *batches), 3) == [pytest.approx(1 / (2 + 0.99**10 * 98))]


def test_an_item_that_stops_occurring_fades_only_with_the_guard() -> None:
    batches = [[3]] * 100 + [[]] * 50
    assert read(fed(replace(PAPER, start_gap=1.0), *batches), 3) == [1.0]
    assert read(fed(replace(PAPER, start_gap=1.0, stale_after=6.0), *batches), 3) == [1 / 50]


def test_the_guard_waits_for_more_than_six_mean_gaps() -> None:
    guarded = replace(PAPER, start_gap=2.0, stale_after=6.0)
    every_second = [[], [3]] * 20
    assert read(fed(guarded, *every_second, *[[]] * 12), 3) == [0.5]
    assert read(fed(guarded, *every_second, *[[]] * 13), 3) == [1 / 13]


# --- hashing


@pytest.mark.parametrize("step", [5000, 1250, 4096, 2**32, 2**40])
def test_ids_that_are_multiples_of_the_size_do_not_meet(step: int) -> None:
    # F3 of the pitfalls: id % H would put all 500 into one bucket. At random 500 of 5000 leave 5000 (1 - .9998^500) = 476 buckets, sd 4.5
    estimator = fed(replace(OURS, buckets=5000), np.arange(500) * step)
    assert estimator.state()["hits"].sum() == pytest.approx(476, abs=20)


def test_collisions_raise_and_the_lowest_of_several_hashes_wins() -> None:
    # 400 items in 1,600 buckets: 400 (1 - e^-.25) = 88 of them share one and read too high
    rng = np.random.default_rng(4)
    batches = [rng.permutation(400)[:37] for _ in range(60)]
    free = fed(OURS, *batches).estimate(np.arange(400))
    one = fed(replace(OURS, buckets=1600), *batches).estimate(np.arange(400))
    four = fed(replace(OURS, buckets=6400, hashes=4), *batches).estimate(np.arange(400))
    assert one.mean() > 1.15 * free.mean()
    assert np.abs(four - free).mean() < 0.1 * np.abs(one - free).mean()


def test_hashes_are_independent_and_seeds_differ() -> None:
    s = replace(OURS, buckets=4000, hashes=4)
    shared = [np.array(buckets) % 1000 for buckets in places(s, 200).values()]
    assert sum(len(set(buckets.tolist())) == 1 for buckets in shared) == 0  # the same place in all four: 1e-9 each
    first, second = places(s, 200), places(replace(s, seed=1), 200)
    assert sum(first[key] == second[key] for key in range(200)) == 0


def test_a_row_and_the_same_number_as_a_hash_are_one_key() -> None:
    assert fed(OURS, [5]).estimate(np.array([5], np.uint64)).tolist() == [1.0]


def test_two_processes_with_other_hash_seeds_make_the_same_state() -> None:
    code = """
import hashlib, numpy as np, polars as pl
from shortlist.streaming import StreamingFrequency, StreamingSettings, keys_of_ids
estimator = StreamingFrequency(StreamingSettings(buckets=512))
for batch in (["a", "b", "a"], ["c"], ["b", "a"]):
    estimator.update(keys_of_ids(pl.Series("item", batch)))
print(hashlib.sha256(b"".join(array.tobytes() for array in estimator.state().values())).hexdigest())
"""
    environments = [{**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(shortlist.__file__).parents[1])} for seed in ("1", "2")]
    started = [subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) for env in environments]
    first, second = (process.communicate(timeout=60)[0] for process in started)
    assert first == second
    assert len(first.strip()) == 64


def test_keys_of_ids_keep_their_meaning_for_ever() -> None:
    # saved states depend on these numbers
    keys = keys_of_ids(pl.Series("item", ["a", "7", "07"]))
    assert keys.tolist() == PINNED
    assert keys_of_ids(pl.Series("item", [7])).tolist() == PINNED[1:2]
    assert (keys.dtype, len(keys_of_ids(pl.Series("item", [], dtype=pl.String)))) == (np.uint64, 0)


def test_buckets_keep_their_place_for_ever() -> None:
    # saved states depend on these numbers, too
    assert places(StreamingSettings(buckets=3000, hashes=3, seed=2), 3) == PLACES


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (pl.Series("item", ["a", None]), "'item' row 2 must hold an id: got null"),
        (pl.Series("item", [1.5]), "must hold strings or integers: got Float64"),
        (pl.Series("item", [True]), "must hold strings or integers: got Boolean"),
    ],
)
def test_what_is_no_id_is_refused(ids: pl.Series, message: str) -> None:
    with pytest.raises(DataError, match=message):
        keys_of_ids(ids)


# --- state


@pytest.mark.parametrize("semantics", ["count", "inclusion"])
def test_a_saved_state_goes_on_as_if_never_interrupted(semantics: Any, tmp_path: Path) -> None:
    s = StreamingSettings(buckets=303, hashes=3, semantics=semantics, seed=9)
    rng = np.random.default_rng(5)
    batches = [rng.integers(0, 211, 23) for _ in range(31)]
    through = fed(s, *batches)
    half = fed(s, *batches[:17])
    for name, array in half.state().items():
        np.save(tmp_path / f"{name}.npy", array, allow_pickle=False)
    resumed = StreamingFrequency.from_state(s, {path.stem: np.load(path, mmap_mode="r") for path in tmp_path.glob("*.npy")})
    assert {name: array.tobytes() for name, array in resumed.state().items()} == {
        name: array.tobytes() for name, array in half.state().items()
    }
    for batch in batches[17:]:
        resumed.update(batch)
    assert {name: array.tobytes() for name, array in resumed.state().items()} == {
        name: array.tobytes() for name, array in through.state().items()
    }


def test_a_state_is_a_copy_and_reading_changes_nothing() -> None:
    estimator = fed(OURS, [1, 2])
    kept = estimator.state()
    estimator.estimate(np.arange(10))
    assert all(np.array_equal(array, kept[name]) for name, array in estimator.state().items())
    estimator.update(np.array([1]))
    assert int(kept["step"]) == 1
    assert kept["hits"].sum() == 2


def test_a_state_of_other_settings_is_refused() -> None:
    state = fed(OURS, [1]).state()
    with pytest.raises(ShapeError, match=r"last_step must be \(32,\) int64 with these settings: got \(65536,\) int64"):
        StreamingFrequency.from_state(replace(OURS, buckets=32), state)
    with pytest.raises(ShapeError, match="a inclusion state must hold"):
        StreamingFrequency.from_state(replace(OURS, semantics="inclusion"), state)
    with pytest.raises(ValueError, match="must come from hashes of seed 3"):
        StreamingFrequency.from_state(replace(OURS, seed=3), state)


# --- merge


def dealt(workers: int, steps: int) -> tuple[StreamingFrequency, list[StreamingFrequency], NDArray[np.float64]]:
    """One estimator on all rows, the workers on theirs, and the expected counts in the global batch. M = 211, 13 rows a worker."""
    rng = np.random.default_rng(workers)
    q = 1 / np.arange(1, 212)
    q /= q.sum()
    whole, parts = StreamingFrequency(OURS), [StreamingFrequency(OURS) for _ in range(workers)]
    for _ in range(steps):
        batch = rng.choice(211, workers * 13, p=q)
        whole.update(batch)
        for part, own in zip(parts, batch.reshape(workers, 13), strict=True):
            part.update(own)
    return whole, parts, workers * 13 * q


def test_merging_by_hand() -> None:
    # 12 steps. Worker 1: hits at 2, 6, 12 with 1, 1, 4 copies: B = (4 + 6)/2 = 5, K = 2, silent 0: r = 1/5
    # worker 2: once at 8, 3 copies: B = 8, weight 1, silent 4: r = 1/12. Mean rate (1/5 + 1/12)/2 = 17/120
    # A = 12, n = 4, B = 120/17, K = (2/5 + 3/12) / (17/60) = 39/17; count = 39/120 = mean of 2/5 and 3/12
    steps: list[list[int]] = [[] for _ in range(12)]
    one, two = [list(batch) for batch in steps], [list(batch) for batch in steps]
    one[1], one[5], one[11], two[7] = [3], [3], [3] * 4, [3] * 3
    merged = fed(OURS, *one).merge([fed(OURS, *two)])
    state = {name: array.max() for name, array in merged.state().items()}
    assert (state["step"], state["last_step"], state["hits"]) == (12, 12, 4)
    assert (state["mean_gap"], state["multiplicity"]) == (pytest.approx(120 / 17), pytest.approx(39 / 17))
    assert read(merged, 3, 4) == [pytest.approx(39 / 120), 0.0]


@pytest.mark.parametrize("workers", [2, 5])
def test_merged_workers_read_the_global_batch_as_one_worker_does(workers: int) -> None:
    whole, parts, counts = dealt(workers, 60)
    rows = np.arange(211)
    one, merged = whole.estimate(rows), workers * parts[0].merge(parts[1:]).estimate(rows)
    added = np.sum([part.estimate(rows) for part in parts], axis=0)
    for is_in in (slice(0, 10), slice(10, 60), slice(60, 211)):
        assert one[is_in].sum() == pytest.approx(counts[is_in].sum(), rel=0.1)
        assert merged[is_in].sum() == pytest.approx(counts[is_in].sum(), rel=0.1)
        assert added[is_in].sum() == pytest.approx(counts[is_in].sum(), rel=0.1)


def test_an_item_that_one_worker_alone_meets_is_not_read_as_if_all_did() -> None:
    parts = [fed(OURS, *[[1, 1], [1]] * 20), *(fed(OURS, *[[2]] * 40) for _ in range(3))]
    assert read(parts[0].merge(parts[1:]), 1, 2) == [pytest.approx(1.5 / 4), pytest.approx(3 / 4)]


@pytest.mark.parametrize("start", ["first_gap", "prior", "paper"])
def test_merging_one_alone_changes_nothing(start: Any) -> None:
    estimator = fed(replace(OURS, start=start, start_gap=None if start == "first_gap" else 30.0), *[[1, 1, 5], [2], []] * 7, [9])
    merged = estimator.merge([])
    for name, array in estimator.state().items():
        np.testing.assert_allclose(merged.state()[name], array, rtol=1e-12)


def test_merging_needs_one_clock_and_equal_settings() -> None:
    estimator = fed(OURS, [1])
    with pytest.raises(ValueError, match="the same steps: got 2 beside 1"):
        estimator.merge([fed(OURS, [1], [2])])
    with pytest.raises(ValueError, match="equal settings"):
        estimator.merge([fed(replace(OURS, rate=0.5), [1])])


# --- refusals


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        (np.array([[1, 2]]), ShapeError, r"one-dimensional: got shape \(1, 2\)"),
        (np.array([3, -1]), ValueError, "must not be negative: got -1; leave padding out"),
        (np.array([1.0]), TypeError, "int64 rows or uint64 hashes: got float64"),
        (np.array([1], np.int32), TypeError, "got int32"),
    ],
)
def test_keys_that_are_none_are_refused_and_take_no_step(keys: Any, error: type[Exception], message: str) -> None:
    estimator = StreamingFrequency(OURS)
    with pytest.raises(error, match=message):
        estimator.update(keys)
    with pytest.raises(error, match=message):
        estimator.estimate(keys)
    assert estimator.step == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rate": 0.0}, r"rate is a weight in \(0, 1\]: got 0.0"),
        ({"hashes": 0}, "hashes must be at least 1: got 0"),
        ({"buckets": 10, "hashes": 4}, "multiple of the 4 hashes, which share them equally: got 10"),
        ({"semantics": "sequential"}, "got 'sequential'"),
        ({"stale_after": 0.5}, "at least 1 mean gap, or None: got 0.5"),
        ({"start": "zero"}, "got 'zero'"),
        ({"start_gap": 100.0}, 'no meaning with start = "first_gap": got 100.0'),
        ({"start": "paper"}, 'start = "paper" needs a start_gap of 1 step or more: got None'),
        ({"start": "prior", "start_gap": float("nan")}, "got nan"),
        ({"seed": -1}, "seed must not be negative: got -1"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StreamingSettings(**wrong)
