"""Facts in plain English: every sentence that a reader may meet at the top of the page."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from small_report import write_evaluation

from shortlist.report.inputs import Estimate, Evaluation, read_evaluation
from shortlist.report.verdict import Verdict
from shortlist.report.wording import headline, interval, measured, metric_name, number, score, tuned_words

SPACE = "\N{NO-BREAK SPACE}"


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    found = read_evaluation(write_evaluation(tmp_path_factory.mktemp("wording") / "e", models=("two-tower", "popularity", "ials")))
    models = {model: {"recall@100": Estimate(mean=mean)} for model, mean in (("two-tower", 0.625), ("popularity", 0.5), ("ials", 0.25))}
    return replace(found, table=msgspec.structs.replace(found.table, models=models))


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("recall@10", "Recall@10"),
        ("recall_per_user@10", "Recall per user@10"),
        ("ndcg@10", "NDCG@10"),
        ("mrr@100", "MRR@100"),
        ("intra_list_similarity@50", "Intra-list similarity@50"),
        ("gini@5", "Gini@5"),
    ],
)
def test_metrics_have_names_that_people_use(metric: str, name: str) -> None:
    assert metric_name(metric) == name


def test_numbers_have_the_digits_that_count_and_a_true_minus() -> None:
    assert (number(0.12345), number(-0.5), number(0.25, signed=True), number(-0.25, signed=True)) == ("0.123", "−0.500", "+0.250", "−0.250")
    assert (score(12345.6), score(0.00012345), score(-3.14159)) == ("12,346", "0.0001234", "−3.142")
    assert interval(Estimate(mean=0.5, low=0.25, high=0.75)) == "[0.250, 0.750]" and interval(Estimate(mean=0.5)) == ""
    assert interval(Estimate(mean=0.5, low=-0.25, high=0.75), signed=True) == "[−0.250, +0.750]"


def test_a_certain_winner_is_called_one(evaluation: Evaluation) -> None:
    ahead = {"popularity": Estimate(mean=0.125, low=0.1, high=0.15), "ials": Estimate(mean=0.375, low=0.3, high=0.4)}
    assert headline(Verdict("recall@100", "two-tower", "popularity", ahead), evaluation) == (
        f"two-tower wins: the item chosen next is among its first 100 for 62.5{SPACE}% of the queries (mean of 2 splits).",
        f"That is 12.5 percentage points above popularity, the next best (95{SPACE}% interval of the difference: 10.0 to 15.0 points).",
    )


def test_an_uncertain_one_is_not_and_those_it_cannot_be_told_from_are_named(evaluation: Evaluation) -> None:
    ahead = {"popularity": Estimate(mean=0.125, low=-0.01, high=0.26), "ials": Estimate(mean=0.375, low=-0.1, high=0.9)}
    first, second = headline(Verdict("recall@100", "two-tower", "popularity", ahead), evaluation)
    assert first.startswith("No certain winner. two-tower leads: the item chosen next")
    assert second.endswith("−1.0 to 26.0 points): these queries do not tell it apart from popularity and ials.")


def test_without_an_interval_and_without_others_the_headline_says_so(evaluation: Evaluation) -> None:
    _, second = headline(Verdict("recall@100", "two-tower", "popularity", {}), evaluation)
    assert second == "That is 12.5 percentage points above popularity, the next best; without ranks.parquet the interval is not known."
    first, second = headline(Verdict("recall@100", "two-tower", None, {}), evaluation)
    assert first.startswith("two-tower: the item") and second == "No other model was evaluated, so there is nothing to compare it with."


def test_how_it_was_measured_says_what_a_stranger_must_know(evaluation: Evaluation) -> None:
    facts = dict(measured(evaluation))
    assert facts["Queries"] == "518. Each asks for the one item that was chosen next."
    assert facts["Corpus"] == "500 items. Every list is drawn from all of them; nothing is sampled."
    assert facts["Splits"] == "2: 2000-12-16 to 2000-12-17. All weigh alike in every mean."
    assert facts["Intervals"].endswith("What another training seed would change is not in them.")
    assert facts["Not tested"] == "14 choices of items already known, 0 with a reward of 0." and "Trainings" not in facts
    several = msgspec.structs.replace(
        evaluation.table,
        seeds=[3, 4, 5],
        interval="95 %, bootstrap over users and training seeds, 101 resamples",
        baselines_left_out={"ease": "too many items (2000-12-16)"},
    )
    facts = dict(measured(replace(evaluation, table=several)))
    assert facts["Trainings"] == "3 a split, with seeds 3, 4 and 5; means are over all."
    assert facts["Not compared"] == "ease: too many items (2000-12-16)." and "not in them" not in facts["Intervals"]


def test_what_was_tuned_reads_as_a_phrase() -> None:
    assert tuned_words({"half_life": 4.0, "factors": 64, "tuned_on": 1234}) == "half life 4.0, factors 64; by 1,234 queries"
    assert tuned_words({"factors": 64, "tuned_on": 0}) == "factors 64; not tuned: the log is too small to hold any choice out"
    assert tuned_words({"factors": 64}) == "factors 64"
