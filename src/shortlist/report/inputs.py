"""The evaluation folder, read and checked: the one file of this package that knows the names and shapes of its files.

evaluation.json, ranks.parquet, examples.json      as evaluation_folder.py says
study-*.json      studies; those with `rows` by `index_batch_size` are drawn
**/train.jsonl    the log of training of each run, beside its config.toml and run.json (training.py)

Only evaluation.json must be there. What else is missing is None, or empty, and the page says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import polars as pl

from shortlist.errors import DataError
from shortlist.evaluation_folder import EXAMPLES_FILE, RANKS_FILE, TABLE_FILE, split_folder
from shortlist.report.training import Trained, read_training

STUDY_FILES = "study-*.json"
_RANKS_COLUMNS = {"split", "query", "asker", "model", "seed", "rank"}
_SAME = 1e-6  # recall computed twice from the same ranks
_Kind = TypeVar("_Kind")


class _Part(msgspec.Struct, frozen=True):
    """A part of a JSON file. Keys that the page does not show may be there."""


class Estimate(_Part, frozen=True):
    """A mean, and its interval where one is known."""

    mean: float
    low: float | None = None
    high: float | None = None
    seeds: list[float] | None = None  # the mean of each training, where there are several


Estimates = dict[str, dict[str, Estimate]]  # model -> metric


class Split(_Part, frozen=True):
    """One train/test division, as it was tested."""

    name: str
    train_examples: int
    queries: int
    models: dict[str, dict[str, float]]
    tuned: dict[str, dict[str, Any]] = {}  # by model, what was chosen within the training window
    repeats_left_out: int = 0
    unrewarded_left_out: int = 0


class Slice(_Part, frozen=True):
    """The queries of one kind."""

    queries: int
    models: Estimates


class Compared(_Part, frozen=True):
    """`model` minus each other model, on identical queries."""

    model: str
    minus: Estimates


class Made(_Part, frozen=True):
    """How the evaluation was made (provenance.how_made)."""

    command: str
    commit: str | None = None
    versions: dict[str, str] = {}
    finished: str | None = None


class Table(_Part, frozen=True):
    """The evaluation table."""

    protocol: str
    corpus_size: int
    queries: int
    seen_items: str
    repeats: str
    ties: str
    interval: str
    splits: list[Split]
    models: Estimates
    compared: Compared
    slices: dict[str, Slice]
    days: str | None = None
    seeds: list[int] = []  # that the models were trained with
    baselines_left_out: dict[str, str] = {}  # why
    made: Made | None = None


class Listed(_Part, frozen=True):
    """One recommended item. `hit`: it is the one that was chosen next."""

    item: str | int
    text: str
    score: float
    hit: bool


class Example(_Part, frozen=True):
    """One query, in words, and what each model recommends, best first."""

    split: str
    who: str | int | None
    seed: str | None
    history: list[str]
    next: str
    lists: dict[str, list[Listed]]
    ranks: dict[str, int | None] = {}  # where each model has the item chosen next; None = beyond the largest K


class BatchSize(_Part, frozen=True):
    """What a number of uniform negatives B' leads to."""

    index_batch_size: int
    mean: float
    low: float | None = None
    high: float | None = None


class BatchSizeStudy(_Part, frozen=True):
    """A metric by the number of uniform negatives."""

    study: str
    metric: str
    rows: list[BatchSize]
    split: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """All that the page is made of."""

    folder: Path
    table: Table
    ranks: pl.DataFrame | None
    examples: list[Example] | None
    trained: list[Trained]
    studies: list[BatchSizeStudy]
    undrawn_studies: list[str]  # names of study files that hold no metric by B'

    @property
    def models(self) -> list[str]:
        """The models, in the order of the table."""
        return list(self.table.models)

    @property
    def cut_offs(self) -> list[int]:
        """The K of recall@K, ascending."""
        names = next(iter(self.table.models.values()))
        return sorted(int(name.removeprefix("recall@")) for name in names if name.startswith("recall@"))


