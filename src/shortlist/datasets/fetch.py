"""`shortlist fetch`: the datasets by name, and the one function that turns a name into a project folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from shortlist.datasets.debian import fetch_debian
from shortlist.datasets.movielens import MOVIELENS_1M, MOVIELENS_100K, fetch_movielens
from shortlist.datasets.project_folder import RECORD, SETTINGS, Project, finished_fetch, write_project
from shortlist.errors import FetchError


@dataclass(frozen=True)
class Dataset:
    """What can be fetched under one name."""

    summary: str  # one line for help texts
    fetch: Callable[..., Project]  # (folder, console, and each option by keyword)
    options: tuple[str, ...] = ()


DATASETS = {
    "movielens-1m": Dataset("1,000,209 ratings of 3,883 films by 6,040 people, 2000-2003", partial(fetch_movielens, MOVIELENS_1M)),
    "movielens-100k": Dataset("100,000 ratings of 1,682 films by 943 people, 1997-1998", partial(fetch_movielens, MOVIELENS_100K)),
    "debian": Dataset("the software store of this machine: which package goes with which", fetch_debian, ("keep_same_source",)),
}


def fetch_project(name: str, folder: Path, *, console: Console, keep_same_source: bool = False) -> Path:
    """The path of the shortlist.toml of a ready project folder, fetched now or found complete from an earlier run.

    console            where progress and terms of use are printed: standard error
    keep_same_source   debian only: keep pairs of packages that are built from one source package
    Raises             FetchError for an unknown name, an option that the dataset does not have, a folder that holds something
                       else, or data that cannot be had or is not what it should be
    """
    dataset = DATASETS.get(name)
    if dataset is None:
        raise FetchError(f"the dataset must be one of {', '.join(DATASETS)}; got {name!r}")
    options = {"keep_same_source": keep_same_source}
    for option, is_set in options.items():
        if is_set and option not in dataset.options:
            raise FetchError(
                f"{option} must go with a dataset that has it; {name} has {', '.join(dataset.options) or 'no options'}; leave it out"
            )
    options = {option: options[option] for option in dataset.options}
    if finished_fetch(folder, name, options):
        console.print(
            f"{folder} already holds {name}, and its tables match {RECORD}: nothing to fetch", markup=False, highlight=False, soft_wrap=True
        )
        return folder / SETTINGS
    return write_project(folder, name, options, dataset.fetch(folder, console, **options), console)
