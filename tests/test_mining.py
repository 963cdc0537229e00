"""Hard negatives come from the asked ranks of a published version's list, in this catalogue's rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_project import silent, small_project

from shortlist.bundle import Bundle, open_current
from shortlist.dataset import Dataset, make_dataset
from shortlist.errors import ConfigError
from shortlist.export import publish_run
from shortlist.mining import StoreMiner
from shortlist.run import train_run

PLAIN = {"query": {"features": {"seed": "item", "history": {"kind": "items", "last": 7}, "users.age": "category"}}}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Dataset, Path]:
    folder = tmp_path_factory.mktemp("mining")
    project = small_project(folder, {**PLAIN, "train": {"epochs": 1}})
    dataset = make_dataset(project, project.log)
    publish_run(train_run(project, project.log, folder / "run", dataset=dataset, log_to=silent), folder / "store")
    return open_current(folder / "store"), dataset, folder / "store"


def miner_of(bundle: Bundle, dataset: Dataset, ranks: tuple[int, int], per_query: int = 3) -> StoreMiner:
    return StoreMiner(bundle, dataset.items, dataset.users, per_query=per_query, ranks=ranks)


def test_mined_items_stand_at_the_asked_ranks_of_the_versions_own_list(published: tuple[Bundle, Dataset, Path]) -> None:
    bundle, dataset, _ = published
    queries = dataset.train.queries.take(np.arange(0, 601, 29))
    mined = miner_of(bundle, dataset, (5, 11))(queries, np.random.default_rng(0))
    listed, _ = bundle.index.search(bundle.encode_queries(queries), 11)
    assert mined.rows.shape == (len(queries), 3) and mined.chance == 3 / 7  # 3 of ranks 5..11
    for rows, line in zip(mined.rows, listed[:, 4:], strict=True):
        assert len(set(rows)) == 3 and set(rows) <= set(line)


def test_mining_is_a_function_of_its_generator(published: tuple[Bundle, Dataset, Path]) -> None:
    bundle, dataset, _ = published
    miner, queries = miner_of(bundle, dataset, (2, 31)), dataset.train.queries.take(np.arange(13))
    first, again, other = (miner(queries, np.random.default_rng(seed)).rows for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_ranks_beyond_the_catalogue_are_refused(published: tuple[Bundle, Dataset, Path]) -> None:
    bundle, dataset, _ = published
    with pytest.raises(ConfigError, match=r"ranks 50\.\.60 of version v000001 \(53 items\)"):
        miner_of(bundle, dataset, (50, 60))(dataset.train.queries.take(np.arange(3)), np.random.default_rng(0))


def test_a_version_that_needs_context_features_cannot_be_mined(tmp_path: Path) -> None:
    project = small_project(tmp_path, {"train": {"epochs": 1}})
    publish_run(train_run(project, project.log, tmp_path / "run", log_to=silent), tmp_path / "store")
    dataset = make_dataset(project, project.log)
    with pytest.raises(ConfigError, match=r"events\.weekday"):
        miner_of(open_current(tmp_path / "store"), dataset, (2, 9))


def test_a_run_can_mine_from_the_version_before(published: tuple[Bundle, Dataset, Path], tmp_path: Path) -> None:
    _, _, store = published
    negatives = {"batch_size": 32, "index_batch_size": 23, "mined_from": str(store), "mined_per_query": 2, "mined_ranks": [6, 20]}
    project = small_project(tmp_path, {**PLAIN, "train": {"epochs": 2}, "negatives": negatives})
    run = train_run(project, project.log, tmp_path / "run", log_to=silent)
    assert run.config.negatives.mined_per_query == 2
