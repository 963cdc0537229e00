"""One small published store for all tests of the service; each test that writes gets a copy of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from serve_settings import quiet_settings
from small_project import silent, small_project

from shortlist.export import publish_run
from shortlist.run import train_run
from shortlist.serve.service import Service


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one version of the small project. Not to be written to."""
    folder = tmp_path_factory.mktemp("serve")
    project = small_project(folder, {"train": {"epochs": 2}})
    publish_run(train_run(project, project.log, folder / "run", log_to=silent), folder / "store")
    return folder / "store"


@pytest.fixture
def store(published: Path, tmp_path: Path) -> Path:
    """A store of one's own."""
    return Path(shutil.copytree(published, tmp_path / "store"))


@pytest.fixture
def service(store: Path) -> Iterator[Service]:
    """A service over one's own store."""
    opened = Service.open(store, quiet_settings())
    yield opened
    opened.close()
