"""All models of a study on all its splits: trainings with several seeds, and baselines, one trial after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from shortlist.backtest import LogTo, Stage, quietly
from shortlist.config import for_log
from shortlist.evaluate import Tested
from shortlist.project import Project
from shortlist.protocols.configured import splits
from shortlist.protocols.split import Split
from shortlist.report.provenance import current_commit
from shortlist.sections import Config
from shortlist.study.trials import Prepared, Trial, baseline_trial, prepare, trained_trial

_SETS_OF_FEATURES = 2  # in memory at a time: the project's own and another


@dataclass
class Outcome:
    """What came of it.

    tested    by split
    trials    model -> seed -> split -> trial; a baseline has one seed
    left_out  model -> why it was not trained or fitted
    """

    tested: list[Tested] = field(default_factory=list)
    trials: dict[str, list[list[Trial]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def commits(self) -> list[str | None]:
        """Of which commits the program was that made the trials: more than one where a study went on after a change."""
        made = {trial.commit for seeds in self.trials.values() for trials in seeds for trial in trials}
        return sorted(made, key=str)


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Under what all trials of a study are made.

    folder       where trials are kept
    seeds        trainings of every model, with seeds 0, 1, ... added to the settings' own
    every_split  False = the newest split alone
    """

    folder: Path
    seeds: int
    log_to: LogTo
    stage: Stage = quietly
    every_split: bool = False


def run_on_splits(project: Project, configs: Mapping[str, Config], under: Conditions, *, baselines: Iterable[str] = ()) -> Outcome:
    """The trials of all `configs` by name and of all baselines, kept ones read back.

    Split by split, so that one dataset is in memory, and seed by seed: cut short, all models of a split are still compared.
    """
    chosen = tested_splits(project, every_split=under.every_split)
    outcome = Outcome(trials={name: [[] for _ in range(under.seeds)] for name in configs})
    total = len(chosen) * under.seeds * len(configs)
    commit = current_commit()
    number = 0
    for split in chosen:
        ready = Ready(project, split, under, commit)
        outcome.tested.append(ready.of(project.config).tested)
        _fit_baselines(ready.of(project.config), project.config, baselines, under, outcome)
        for seed in range(under.seeds):
            for name, config in configs.items():
                number += 1
                title = f"{number} of {total}: {name}, seed {seed}, {split.name}"
                outcome.trials[name][seed].append(trained_trial(ready.of(config), seeded(config, seed), title, under.log_to))
    return outcome


def tested_splits(project: Project, *, every_split: bool) -> list[Split]:
    """The splits of the protocol, oldest first; or the newest alone."""
    found = list(splits(project.log, project.config))
    return found if every_split else found[-1:]


def seeded(config: Config, seed: int) -> Config:
    """The config whose training seed is `seed` further."""
    return msgspec.structs.replace(config, train=msgspec.structs.replace(config.train, seed=config.train.seed + seed))


class Ready:
    """One split made ready, once for every set of features."""

    def __init__(self, project: Project, split: Split, under: Conditions, commit: str | None) -> None:
        self.project, self.split, self.under, self.commit = project, split, under, commit
        self._prepared: dict[tuple[str, int | None], Prepared] = {}

    def of(self, config: Config) -> Prepared:
        """The split with the features of `config`, and with content codes where it wants some."""
        features, codes = repr((config.item, config.query)), for_log(config, len(self.split.train_log)).model.match_dim
        with_them = [key for key in self._prepared if key[0] == features]
        key = with_them[0] if with_them and not codes else (features, codes)  # a model without codes does not look at them
        if key not in self._prepared:
            if len(self._prepared) == _SETS_OF_FEATURES:
                self._prepared.pop(next(iter(self._prepared)))
            with self.under.stage(f"preparing {self.split.name}"):
                self._prepared[key] = prepare(replace(self.project, config=config), self.split, self.under.folder, commit=self.commit)
        return self._prepared[key]


def _fit_baselines(prepared: Prepared, config: Config, names: Iterable[str], under: Conditions, outcome: Outcome) -> None:
    """Adds one trial a baseline; one that a split does not allow is left out of all."""
    for name in names:
        if name in outcome.left_out:
            continue
        with under.stage(f"baseline {name} on {prepared.tested.split}"):
            trial = baseline_trial(prepared, config, name)
        if isinstance(trial, str):
            outcome.left_out[name] = f"{prepared.tested.split}: {trial}"
            outcome.trials.pop(name, None)
        else:
            outcome.trials.setdefault(name, [[]])[0].append(trial)
