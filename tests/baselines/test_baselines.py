"""Popularity and co-occurrence against hand counts, slow versions, and a log with a planted signal."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st
from small_baselines import asking, by_row, dataset_of, project_of

from shortlist.baselines import cooccurrence, top_rows
from shortlist.baselines.cooccurrence import CoOccurrence
from shortlist.baselines.popularity import Popularity
from shortlist.dataset import make_dataset
from shortlist.evaluate import rank_positives
from shortlist.project import Project
from shortlist.protocols.holdout import holdout_split, leave_last_split
from shortlist.protocols.split import Split
from shortlist.sections import EvaluateSettings

STEADY = property_settings(deadline=None, derandomize=True)


# --- the best rows


@STEADY
@given(st.lists(st.lists(st.integers(0, 4), min_size=7, max_size=7), max_size=5), st.integers(1, 9), st.booleans(), st.data())
def test_the_best_rows_are_those_of_a_full_sort(lines: list[list[int]], k: int, excludes: bool, data: st.DataObject) -> None:
    scores = np.array(lines, np.float32).reshape(-1, 7)
    exclude = [np.array(data.draw(st.lists(st.integers(-1, 6), max_size=7)), np.int64) for _ in lines] if excludes else None
    rows, found = top_rows.top_rows(scores, k, exclude)
    for query, line in enumerate(lines):
        hidden = set() if exclude is None else set(exclude[query].tolist())
        best = sorted((row for row in range(7) if row not in hidden), key=lambda row: (-line[row], row))[:k]
        assert rows[query].tolist() == best + [-1] * (k - len(best))
        assert found[query].tolist() == [line[row] for row in best] + [-np.inf] * (k - len(best))
    assert rows.shape == found.shape == (len(lines), k)


def test_excluding_leaves_the_scores_of_others_and_of_the_caller_alone() -> None:
    scores = np.array([[1, 2, 3]], np.float32)
    top_rows.top_rows(scores, 2, [np.array([2])])
    assert scores.tolist() == [[1, 2, 3]]


# --- popularity


def test_popularity_is_one_list_for_all_by_count_then_row() -> None:
    model = Popularity(dataset_of(5, user=[1, 2, 3, 4], item=[3, 1, 3, 4], time=[1, 2, 3, 4]))
    rows, scores = model.retrieve(asking([0], [3], []), 4)
    assert rows.tolist() == [[3, 1, 4, 0]] * 3 and scores.tolist() == [[2, 1, 1, 0]] * 3
    rows, scores = model.retrieve(asking([0], []), 3, [np.array([3, 1, -1]), np.array([], np.int64)])
    assert rows.tolist() == [[4, 0, 2], [3, 1, 4]] and scores.tolist() == [[1, 0, 0], [2, 1, 1]]
    assert model.retrieve(asking(), 3)[0].shape == (0, 3)


# --- co-occurrence, where users ask


def test_near_choices_count_by_their_distance_and_the_rest_is_popularity() -> None:
    model = CoOccurrence(dataset_of(6, user=[1, 1, 1, 2, 2, 3], item=[0, 1, 2, 0, 2, 4], time=[1, 2, 3, 4, 5, 6]), seeds_ask=False)
    # user 1: 0 -> 1 at distance 1, 1 -> 2 at 1, 0 -> 2 at 2; user 2: 0 -> 2 at 1. So near[0] = {1: 1, 2: 1.5}, near[1] = {2: 1}.
    # Counts: 0 twice, 1 once, 2 twice, 4 once; backing = count / 3 / 100.
    backing = np.array([2, 1, 2, 0, 1, 0]) / 300
    scores = by_row(model.retrieve(asking([0], [0, 1], [3], []), 6))
    assert scores[0] == pytest.approx(backing + np.array([0, 1, 1.5, 0, 0, 0]), abs=1e-6)
    assert scores[1] == pytest.approx(backing + np.array([0, 0.5, 1 + 1.5 / 2, 0, 0, 0]), abs=1e-6)  # 0 is second newest: half
    assert scores[2] == pytest.approx(backing, abs=1e-6) and scores[3] == pytest.approx(backing, abs=1e-6)
    assert model.retrieve(asking([0]), 6)[0].tolist() == [[2, 1, 0, 4, 3, 5]]


def slow_users(events: list[tuple[int, int]], corpus: int, shown: list[int], last: int) -> list[float]:
    """The definition for events (user, item) in order, one instant each; `shown` newest first."""
    scores = [0.0] * corpus
    for place, event in enumerate(events):
        before = [item for user, item in events[:place] if user == event[0]][::-1][:last]
        for distance, earlier in enumerate(before, 1):
            for position, item in enumerate(shown[:last], 1):
                scores[event[1]] += (earlier == item) / distance / position
    counts = Counter(item for _, item in events)
    return [score + counts[item] / (max(counts.values()) + 1) / last**2 for item, score in enumerate(scores)]


@STEADY
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6)), min_size=1, max_size=29),
    st.lists(st.lists(st.integers(0, 6), max_size=13), min_size=1, max_size=5),
)
def test_near_choices_agree_with_a_plain_loop(events: list[tuple[int, int]], histories: list[list[int]]) -> None:
    dataset = dataset_of(7, user=[user for user, _ in events], item=[item for _, item in events], time=list(range(len(events))))
    scores = by_row(CoOccurrence(dataset, seeds_ask=False).retrieve(asking(*histories), 7))
    for line, history in zip(scores, histories, strict=True):
        assert line == pytest.approx(slow_users(events, 7, history[::-1], 10), abs=1e-5)


def test_a_seed_of_its_own_is_shown_before_the_history_and_a_derived_one_stands_in_it() -> None:
    # 0 was followed by 1, 2 by 3
    dataset = dataset_of(5, user=[1, 1, 2, 2], item=[0, 1, 2, 3], time=[1, 2, 3, 4])
    model = CoOccurrence(dataset, seeds_ask=False)
    scores = by_row(model.retrieve(asking([2], [2], [], seeds=[0, 2, 0]), 5))
    assert scores[0] - model.backing == pytest.approx([0, 1, 0, 0.5, 0], abs=1e-6)
    assert scores[1] - model.backing == pytest.approx([0, 0, 0, 1, 0], abs=1e-6)
    assert scores[2] - model.backing == pytest.approx([0, 1, 0, 0, 0], abs=1e-6)


def test_an_item_with_any_co_occurrence_stands_above_all_without() -> None:
    # item 1 was chosen once, ten choices after item 0; item 12 ten thousand times, by people who chose nothing else
    user = [0] * 11 + list(range(1, 10_001))
    item = [0, *range(2, 11), 1] + [12] * 10_000
    model = CoOccurrence(dataset_of(13, user=user, item=item, time=list(range(len(item)))), seeds_ask=False)
    rows, scores = model.retrieve(asking([0, *[11] * 9]), 13)  # item 0 is shown tenth, behind an item that nobody chose
    # the nine between are nearer to 0, hence above 1: 1 / distance / 10; then 1 itself with 1 / 10 / 10
    assert rows[0, :11].tolist() == [*range(2, 11), 1, 12]
    assert scores[0, 9] == pytest.approx(0.01, abs=1e-5) and scores[0, 10] == pytest.approx(0.01 * 10_000 / 10_001, abs=1e-7)
    assert scores[0, 9] > scores[0, 10]


def test_blocks_and_exclusions_change_no_other_score(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    dataset = dataset_of(17, user=rng.integers(0, 5, 101), item=rng.integers(0, 17, 101), time=np.arange(101))
    queries = asking(*[rng.integers(0, 17, rng.integers(0, 13)).tolist() for _ in range(23)])
    exclude = [rng.integers(-1, 17, 5) for _ in range(23)]
    model = CoOccurrence(dataset, seeds_ask=False)
    whole, full = model.retrieve(queries, 7, exclude), by_row(model.retrieve(queries, 17))
    monkeypatch.setattr(cooccurrence, "_BLOCK", 5)
    parts = model.retrieve(queries, 7, exclude)
    assert parts[0].tolist() == whole[0].tolist() and parts[1].tolist() == whole[1].tolist()
    for query, hidden in enumerate(exclude):
        assert not set(whole[0][query].tolist()) & set(hidden[hidden >= 0].tolist())
        assert whole[1][query].tolist() == full[query][whole[0][query]].tolist()


def test_a_log_that_is_too_long_is_counted_from_its_newest_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cooccurrence, "_MOST_EXAMPLES", 2)
    dataset = dataset_of(4, user=[1, 1, 1, 1], item=[0, 1, 2, 3], time=[1, 2, 3, 4])
    near = CoOccurrence(dataset, seeds_ask=False).near.toarray()
    assert near == pytest.approx(np.array([[0, 0, 1 / 2, 1 / 3], [0, 0, 1, 1 / 2], [0, 0, 0, 1], [0, 0, 0, 0]]))


# --- co-occurrence, where seeds ask


def test_shared_seeds_by_hand() -> None:
    # seed 0 chose 1 and 2 (twice: once counts), seed 3 chose 1 and 4, seed 5 chose 2
    dataset = dataset_of(6, seed=[0, 0, 0, 3, 3, 5], item=[1, 2, 2, 1, 4, 2])
    model = CoOccurrence(dataset, seeds_ask=True)
    backing = np.array([0, 2, 3, 0, 1, 0]) / 4
    scores = by_row(model.retrieve(asking([], [], [], seeds=[0, 1, -1]), 6))
    # seed 0 is never chosen itself; its choice 1 shares seed 0 with 2 and seed 3 with 4; its choice 2 shares seed 0 with 1
    assert scores[0].tolist() == (backing + np.array([0, 1, 1, 0, 1, 0])).tolist()
    # seed 1 as an item shares seed 0 with 2 and seed 3 with 4, and has made no choice
    assert scores[1].tolist() == (backing + np.array([0, 0, 1, 0, 1, 0])).tolist()
    assert scores[2].tolist() == backing.tolist()


@STEADY
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=23))
def test_shared_seeds_agree_with_a_plain_loop(pairs: list[tuple[int, int]]) -> None:
    model = CoOccurrence(dataset_of(7, seed=[seed for seed, _ in pairs], item=[item for _, item in pairs]), seeds_ask=True)
    scores = by_row(model.retrieve(asking(*[[]] * 7, seeds=list(range(7))), 7)) - model.backing
    chosen = {seed: {item for other, item in pairs if other == seed} for seed in range(7)}
    for seed in range(7):
        sources = [seed, *chosen[seed]]
        together = [sum(i != j and {i, j} <= chosen[s] for i in sources for s in range(7)) for j in range(7)]
        assert scores[seed] == pytest.approx(together, abs=1e-5)


# --- a planted signal


def recall_of_baselines(project: Project, split: Split, k: int, *, seeds_ask: bool) -> dict[str, float]:
    dataset = make_dataset(project, split.train_log)
    examples = dataset.encode_split(split, project.config)
    models = (Popularity(dataset), CoOccurrence(dataset, seeds_ask=seeds_ask))
    settings = EvaluateSettings(ks=(k,))
    return {model.name: float((rank_positives(model, examples, len(dataset.items), settings).rank <= k).mean()) for model in models}


def test_co_occurrence_recovers_what_follows_what_and_beats_popularity() -> None:
    """Half of the choices are the successor of the one before, the others uniform."""
    rng = np.random.default_rng(9)
    successor = rng.permutation(211)
    user, item = [], []
    for number in range(601):
        at = int(rng.integers(0, 211))
        for _ in range(7):
            user.append(number)
            item.append(at)
            at = int(successor[at]) if rng.random() < 0.5 else int(rng.integers(0, 211))
    project = project_of(211, user=user, item=item, time=list(range(len(item))))
    found = recall_of_baselines(project, leave_last_split(project.log), 1, seeds_ask=False)
    # 601 * 5 / 211 = 14 pairs for each first item: about 7 of them show its successor, the others are spread over 211.
    # So half of the tests are answered, with standard deviation sqrt(.25 / 601) = .02; popularity knows 1 / 211.
    assert 0.4 < found["co-occurrence"] < 0.6
    assert found["popularity"] < 0.05


def test_seeds_of_one_group_recover_each_others_choices() -> None:
    """Each of 11 groups chooses out of 13 items of its own."""
    rng = np.random.default_rng(10)
    seed = np.repeat(np.arange(307), 7)
    item = 307 + (seed % 11) * 13 + rng.integers(0, 13, len(seed))
    project = project_of(307 + 11 * 13, seed=seed, item=item)
    found = recall_of_baselines(project, holdout_split(project.log, "pairs", 0.2, seed=0), 13, seeds_ask=True)
    # 28 seeds of a group choose about 5 of its 13 items each: nearly every pair of them meets, and fills the first 13
    assert found["co-occurrence"] > 0.97
    assert found["popularity"] < 0.3  # at most 13 of 143 items, the most chosen
