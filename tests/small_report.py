"""A small evaluation folder with every part, made by the functions that make real ones: for the tests of the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from small_evaluation import outcome_of, settings_of

from shortlist.evaluate import Ranked, Tested
from shortlist.evaluation_table import evaluation_table, ranks_frame
from shortlist.metrics.ranking import NOT_FOUND
from shortlist.report.provenance import how_made
from shortlist.slices import DECILES, NEVER, slices_of_age
from shortlist.times import DAY_US

KS = (10, 100)
HOSTILE = '<script>alert("x")</script> & </title></svg>'  # in every text of the data that can hold it
SPLITS = {"2000-12-16": 211, "2000-12-17": 307}  # queries


def write_evaluation(folder: Path, *, models: Sequence[str] = ("two-tower", "popularity", HOSTILE), seed: int = 0, runs: int = 1) -> Path:
    """Writes all files of an evaluation into `folder`, which comes back. The models are the better the earlier they stand.

    runs   trainings of the first model, with seeds 0, 1, ...
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    tested = [_tested(name, queries, random) for name, queries in SPLITS.items()]
    ranked = []
    for split in tested:
        trained = [replace(_ranked(models[0], 0, len(split), random), seed=run) for run in range(runs)]
        others = [_ranked(model, place, len(split), random) for place, model in enumerate(models) if place]
        ranked.append([*trained, *(replace(other, tuned={"factors": 64, "half_life": 4.0, "tuned_on": 1234}) for other in others)])
    settings = settings_of(ks=KS, bootstrap=101)
    table = evaluation_table(tested, ranked, settings) | {"made": how_made(["evaluate", "a folder/shortlist.toml"])}
    (folder / "evaluation.json").write_text(json.dumps(table))
    ranks_frame(tested, ranked).write_parquet(folder / "ranks.parquet")
    write_examples(folder, models)
    for name in SPLITS:
        for run in range(runs):
            write_run(folder / name / f"seed-{run}", offset=run)
    write_study(folder)
    return folder


def write_examples(folder: Path, models: Sequence[str], count: int = 3) -> None:
    entries = [{"item": place, "text": f"{HOSTILE} {place}", "score": 1000.0 / 7**place, "hit": place == 2} for place in range(5)]
    example = {"split": "2000-12-16", "who": HOSTILE, "seed": HOSTILE, "history": [HOSTILE, "an item"], "next": HOSTILE}
    alone = {**example, "who": None, "seed": None, "history": []}
    ranks = {model: 3 if place % 2 == 0 else None for place, model in enumerate(models)}
    lists = {model: entries if place % 2 == 0 else entries[:2] for place, model in enumerate(models)}
    (folder / "examples.json").write_text(
        json.dumps([{**(example if number else alone), "ranks": ranks, "lists": lists} for number in range(count)])
    )


def write_run(folder: Path, *, steps: int = 400, offset: int = 0) -> None:
    """A run of 4 epochs, of which the third is the best."""
    folder.mkdir(parents=True)
    lines: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        lines.append({"step": step, "loss": 5 + 20 / step + offset / 10, "warnings": [HOSTILE] if step == 20 else []})
    for epoch, loss in enumerate((6.0, 5.5, 5.25, 5.75)):
        lines.append({"step": (epoch + 1) * steps // 4, "epoch": epoch, "validation_loss": loss + offset / 10, "best_epoch": 2})
    (folder / "train.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (folder / "run.json").write_text(json.dumps({"first_time": "2000-11-16T00:00:03+00:00", "last_time": "2000-12-15T23:59:58+00:00"}))
    (folder / "config.toml").write_text('[data]\nevents = "events.parquet"  # <b>\n')


def write_study(folder: Path) -> None:
    rows = [{"index_batch_size": size, "mean": mean, "low": mean - 0.01, "high": mean + 0.01} for size, mean in ((256, 0.5), (0, 0.4))]
    (folder / "study-table2.json").write_text(json.dumps({"study": HOSTILE, "metric": "recall@100", "split": "a split", "rows": rows}))


def _tested(name: str, queries: int, random: np.random.Generator) -> Tested:
    decile = random.integers(0, DECILES, queries)  # the tenth decile stays empty
    age = np.where(decile == 0, NEVER, random.integers(0, 400 * DAY_US, queries))
    by_popularity = {f"popularity decile {number}": decile == number for number in range(1, DECILES + 1)}
    slices = {HOSTILE: decile > 3, **by_popularity, "unseen items": decile == 0, **slices_of_age(age)}
    tested = outcome_of(random.integers(-1, 40, queries).tolist(), name, corpus_size=500)
    return replace(tested, decile=decile, item_age_us=age, slices=slices, repeats_left_out=7)


def _ranked(model: str, place: int, queries: int, random: np.random.Generator) -> Ranked:
    rank = random.geometric(0.02 / (place + 1), queries)
    lists = {f"coverage@{KS[-1]}": 0.9 / (place + 1), f"gini@{KS[-1]}": 0.5}
    return Ranked(model, np.where(rank > KS[-1], NOT_FOUND, rank), lists)
