"""Train on the past, test on what came after, for every split of the protocol, beside what must be beaten.

FOLDER/SPLIT/seed-0/         the run, which can be published; resumed or read back when the evaluation is run again
FOLDER/SPLIT/baselines/      what each baseline did (judged.py), read back likewise
FOLDER/last                  a link to the newest split's first run
FOLDER/evaluation.json ...   what came out (evaluation_folder.py)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from shortlist.baselines.fit import named_baselines, ready_baselines
from shortlist.dataset import Dataset, Examples, make_dataset
from shortlist.evaluate import Ranked, Tested, asked_queries
from shortlist.evaluation_folder import split_folder, write_evaluation
from shortlist.evaluation_table import evaluation_table, ranks_frame
from shortlist.examples import described_examples, drawn_examples
from shortlist.judged import Judged, baseline_key, judge, judge_baseline, kept
from shortlist.learned import LearnedRetriever
from shortlist.project import Project
from shortlist.protocols.configured import splits
from shortlist.protocols.rolling import latest_window
from shortlist.protocols.split import Split
from shortlist.report.provenance import how_made
from shortlist.run import Run, prepare_run, train_prepared, train_run
from shortlist.train import TrainLog

LogTo = Callable[[Path, str], AbstractContextManager[TrainLog]]
Stage = Callable[[str], AbstractContextManager[None]]  # shows that a stage of work is under way
LAST = "last"


def quietly(what: str) -> AbstractContextManager[None]:
    """A stage that nobody is told of."""
    return nullcontext()


@dataclass(frozen=True)
class SplitResult:
    """What came out on one split."""

    tested: Tested
    ranked: list[Ranked]
    examples: list[dict[str, Any]]
    obstacles: dict[str, str]  # baselines that could not be fitted: why


@dataclass(frozen=True)
class _Asked:
    """The queries of one split, and what they are asked of."""

    split: Split
    corpus: Dataset
    examples: Examples
    shown: NDArray[np.intp]  # (n,) those that are kept as examples


def backtest(
    project: Project, folder: Path, *, log_to: LogTo, stage: Stage = quietly, seeds: int = 1, command: Sequence[str] | None = None
) -> dict[str, Any]:
    """The evaluation table of the two-tower model and the baselines that the settings name, over all splits; it is also written.

    folder   gets the files and folders that are named above
    log_to   opens a training log, given its file and a title for people
    stage    shows the other work to people
    seeds    so many trainings a split, with the seeds train.seed, train.seed + 1, ...
    command  the words behind `shortlist` that asked for this, for the record
    """
    named_baselines(project.config.evaluate.baselines)  # a wrong name must show before the first training
    all_splits = list(splits(project.log, project.config))  # and so must an empty split
    results = []
    for number, split in enumerate(all_splits):
        test = _Backtest(project, folder / split_folder(split.name), log_to, stage, seeds)
        results.append(test.result(split, number, len(all_splits)))
        _link(folder / LAST, test.run_folder(project.config.train.seed))
    tested, ranked, left_out = [result.tested for result in results], *_on_all_splits(results)
    table = evaluation_table(tested, ranked, project.config.evaluate)
    table |= {"baselines_left_out": left_out} if left_out else {}
    table |= {"made": how_made(command)} if command is not None else {}
    write_evaluation(folder, table, ranks_frame(tested, ranked), [example for result in results for example in result.examples])
    return table


def train_latest(project: Project, folder: Path, *, log_to: LogTo) -> Run:
    """The run of the latest window, to be published: nothing is held out but what early stopping and calibration look at."""
    run = prepare_run(project, latest_window(project.log, project.config), folder)
    del project  # where nobody else holds it, its log is gone before training begins
    return train_prepared(run, log_to=lambda path: log_to(path, "training"))


@dataclass(frozen=True)
class _Backtest:
    """The work on one split, in a folder of its own."""

    project: Project
    folder: Path
    log_to: LogTo
    stage: Stage
    seeds: int

    def result(self, split: Split, number: int, count: int) -> SplitResult:
        """What came out on the split of this number, of so many."""
        config = self.project.config
        with self.stage(f"preparing {split.name}"):
            dataset = make_dataset(self.project, split.train_log)
            corpus, examples, tested = asked_queries(dataset, split, config)
        shown = drawn_examples(len(examples), number, count, seed=config.evaluate.seed)
        asked = _Asked(split, corpus, examples, shown)
        trained = [self._learned(config.train.seed + seed, dataset, asked) for seed in range(self.seeds)]
        baselines, obstacles = self._baselines(asked)
        judged = {judged.ranked.model: judged for judged in (trained[0], *baselines)}
        described = described_examples(split.name, examples.take(shown), corpus.items, config, split.log, judged)
        return SplitResult(tested, [one.ranked for one in (*trained, *baselines)], described, obstacles)

    def run_folder(self, seed: int) -> Path:
        """Where the run of this seed is."""
        return self.folder / f"seed-{seed}"

    def _learned(self, seed: int, dataset: Dataset, asked: _Asked) -> Judged:
        config, name = self.project.config, asked.split.name
        project = replace(self.project, config=msgspec.structs.replace(config, train=msgspec.structs.replace(config.train, seed=seed)))
        title = f"training for {name}" + (f", seed {seed}" if self.seeds > 1 else "")
        run = train_run(
            project, asked.split.train_log, self.run_folder(seed), dataset=dataset, log_to=lambda path: self.log_to(path, title)
        )
        with self.stage(f"ranking {len(asked.examples):,} queries of {name}"):
            retriever = LearnedRetriever(run.model, run.tables, asked.corpus)
            judged = judge(retriever, asked.corpus, asked.examples, asked.shown, config)
        return replace(judged, ranked=replace(judged.ranked, seed=seed))

    def _baselines(self, asked: _Asked) -> tuple[list[Judged], dict[str, str]]:
        config, corpus, found = self.project.config, asked.corpus, []
        ready, obstacles = ready_baselines(corpus, config, config.evaluate.baselines)
        for name, fit in ready.items():
            key = baseline_key(name, corpus, asked.examples, asked.shown, config)
            with self.stage(f"{name} on {asked.split.name}"):
                found.append(
                    kept(
                        self.folder / "baselines" / f"{name}.npz",
                        key,
                        lambda fit=fit: judge_baseline(fit, corpus, asked.examples, asked.shown, config),  # type: ignore[misc]  # bound now, not after the loop
                    )
                )
        return found, obstacles


def _on_all_splits(results: Sequence[SplitResult]) -> tuple[list[list[Ranked]], dict[str, str]]:
    """(the ranks of the models that every split has, {baseline: why one split or more has it not})."""
    left_out: dict[str, str] = {}
    for result in results:
        left_out |= {name: f"{reason} ({result.tested.split})" for name, reason in result.obstacles.items() if name not in left_out}
    return [[entry for entry in result.ranked if entry.model not in left_out] for result in results], left_out


def _link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target.relative_to(link.parent), target_is_directory=True)
