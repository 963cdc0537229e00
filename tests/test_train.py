"""The loop: killed and resumed to the same bytes, stopped early at the best, and it learns what was planted."""

from __future__ import annotations

import importlib
import json
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from small_project import GROUPS, NEVER_CHOSEN, small_dataset, small_project

from shortlist.batches import Batch, BatchMaker
from shortlist.dataset import Dataset, make_dataset
from shortlist.encode import encode_corpus, encode_queries, full_corpus_loss
from shortlist.kernels import kernels
from shortlist.protocols.split import Split
from shortlist.sections import Config
from shortlist.towers import TwoTower, batch_id_rows, batch_table_rows
from shortlist.train import Trainer, Validate

Built = tuple[Dataset, Config]
Sections = Mapping[str, Mapping[str, Any]]


class Notes:
    """A train log that keeps what it is told, and may end the process after some steps."""

    def __init__(self, last_step: int | None = None) -> None:
        self.records: list[dict[str, Any]] = []
        self.losses: list[float] = []
        self.last_step = last_step

    def record(self, facts: dict[str, Any]) -> None:
        self.records.append(facts)

    def advance(self, step: int, steps: int, loss: float) -> None:
        self.losses.append(loss)
        if len(self.losses) == self.last_step:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return small_dataset(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def with_sections(tmp_path: Path, sections: Sections) -> Built:
    return small_dataset(tmp_path, sections)


def trainer_of(built: Built, folder: Path | None = None) -> Trainer:
    return Trainer(built[0], built[0].train, built[1], folder=folder)


def losses_in_order(*losses: float) -> tuple[Validate, list[dict[str, torch.Tensor]]]:
    """A validation that gives these losses epoch by epoch, and the tables as they were each time."""
    seen: list[dict[str, torch.Tensor]] = []

    def validate(model: TwoTower, tables: dict[str, torch.Tensor]) -> float:
        seen.append(
            {
                **{f"model/{name}": value.clone() for name, value in model.state_dict().items()},
                **{f"table/{name}": value.clone() for name, value in tables.items()},
            }
        )
        return losses[len(seen) - 1]

    return validate, seen


def same(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


# --- one step


def test_the_loss_of_a_step_is_that_of_the_batch_by_plain_arithmetic(built: Built) -> None:
    trainer = trainer_of(built)
    batch = trainer.maker.make(3)
    with torch.no_grad():
        queries, items = trainer.learner.model.encode_batch(batch, trainer.learner.sources(batch))
    assert items.bias is not None
    logits = (queries @ items.vector.T).double().numpy()[:, batch.columns] / 0.1 + items.bias.double().numpy()[batch.columns]
    total = 0.0
    rows = batch.column_item_row
    for i in range(len(batch.weight)):
        others = [math.exp(logits[i, j] - batch.log_n[j]) for j in range(len(rows)) if rows[j] != rows[i]]
        total += batch.weight[i] * (math.log(math.exp(logits[i, i]) + sum(others)) - logits[i, i])
    assert trainer.learner.learn(batch) == pytest.approx(total / batch.weight.sum(), rel=1e-5)


def test_a_step_moves_only_the_table_rows_of_its_batch(built: Built) -> None:
    trainer = trainer_of(built)
    trainer.learner.learn(trainer.maker.make(0))  # the towers' top layers start at zero and pass nothing down in the first step
    before = {name: value.clone() for name, value in trainer.learner.tables.weights.items()}
    batch = trainer.maker.make(1)
    trainer.learner.learn(batch)
    for name, rows in {**batch_table_rows(batch), **batch_id_rows(batch, trainer.learner.model)}.items():
        moved = (trainer.learner.tables.weights[name] != before[name]).any(dim=1).nonzero()[:, 0].tolist()
        assert bool(moved) == (name not in trainer.learner.tables.fixed), name
        assert set(moved) <= set(rows.tolist()), name


def test_a_table_learning_rate_of_its_own_moves_the_tables_by_it(tmp_path: Path, built: Built) -> None:
    faster = trainer_of(with_sections(tmp_path, {"train": {"table_learning_rate": 0.2}}))  # four times 0.05
    plain = trainer_of(built)
    name, start = "item/title", plain.learner.tables.weights["item/title"].clone()
    for trainer in (faster, plain):
        trainer.learner.learn(trainer.maker.make(0))
    assert torch.allclose(faster.learner.tables.weights[name] - start, 4 * (plain.learner.tables.weights[name] - start), atol=1e-6)
    assert same(dict(faster.learner.model.state_dict()), dict(plain.learner.model.state_dict()))


def test_a_table_learning_rate_of_zero_is_zero_and_not_absent(tmp_path: Path) -> None:
    trainer = trainer_of(with_sections(tmp_path, {"train": {"table_learning_rate": 0.0}}))
    before = {name: value.clone() for name, value in trainer.learner.tables.weights.items()}
    trainer.learner.learn(trainer.maker.make(0))
    assert same(trainer.learner.tables.weights, before)


def test_bfloat16_products_give_nearly_the_same_loss(tmp_path: Path, built: Built) -> None:
    rough, exact = trainer_of(with_sections(tmp_path, {"train": {"matmul": "bfloat16"}})), trainer_of(built)
    batch = exact.maker.make(0)
    # bfloat16 keeps 8 bits: a cosine is off by up to 2^-9, a logit by 2^-9 / 0.1 = .02 and some more from the towers
    assert rough.learner.learn(batch) == pytest.approx(exact.learner.learn(batch), abs=0.1)


def test_a_loss_that_is_not_finite_stops_training_with_advice(built: Built, tmp_path: Path) -> None:
    trainer = trainer_of(built, tmp_path)
    trainer.learner.tables.weights["item/kind"].fill_(math.nan)
    with pytest.raises(FloatingPointError, match=r"got nan; lower train\.learning_rate or raise model\.temperature"):
        trainer.fit(None, Notes())
    assert not (tmp_path / "checkpoint.safetensors").exists()  # nothing broken is kept


# --- the whole run


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path, built: Built) -> None:
    first, second = trainer_of(built), trainer_of(built)
    torch.manual_seed(99)  # the global generator has no say
    first.fit(None, Notes())
    np.random.seed(1)
    second.fit(None, Notes())
    assert same(first.learner.weights(), second.learner.weights())
    other = trainer_of(with_sections(tmp_path, {"train": {"seed": 1, "epochs": 1}}))
    other.fit(None, Notes())
    assert not any(
        torch.equal(value, other.learner.weights()[name])
        for name, value in first.learner.tables.weights.items()
        if name in other.learner.weights()
    )
    assert not torch.equal(first.learner.weights()["model/item.mlp.0.weight"], other.learner.weights()["model/item.mlp.0.weight"])


def test_batches_made_in_another_thread_or_in_between_train_to_the_same_bytes(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch has every core there is no other thread: the fixture leaves it one of however many."""
    makers: list[str] = []

    def trained(cores: int) -> Trainer:
        trainer = trainer_of(built)
        monkeypatch.setattr(os, "cpu_count", lambda: cores)
        make = BatchMaker.make

        def noted(maker: BatchMaker, step: int, *, shares_out: bool = False) -> Batch:
            makers.append(threading.current_thread().name)
            return make(maker, step, shares_out=shares_out)

        monkeypatch.setattr(BatchMaker, "make", noted)
        trainer.fit(None, Notes())
        monkeypatch.undo()
        return trainer

    between, beside = trained(1), trained(2)
    assert same(between.learner.state(), beside.learner.state())
    assert {name.partition("_")[0] for name in makers} == {"MainThread", "batches"}


def test_making_a_trainer_leaves_the_global_generator_alone(built: Built) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trainer_of(built)
    assert torch.equal(torch.rand(3), expected)


def test_training_lowers_the_loss_and_tells_its_log(built: Built) -> None:
    trainer, notes = trainer_of(built), Notes()
    trainer.fit(None, notes)
    steps = 19 * 4  # 601 examples by 32, four epochs
    assert len(notes.losses) == steps
    assert np.mean(notes.losses[-19:]) < np.mean(notes.losses[:19]) - 0.3
    assert [facts["step"] for facts in notes.records] == list(range(5, steps + 1, 5))
    hits = np.mean([facts["accidental_hits"] for facts in notes.records])
    expected = np.mean([facts["accidental_hits_expected"] for facts in notes.records])
    assert hits == pytest.approx(expected, rel=0.15)


def test_early_stopping_keeps_the_weights_of_the_best_epoch(tmp_path: Path) -> None:
    stopping = with_sections(tmp_path, {"train": {"epochs": 9, "patience": 2}})
    validate, seen = losses_in_order(3.0, 1.0, 2.0, 1.0)  # epoch 3 equals the best and is not better: two epochs without
    trainer, notes = trainer_of(stopping), Notes()
    trainer.fit(validate, notes)
    assert len(seen) == 4
    assert trainer.progress.best_epoch == 1
    assert trainer.progress.stopped
    assert same(trainer.learner.weights(), seen[1])
    assert [facts["best_epoch"] for facts in notes.records if "validation_loss" in facts] == [0, 1, 1, 1]


def test_the_best_epoch_is_kept_when_training_runs_to_its_end(built: Built) -> None:
    validate, seen = losses_in_order(2.0, 3.0, 1.0, 4.0)
    trainer = trainer_of(built)
    trainer.fit(validate, Notes())
    assert trainer.progress.best_epoch == 2
    assert same(trainer.learner.weights(), seen[2])


def test_a_finished_run_resumes_to_its_result_without_a_step(built: Built, tmp_path: Path) -> None:
    first, again, notes = trainer_of(built, tmp_path), trainer_of(built, tmp_path), Notes()
    first.fit(losses_in_order(2.0, 1.0, 3.0, 4.0)[0], Notes())
    again.fit(losses_in_order()[0], notes)
    assert notes.losses == []
    assert same(first.learner.weights(), again.learner.weights())
    assert again.progress == first.progress


def test_weights_survive_saving_into_another_trainer(built: Built) -> None:
    first, second = trainer_of(built), trainer_of(built)
    first.learner.learn(first.maker.make(0))
    second.learner.load_weights({name: value.clone() for name, value in first.learner.weights().items()})
    assert same(first.learner.weights(), second.learner.weights())


# --- kill and resume


def run_to_the_end_or_death(project: str, folder: str, place: str, count: int) -> None:
    """In a process of its own: trains from where `folder` stands; is killed at the `count`th step or save of this life."""
    torch.set_num_threads(1)
    dataset, config = small_dataset(Path(project), {"train": {"epochs": 3, "patience": 1}})
    if place in ("before rename", "after rename"):
        _die_at_rename(count, after=place == "after rename")
    rows = np.arange(len(dataset.train))
    learned, held_out = (dataset.train.take(rows[part]) for part in (rows % 7 > 0, rows % 7 == 0))
    trainer = Trainer(dataset, learned, config, folder=Path(folder))
    log_weight = trainer.learner.negatives.log_weight()
    notes = Notes(count if place == "step" else None)
    trainer.fit(lambda model, tables: full_corpus_loss(model, tables, dataset, held_out, log_weight), notes)
    save_file({name: value.contiguous() for name, value in trainer.learner.weights().items()}, Path(folder) / "final")
    (Path(folder) / "progress.json").write_text(json.dumps(asdict(trainer.progress)), encoding="utf-8")


def _die_at_rename(count: int, *, after: bool) -> None:
    renames, rename = 0, os.replace

    def replace(*paths: Path) -> None:
        nonlocal renames
        renames += 1
        if renames == count and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(*paths)
        if renames == count:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace  # type: ignore[assignment]  # this process is about to end


def live_in_turn(project: str, lives: list[tuple[str, str, int]], told: str) -> None:
    """In a process of its own, which imports and compiles once for all `lives` (folder, place, count): `told` becomes their exit codes."""
    torch.set_num_threads(1)
    for late in ("torch._dynamo", "sklearn.utils.extmath"):  # what training imports when it needs it
        importlib.import_module(late)
    kernels()
    codes = []
    for life in lives:
        process = multiprocessing.get_context("fork").Process(target=run_to_the_end_or_death, args=(project, *life))
        process.start()
        process.join(60)
        codes.append(process.exitcode)
    Path(told).write_text(json.dumps(codes), encoding="utf-8")


def test_a_run_killed_anywhere_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    project, whole, killed = (tmp_path / name for name in ("project", "whole", "killed"))
    for folder in (project, whole, killed):
        folder.mkdir()
    rng = np.random.default_rng(11)
    deaths = [
        (str(killed), place, int(rng.integers(low, high)))
        for place, low, high in [("step", 4, 9), ("before rename", 2, 4), ("after rename", 1, 4)] * 3
    ]
    lives = [(str(whole), "", 0), *deaths, (str(killed), "", 0)]
    process = multiprocessing.get_context("spawn").Process(target=live_in_turn, args=(str(project), lives, str(tmp_path / "codes.json")))
    process.start()
    process.join()
    assert json.loads((tmp_path / "codes.json").read_text()) == [0, *[-signal.SIGKILL] * len(deaths), 0]
    for name in ("final", "checkpoint.safetensors", "progress.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert json.loads((whole / "progress.json").read_text())["best_epoch"] >= 0
    assert not list(killed.glob("*.partial"))


def test_a_checkpoint_is_written_beside_the_old_one_and_renamed_when_whole(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, path = trainer_of(built, tmp_path), tmp_path / "checkpoint.safetensors"
    trainer.fit(None, Notes())
    before, moves = path.read_bytes(), []

    def note(source: Path, target: Path) -> None:
        moves.append((source, target, source.stat().st_size, path.read_bytes() == before))

    monkeypatch.setattr(os, "replace", note)
    trainer.learner.learn(trainer.maker.make(0))
    trainer.fit(None, Notes())  # has nothing left to do but to save
    assert moves == [(path.with_suffix(".partial"), path, len(before), True)]


# --- the planted signal


def hit_share(scores: NDArray[np.floating], positive: NDArray[np.int32], k: int) -> float:
    """Share of queries whose positive is among the k of highest score."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((best == positive[:, None]).any(axis=1).mean())


def test_the_planted_signal_is_found_and_beats_popularity(tmp_path: Path) -> None:
    project = small_project(tmp_path, {"train": {"epochs": 6}})
    log = project.log
    test = np.arange(len(log)) >= 450  # the latest quarter, in time order
    split = Split("last quarter", log, test, np.ones(len(log), bool))
    dataset = make_dataset(project, split.train_log)
    trainer = Trainer(dataset, dataset.train, project.config)
    trainer.fit(None, Notes())
    asked = dataset.encode_split(split, project.config)
    corpus = encode_corpus(trainer.learner.model, trainer.learner.tables.weights, dataset.item_features)
    vectors = encode_queries(
        trainer.learner.model,
        trainer.learner.tables.weights,
        asked.queries,
        user_features=dataset.user_features,
        embedding=corpus.embedding,
    )
    popularity = np.tile(dataset.item_counts, (len(asked), 1)).astype(float)
    rows = np.arange(len(dataset.items))
    users = log.frame["user"].fill_null(-1).to_numpy()[test]
    truth = np.where(users[:, None] % GROUPS == rows % GROUPS, 36.0, 1.0) / (1 + rows // GROUPS) * (rows < len(rows) - NEVER_CHOSEN)
    found, popular, best = (hit_share(scores, asked.item_row, 5) for scores in (vectors @ corpus.vector.T, popularity, truth))
    assert best > popular + 0.3  # there is something to find
    assert found > popular + 0.7 * (best - popular)
