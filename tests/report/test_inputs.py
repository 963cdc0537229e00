"""The evaluation folder is read as it was written, and every fault of it is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from small_report import HOSTILE, write_evaluation, write_run

from shortlist.errors import DataError
from shortlist.report.inputs import read_evaluation


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evaluation(tmp_path_factory.mktemp("inputs") / "whole", runs=2)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def changed_table(folder: Path, **changes: object) -> None:
    path = folder / "evaluation.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_everything_is_read_back(whole: Path) -> None:
    found = read_evaluation(whole)
    assert found.models == ["two-tower", "popularity", HOSTILE] and found.cut_offs == [10, 100]
    assert found.table.seeds == [0, 1] and len(found.table.models["two-tower"]["recall@10"].seeds or []) == 2
    assert found.ranks is not None and found.ranks.height == (211 + 307) * (2 + 1 + 1)
    assert found.examples is not None and found.examples[0].ranks == {"two-tower": 3, "popularity": None, HOSTILE: 3}
    assert [run.name for run in found.trained] == [f"2000-12-1{day}/seed-{seed}" for day in (6, 7) for seed in (0, 1)]
    assert found.table.splits[0].tuned["popularity"]["factors"] == 64


def test_only_the_table_must_be_there(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != "evaluation.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = read_evaluation(folder)
    assert (found.ranks, found.examples, found.trained, found.studies, found.undrawn_studies) == (None, None, [], [], [])
    (folder / "evaluation.json").unlink()
    with pytest.raises(DataError, match=r"must hold evaluation.json: got none; run `shortlist evaluate CONFIG --out"):
        read_evaluation(folder)


def test_runs_of_other_splits_and_seeds_in_the_folder_are_not_of_this_evaluation(folder: Path) -> None:
    write_run(folder / "1999-01-01" / "seed-0")
    write_run(folder / "2000-12-16" / "seed-7")
    (folder / "last").symlink_to("2000-12-17/seed-0")
    assert [run.name for run in read_evaluation(folder).trained] == [f"2000-12-1{day}/seed-{seed}" for day in (6, 7) for seed in (0, 1)]


@pytest.mark.parametrize("name", ["evaluation.json", "examples.json", "study-table2.json"])
@pytest.mark.parametrize("content", ["{", "[7]", '{"queries": "many", "rows": 3}'])
def test_a_file_that_is_not_what_it_should_be_is_named(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=rf"{name} must be what this version of `shortlist evaluate` writes: .*; run that again"):
        read_evaluation(folder)


def test_ranks_that_are_no_parquet_or_lack_columns_are_named(folder: Path) -> None:
    ranks = pl.read_parquet(folder / "ranks.parquet")
    ranks.drop("rank", "seed").write_parquet(folder / "ranks.parquet")
    with pytest.raises(DataError, match=r"must have columns asker, model, query, rank, seed, split: rank, seed missing"):
        read_evaluation(folder)
    (folder / "ranks.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"ranks.parquet must be a Parquet file"):
        read_evaluation(folder)


def test_ranks_of_another_evaluation_are_refused(folder: Path, tmp_path: Path) -> None:
    ranks = pl.read_parquet(folder / "ranks.parquet")
    ranks.with_columns(model=pl.col("model").replace("popularity", "ease")).write_parquet(folder / "ranks.parquet")
    with pytest.raises(DataError, match=r"must come from one evaluation: got models .*ease.* and .*popularity"):
        read_evaluation(folder)
    other = write_evaluation(tmp_path / "other", seed=1, runs=2)
    shutil.copy(other / "ranks.parquet", folder / "ranks.parquet")
    with pytest.raises(
        DataError, match=r"must come from one evaluation: got recall@100 0\.\d{6} and 0\.\d{6} of .*; run `shortlist evaluate`"
    ):
        read_evaluation(folder)


def test_a_table_that_contradicts_itself_is_refused(folder: Path) -> None:
    table = json.loads((folder / "evaluation.json").read_text())
    changed_table(folder, compared={"model": "gone", "minus": {}})
    with pytest.raises(DataError, match=r"must compare models that it lists .*: got gone"):
        read_evaluation(folder)
    changed_table(folder, compared=table["compared"], splits=[])
    with pytest.raises(DataError, match=r"must hold a split: got none"):
        read_evaluation(folder)
    changed_table(folder, models={"a": {"recall@10": {"mean": 1}}, "b": {"recall@5": {"mean": 1}}})
    with pytest.raises(DataError, match=r"models with the same recall@K each: got \{'a': \['recall@10'\], 'b': \['recall@5'\]\}"):
        read_evaluation(folder)


def test_a_study_without_rows_is_named_and_not_drawn(folder: Path) -> None:
    (folder / "study-designs.json").write_text('{"study": "designs", "variants": {}}')
    found = read_evaluation(folder)
    assert found.undrawn_studies == ["study-designs.json"] and len(found.studies) == 1
