"""`shortlist fetch`: the datasets by name, and the one function that turns a name into a project folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path

from rich.console import Console

from shortlist.datasets.debian import fetch_debian
from shortlist.datasets.movielens import MOVIELENS_1M, MOVIELENS_100K, fetch_movielens
from shortlist.datasets.movietweetings import fetch_movietweetings
from shortlist.datasets.online_retail import fetch_online_retail
from shortlist.datasets.project_folder import RECORD, SETTINGS, Options, Project, finished_fetch, write_project
from shortlist.datasets.synthetic import fetch_synthetic
from shortlist.errors import FetchError


@dataclass(frozen=True)
class Dataset:
    """What can be fetched under one name."""

    summary: str  # one line for help texts
    fetch: Callable[..., Project]  # (folder, console, and each option by keyword, and `files` where it reads a folder)
    options: tuple[str, ...] = ()
    reads_folder: bool = False  # may the publisher's files come from a local folder?


DATASETS = {
    "movielens-1m": Dataset("1,000,209 ratings of 3,883 films by 6,040 people, 2000-2003", partial(fetch_movielens, MOVIELENS_1M)),
    "movielens-100k": Dataset("100,000 ratings of 1,682 films by 943 people, 1997-1998", partial(fetch_movielens, MOVIELENS_100K)),
    "movietweetings": Dataset(
        "100,000 ratings of 10,506 films by 16,554 people, from tweets of half a year, 2013", fetch_movietweetings, reads_folder=True
    ),
    "online-retail": Dataset(
        "397,884 lines of invoices: 3,665 items bought by 4,338 customers, 2010-2011", fetch_online_retail, reads_folder=True
    ),
    "debian": Dataset("the software store of this machine: which package goes with which", fetch_debian, ("keep_same_source",)),
    "synthetic": Dataset("a made-up shop of any size, for measurements", fetch_synthetic, ("events", "items", "seed")),
}


def fetch_project(
    name: str,
    folder: Path,
    *,
    console: Console,
    keep_same_source: bool = False,
    files: Path | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Path:
    """The path of the shortlist.toml of a ready project folder, fetched now or found complete from an earlier run.

    console            where progress, terms of use and what was left out are printed: standard error
    keep_same_source   debian only: keep pairs of packages that are built from one source package
    files              a local folder that holds the publisher's files, which is read each time; None: the publisher is asked
    sizes              synthetic only: `events`, `items` and `seed`; what is not named is as `fetch_synthetic` has it
    Raises             FetchError for an unknown name, an option that the dataset does not have, a folder that holds something
                       else, or data that cannot be had or is not what it should be
    """
    dataset = DATASETS.get(name)
    if dataset is None:
        raise FetchError(f"the dataset must be one of {', '.join(DATASETS)}; got {name!r}")
    if files is not None and not dataset.reads_folder:
        readers = ", ".join(other for other, entry in DATASETS.items() if entry.reads_folder)
        raise FetchError(f"--from must go with a dataset that is read from a local folder ({readers}); got {name}; leave it out")
    options: Options = {**({"keep_same_source": True} if keep_same_source else {}), **(sizes or {})}
    for option in options:
        if option not in dataset.options:
            raise FetchError(
                f"{option} must go with a dataset that has it; {name} has {', '.join(dataset.options) or 'no options'}; leave it out"
            )
    options = {**_defaults(dataset), **options}
    if finished_fetch(folder, name, options) and files is None:
        _say(console, f"{folder} already holds {name}, and its tables match {RECORD}: nothing to fetch")
        return folder / SETTINGS
    project = dataset.fetch(folder, console, **options, **({"files": files} if dataset.reads_folder else {}))
    for reason, count in sorted(project.counts.items()):
        _say(console, f"{count:>9,}  {reason.replace('_', ' ')}")
    return write_project(folder, name, options, project, console)


def _defaults(dataset: Dataset) -> Options:
    """The options of a dataset as they are where nobody sets them."""
    parameters = signature(dataset.fetch).parameters
    return {option: parameters[option].default for option in dataset.options}


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
