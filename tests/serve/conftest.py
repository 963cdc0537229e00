"""Small published stores for all tests of the service; each test that writes gets a copy of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from serve_settings import quiet_settings
from small_project import silent, small_config, write_tables

from shortlist.export import publish_run
from shortlist.project import open_project
from shortlist.run import Run, train_run
from shortlist.serve.service import Service


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run over the items i00, i01, ..."""
    folder = tmp_path_factory.mktemp("serve")
    write_tables(folder)
    project = open_project(small_config(folder, {"train": {"epochs": 2}}))
    return train_run(project, project.log, folder / "run", log_to=silent)


@pytest.fixture(scope="session")
def other_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run over the items j00, j01, ..., of another dimension."""
    folder = tmp_path_factory.mktemp("other")
    write_tables(folder)
    for name in ("items", "events"):
        table = pl.read_parquet(folder / f"{name}.parquet")
        table.with_columns(pl.col("item_id").str.replace("i", "j")).write_parquet(folder / f"{name}.parquet")
    project = open_project(small_config(folder, {"train": {"epochs": 1}, "model": {"embedding_dim": 5, "hidden": [17, 13]}}))
    return train_run(project, project.log, folder / "run", log_to=silent)


@pytest.fixture(scope="session")
def published(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one version, of `run`. Not to be written to."""
    store = tmp_path_factory.mktemp("published") / "store"
    publish_run(run, store)
    return store


@pytest.fixture(scope="session")
def published_both(published: Path, other_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with v000001 of `run` and v000002 of `other_run`, which is live. Not to be written to."""
    store = Path(shutil.copytree(published, tmp_path_factory.mktemp("both") / "store"))
    publish_run(other_run, store)
    return store


@pytest.fixture
def store(published: Path, tmp_path: Path) -> Path:
    """A store of one's own, with one version."""
    return Path(shutil.copytree(published, tmp_path / "store"))


@pytest.fixture
def both(published_both: Path, tmp_path: Path) -> Path:
    """A store of one's own, with two versions."""
    return Path(shutil.copytree(published_both, tmp_path / "store"))


@pytest.fixture
def service(store: Path) -> Iterator[Service]:
    """A service over one's own store."""
    opened = Service.open(store, quiet_settings())
    yield opened
    opened.close()