def read_evaluation(folder: Path) -> Evaluation:
    """The evaluation in `folder`.

    Raises DataError where evaluation.json is missing, or a file is not what it must be or is of another evaluation
    """
    path = folder / TABLE_FILE
    if not path.exists():
        raise DataError(f"{folder} must hold {TABLE_FILE}: got none; run `shortlist evaluate CONFIG --out {folder}`")
    table = _decoded(path, Table)
    _check_table(path, table)
    examples = _decoded(folder / EXAMPLES_FILE, list[Example]) if (folder / EXAMPLES_FILE).exists() else None
    studies = dict(_studies(folder))
    evaluation = Evaluation(
        folder=folder,
        table=table,
        ranks=_read_ranks(folder / RANKS_FILE),
        examples=examples,
        trained=[run for run in read_training(folder) if _is_of(run, table)],
        studies=[study for study in studies.values() if study is not None],
        undrawn_studies=[name for name, study in studies.items() if study is None],
    )
    _check_ranks(evaluation)
    return evaluation


def _decoded(path: Path, kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} must be what this version of `shortlist evaluate` writes: {error}; run that again") from None


def _check_table(path: Path, table: Table) -> None:
    """What types cannot say: there is a model, all have the same recalls, the one that is compared is among them."""
    recalls = [[name for name in metrics if name.startswith("recall@")] for metrics in table.models.values()]
    if not recalls or not recalls[0] or any(names != recalls[0] for names in recalls):
        raise DataError(f"{path} must hold models with the same recall@K each: got {dict(zip(table.models, recalls, strict=True))}")
    if not table.splits:
        raise DataError(f"{path} must hold a split: got none; run `shortlist evaluate` again")
    unknown = [name for name in (table.compared.model, *table.compared.minus) if name not in table.models]
    if unknown:
        raise DataError(f"{path} must compare models that it lists ({', '.join(table.models)}): got {', '.join(unknown)}")


def _is_of(run: Trained, table: Table) -> bool:
    """Whether a run is of a split and a seed of this table: an earlier evaluation into the same folder may have had others."""
    split, _, seed = run.name.partition("/")
    is_known_seed = not seed or not table.seeds or seed in {f"seed-{number}" for number in table.seeds}
    return is_known_seed and split in {split_folder(one.name) for one in table.splits}


def _studies(folder: Path) -> Iterator[tuple[str, BatchSizeStudy | None]]:
    """(file name, the study); None for a study that holds no metric by B'."""
    for path in sorted(folder.glob(STUDY_FILES)):
        found: Any = _decoded(path, dict)
        yield path.name, _decoded(path, BatchSizeStudy) if "rows" in found else None


def _read_ranks(path: Path) -> pl.DataFrame | None:
    if not path.exists():
        return None
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} must be a Parquet file: {error}; run `shortlist evaluate` again") from None
    missing = sorted(_RANKS_COLUMNS - set(frame.columns))
    if missing:
        raise DataError(f"{path} must have columns {', '.join(sorted(_RANKS_COLUMNS))}: {', '.join(missing)} missing; evaluate again")
    return frame


def _check_ranks(evaluation: Evaluation) -> None:
    """Ranks of another evaluation would draw figures that contradict the table."""
    if evaluation.ranks is None:
        return
    names = evaluation.ranks["model"].unique(maintain_order=True).to_list()
    if sorted(names) != sorted(evaluation.models):
        raise _other_evaluation(evaluation, f"models {json.dumps(names)} and {json.dumps(evaluation.models)}")
    longest = evaluation.cut_offs[-1]
    hits = pl.col("rank").le(longest).fill_null(False).mean()
    by_split = evaluation.ranks.group_by("model", "split").agg(hits.alias("recall"))
    for model, recall in by_split.group_by("model").agg(pl.col("recall").mean()).iter_rows():
        said = evaluation.table.models[model][f"recall@{longest}"].mean
        if not np.isclose(recall, said, atol=_SAME, rtol=0):
            raise _other_evaluation(evaluation, f"recall@{longest} {recall:.6f} and {said:.6f} of {model}")


def _other_evaluation(evaluation: Evaluation, got: str) -> DataError:
    both = f"{RANKS_FILE} and {TABLE_FILE} in {evaluation.folder}"
    return DataError(f"{both} must come from one evaluation: got {got}; run `shortlist evaluate` into this folder again")
