"""Which settings a sweep goes over: `section.key=low..high`, `section.key=low..high:log` or `section.key=a,b,c`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shortlist.config import overridden
from shortlist.errors import ConfigError
from shortlist.sections import Config

if TYPE_CHECKING:  # an optional dependency
    from optuna import Trial

SECTIONS = ("item", "query", "model", "negatives", "loss", "frequency", "train")  # the others say what is judged, and by what
_NUMBER = r"[+-]?(?:\d+[.]?\d*|[.]\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})[.][.]({_NUMBER})(:log)?")
_OPEN, _CLOSE = "[{", "]}"


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`; whole ones if both are. `is_log`: every factor is as likely."""

    low: float
    high: float
    is_whole: bool
    is_log: bool

    @property
    def texts(self) -> tuple[str, ...]:
        """The ends, as TOML."""
        return (str(int(self.low)), str(int(self.high))) if self.is_whole else (str(self.low), str(self.high))

    def suggested(self, trial: Trial, name: str) -> str:
        """The trial's value, as TOML."""
        if self.is_whole:
            return str(trial.suggest_int(name, int(self.low), int(self.high), log=self.is_log))
        return str(trial.suggest_float(name, self.low, self.high, log=self.is_log))


@dataclass(frozen=True)
class Choices:
    """These values alone, as TOML; a bare word is a string."""

    texts: tuple[str, ...]

    def suggested(self, trial: Trial, name: str) -> str:
        """The trial's value, as TOML."""
        chosen: str = trial.suggest_categorical(name, self.texts)
        return chosen


Space = dict[str, Range | Choices]  # by `section.key`


def read_space(overs: Iterable[str], config: Config) -> Space:
    """The settings that the texts name, each with its values.

    Raises ConfigError for what cannot be read, for a setting that says what is judged or by what, and for one of which no value
    alone goes with `config`, with the reason for the last
    """
    space: Space = {}
    for over in overs:
        name, values = _read(over)
        if name in space:
            raise ConfigError(f"a sweep must name a setting once: got {name} twice; take one out")
        space[name] = values
    if not space:
        raise ConfigError("a sweep must go over a setting: got none; add --over section.key=low..high or --over section.key=a,b,c")
    for name, values in space.items():
        _refuse_useless(name, values, config)
    return space


def _read(over: str) -> tuple[str, Range | Choices]:
    name, equals, text = (part.strip() for part in over.partition("="))
    section, _, key = name.partition(".")
    if not equals or not key or not text:
        raise ConfigError(f"--over must read section.key=low..high, section.key=low..high:log or section.key=a,b,c: got {over!r}")
    if section not in SECTIONS or name == "train.seed":
        raise ConfigError(f"a sweep may not change what is judged, by what, or by luck: got {name}; sections are {', '.join(SECTIONS)}")
    found = _RANGE.fullmatch(text)
    return name, _range(over, *found.groups()) if found else _choices(over, text)


def _range(over: str, low: str, high: str, log: str | None) -> Range:
    is_whole = all(re.fullmatch(r"[+-]?\d+", end) for end in (low, high))
    if not float(low) < float(high):
        raise ConfigError(f"--over {over}: the lower end must be below the upper: got {low} and {high}")
    if log and float(low) <= 0:
        raise ConfigError(f"--over {over}: a range by factors must be above 0: got {low}; take :log away")
    return Range(float(low), float(high), is_whole, log is not None)


def _choices(over: str, text: str) -> Choices:
    texts = tuple(_between_commas(text))
    if len(texts) < 2 or len(set(texts)) < len(texts) or "" in texts:
        raise ConfigError(f"--over {over}: must offer two values or more, each once: got {', '.join(texts) or 'none'}")
    return Choices(texts)


def _between_commas(text: str) -> Iterator[str]:
    """The parts between commas that are in no list: "[512,128],[256]" has two."""
    depth, part = 0, ""
    for letter in text:
        depth += (letter in _OPEN) - (letter in _CLOSE)
        if letter == "," and depth == 0:
            yield part.strip()
            part = ""
        else:
            part += letter
    yield part.strip()


def _refuse_useless(name: str, values: Range | Choices, config: Config) -> None:
    """Raises the last reason where no value alone goes with the settings; together with others it may."""
    refused: ConfigError | None = None
    for text in values.texts:
        try:
            overridden(config, [f"{name}={text}"])
        except ConfigError as error:
            refused = error
        else:
            return
    assert refused is not None
    raise ConfigError(f"--over {name}: no value goes with the settings: {refused}")
