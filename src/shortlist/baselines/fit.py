"""All baselines by name, and those of them that a log allows, tuned and fitted on its training window."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from shortlist.baselines.chosen_by import Window, window_of
from shortlist.baselines.content_neighbours import content_neighbours, content_neighbours_steps
from shortlist.baselines.content_transfer import content_transfer, content_transfer_steps, obstacle_to_transfer
from shortlist.baselines.cooccurrence import CoOccurrence
from shortlist.baselines.ease import EASE, obstacle_to_ease
from shortlist.baselines.ials import IALS
from shortlist.baselines.item_knn import ITEM_KNN
from shortlist.baselines.item_texts import obstacle_to_content
from shortlist.baselines.of_history import HistoryMethod, obstacle_to_histories
from shortlist.baselines.popularity import Popularity, decay_steps, decayed_popularity, obstacle_to_decay
from shortlist.baselines.tuning import Fitter, Steps, tuned
from shortlist.dataset import Dataset
from shortlist.errors import ConfigError
from shortlist.evaluate import Retriever
from shortlist.sections import Config

Obstacle = Callable[[Window], str | None]


@dataclass(frozen=True)
class Baseline:
    """How a baseline is fitted.

    fit        window -> the retriever, tuned within the window
    obstacle   why it cannot be fitted to a window; None where it can
    """

    fit: Callable[[Window], Retriever]
    obstacle: Obstacle


def _simple(fit: Callable[[Window], Retriever]) -> Baseline:
    return Baseline(fit, lambda window: None)


def _tuned(fitter: Callable[[Window], Fitter], steps: Callable[[Window], Steps], obstacle: Obstacle) -> Baseline:
    return Baseline(lambda window: tuned(window, fitter, steps(window)), obstacle)


def _of_history(method: HistoryMethod, obstacle: Obstacle = obstacle_to_histories) -> Baseline:
    return _tuned(method.fitter, method.steps_in, obstacle)


BASELINES: dict[str, Baseline] = {
    "popularity": _simple(lambda window: Popularity(window.dataset)),
    "decayed-popularity": _tuned(decayed_popularity, decay_steps, obstacle_to_decay),
    "co-occurrence": _simple(lambda window: CoOccurrence(window.dataset, seeds_ask=window.seeds_ask)),
    "item-knn": _of_history(ITEM_KNN),
    "ials": _of_history(IALS),
    "ease": _of_history(EASE, obstacle_to_ease),
    "content-neighbours": _tuned(content_neighbours, content_neighbours_steps, obstacle_to_content),
    "content-transfer": _tuned(content_transfer, content_transfer_steps, obstacle_to_transfer),
}
ALL = ("all",)


def named_baselines(names: Iterable[str]) -> tuple[str, ...]:
    """The names themselves; every one for "all". Raises ConfigError for a name that is not in BASELINES, or comes twice."""
    names = tuple(names)
    if names == ALL:
        return tuple(BASELINES)
    _refuse_names(names)
    return names


def ready_baselines(dataset: Dataset, config: Config, names: Iterable[str]) -> tuple[dict[str, Callable[[], Retriever]], dict[str, str]]:
    """({name: what fits it on the dataset's training examples}, {name: why it cannot be fitted} for the others).

    Raises ConfigError as `named_baselines` does
    """
    window = window_of(dataset, config)
    obstacles = {name: BASELINES[name].obstacle(window) for name in named_baselines(names)}
    ready: dict[str, Callable[[], Retriever]] = {
        name: partial(BASELINES[name].fit, window) for name, obstacle in obstacles.items() if obstacle is None
    }
    return ready, {name: obstacle for name, obstacle in obstacles.items() if obstacle is not None}


def fit_baselines(dataset: Dataset, config: Config, names: Iterable[str]) -> tuple[list[Retriever], dict[str, str]]:
    """(the baselines of these names, fitted, {name: why it cannot be fitted} for the others). As `ready_baselines`, at once."""
    ready, obstacles = ready_baselines(dataset, config, names)
    return [fit() for fit in ready.values()], obstacles


def _refuse_names(names: tuple[str, ...]) -> None:
    for place, name in enumerate(names):
        if name not in BASELINES:
            nearest = difflib.get_close_matches(name, BASELINES, n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"evaluate.baselines must be among {', '.join(BASELINES)}, or all alone: got {name!r} (did you mean {nearest!r}?)"
            )
        if name in names[:place]:
            raise ConfigError(f"evaluate.baselines must be named once each: got {name!r} twice; take one out")
