"""Questions in, lists out: order, exclusion, missing columns, ids as they came."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from small_project import silent, small_project

from shortlist.bundle import Bundle, open_current
from shortlist.errors import DataError
from shortlist.export import publish_run
from shortlist.recommender import ids_from_text, read_questions, recommend
from shortlist.run import train_run


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("recommender")
    project = small_project(folder, {"train": {"epochs": 2}})
    publish_run(train_run(project, project.log, folder / "run", log_to=silent), folder / "store")
    return open_current(folder / "store")


def test_answers_come_in_the_order_of_the_questions_with_the_promised_types(bundle: Bundle) -> None:
    answers = recommend(bundle, pl.DataFrame({"user": [3, None, 999]}), 5)
    assert answers.schema == {"query_row": pl.Int64, "items": pl.List(pl.String), "scores": pl.List(pl.Float32)}
    assert answers["query_row"].to_list() == [0, 1, 2]
    for items, scores in answers.select("items", "scores").iter_rows():
        assert len(items) == len(set(items)) == 5
        assert scores == sorted(scores, reverse=True)


def test_columns_may_go_by_role_or_by_their_name_in_the_events_but_not_both(bundle: Bundle) -> None:
    by_role, by_name = (recommend(bundle, pl.DataFrame({name: [3, 7]}), 4) for name in ("user", "user_id"))
    assert by_role.equals(by_name)
    with pytest.raises(DataError, match="'user_id' and 'user'"):
        recommend(bundle, pl.DataFrame({"user": [3], "user_id": [3]}), 4)


def test_a_known_user_without_a_history_has_the_one_training_ended_with(bundle: Bundle) -> None:
    assert bundle.histories is not None
    history = bundle.histories.filter(pl.col("user") == 3)["history"].to_list()[0]
    remembered = recommend(bundle, pl.DataFrame({"user": [3]}), 9)
    told = recommend(bundle, pl.DataFrame({"user": [3], "history": [history]}), 9)
    other = recommend(bundle, pl.DataFrame({"user": [3], "history": [["i01"]]}), 9)
    assert remembered["items"].to_list() == told["items"].to_list()
    assert remembered["scores"].to_list() != other["scores"].to_list()


def test_excluded_items_are_left_out_and_k_still_come(bundle: Bundle) -> None:
    plain = recommend(bundle, pl.DataFrame({"seed": ["i04", "i05"]}), 10)
    first = plain["items"].to_list()
    asked = pl.DataFrame({"seed": ["i04", "i05"], "exclude": [[*first[0][:6], "no such item"], None]})
    answers = recommend(bundle, asked, 10)
    assert answers["items"].to_list()[0][:4] == first[0][6:]
    assert len(answers["items"].to_list()[0]) == 10
    assert answers["items"].to_list()[1] == first[1]
    everything_but = [item for item in bundle.items.ids.to_list() if item not in ("i07", "i11")]
    left = recommend(bundle, pl.DataFrame({"seed": ["i04"], "exclude": [everything_but]}), 10)
    assert sorted(left["items"].to_list()[0]) == ["i07", "i11"]


def test_seen_items_are_left_out_on_request(bundle: Bundle) -> None:
    asked = pl.DataFrame({"seed": ["i04"], "history": [["i09", "i14", "i04"]]})
    answer = recommend(bundle, asked, 53, exclude_seen=True)["items"].to_list()[0]
    assert len(answer) == 50 and not {"i04", "i09", "i14"} & set(answer)


def test_more_than_the_corpus_gives_the_corpus(bundle: Bundle) -> None:
    answers = recommend(bundle, pl.DataFrame({"seed": ["i04"]}), 1000)
    assert sorted(answers["items"].to_list()[0]) == bundle.items.ids.to_list()


def test_a_question_is_answered_alike_alone_and_among_others(bundle: Bundle) -> None:
    rng = np.random.default_rng(0)
    ids = bundle.items.ids.to_list()
    asked = pl.DataFrame(
        {
            "user": pl.Series([int(user) if user < 61 else None for user in rng.integers(0, 70, 41)], dtype=pl.Int64),
            "seed": [ids[row] if row < 53 else None for row in rng.integers(0, 60, 41)],
            "history": [[ids[row] for row in rng.integers(0, 53, size)] for size in rng.integers(0, 9, 41)],
        }
    )
    together = recommend(bundle, asked, 7)
    for row in range(0, 41, 5):
        alone = recommend(bundle, asked[row : row + 1], 7)
        assert alone["items"].to_list()[0] == together["items"].to_list()[row]
        np.testing.assert_allclose(alone["scores"].to_list()[0], together["scores"].to_list()[row], atol=2e-6)


def test_no_questions_give_no_answers(bundle: Bundle) -> None:
    assert recommend(bundle, pl.DataFrame({"user": pl.Series([], dtype=pl.Int64)}), 3).height == 0


def test_wrong_types_and_sizes_are_refused(bundle: Bundle) -> None:
    with pytest.raises(DataError, match="history must be a list"):
        recommend(bundle, pl.DataFrame({"history": ["i01"]}), 3)
    with pytest.raises(DataError, match="'exclude' must be a list"):
        recommend(bundle, pl.DataFrame({"user": [1], "exclude": ["i01"]}), 3)
    with pytest.raises(DataError, match="Int64"):
        recommend(bundle, pl.DataFrame({"seed": [1]}), 3)
    with pytest.raises(ValueError, match="k must be"):
        recommend(bundle, pl.DataFrame({"user": [1]}), 0)


def test_questions_are_read_from_json_or_files(tmp_path: Path) -> None:
    one = read_questions('{"user": 3, "history": ["i01", "i02"], "seed": null}', None)
    assert one.height == 1 and one["history"].to_list() == [["i01", "i02"]]
    with pytest.raises(DataError, match="one JSON object"):
        read_questions("[1, 2]", None)
    one.select("user").write_parquet(tmp_path / "q.parquet")
    assert read_questions(None, str(tmp_path / "q.parquet"))["user"].to_list() == [3]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ('{"user": "abc"}', "user ids are Int64"),
        ('{"user": 1.5}', "user ids are Int64"),
        ('{"user": true}', "user ids are Int64"),
        ('{"user": [1]}', "user ids are Int64"),
        ('{"history": ["i01", 2]}', "values of one type"),
        ('{"history": 5, "user": 1}', "history must be a list"),
        ('{"history": [1, 2], "user": 1}', "history ids are String"),
        ('{"usr": 1}', "a query needs a column"),
    ],
)
def test_an_unfit_question_is_refused_and_never_answered_as_another(bundle: Bundle, query: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        recommend(bundle, read_questions(query, None), 3)


def test_a_giant_k_costs_no_more_than_the_corpus(bundle: Bundle) -> None:
    assert recommend(bundle, pl.DataFrame({"user": [1]}), 10**15)["items"].list.len().to_list() == [53]


def test_a_csv_whose_ids_happen_to_be_digits_is_read_as_the_versions_ids(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("user_id,seed\n3,17\n7,18\n")
    asked = read_questions(None, str(tmp_path / "q.csv"))
    assert asked["seed"].dtype == pl.Int64
    with pytest.raises(DataError, match="seed ids are String"):
        recommend(bundle, asked, 4)
    answers = recommend(bundle, ids_from_text(bundle, asked), 4)
    assert answers.equals(recommend(bundle, pl.DataFrame({"user_id": [3, 7], "seed": ["17", "18"]}), 4))
