"""A made-up shop of any size, for measurements of scale: who chooses what follows rules that are known, written out below.

Popularity follows Zipf's law, rises and falls over the log, and a tenth of the items come only in its course; items have groups,
which their words, prices and categories tell, and users keep to a group of their own. Everything comes from (seed, block): the same
command writes the same bytes, and a log of any length takes the memory of one block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console

from shortlist.datasets.project_folder import Project
from shortlist.datasets.synthetic_texts import README, SETTINGS
from shortlist.errors import FetchError

DAYS = 60
START_MS = 1_735_689_600_000  # 2025-01-01, UTC
DAY_MS = 86_400_000
GROUPS = 64
LOYALTY = 0.8  # share of choices that users make within their own group
EVENTS_PER_USER = 25
NEW_SHARE = 0.1  # of the items: they are born at some day of the log
BARE_SHARE = 0.05  # of the items: nobody chooses them
OWN_WORDS, COMMON_WORDS = 12, 1999  # words that only titles of a group have; words that all titles share
EVENTS_AT_ONCE, ITEMS_AT_ONCE = 1 << 20, 1 << 18
_SYLLABLES = [consonant + vowel for consonant in "bdklmnrstv" for vowel in "aeiou"]
_NUMBERS, _ITEMS, _EVENTS = 0, 1, 2  # streams of random numbers


@dataclass(frozen=True)
class Shop:
    """What the log is drawn from. Item n has its place in the order of groups; ids tell neither group nor popularity.

    weight    (M,) 1 / rank: how often the item is chosen on average over a full cycle; 0 for an item that nobody chooses
    phase     (M,) in [0, 1): popularity is weight * (1 + sin 2 pi (t + phase)) at time t of the log, 0 its begin and 1 its end
    birth     (M,) the time of the log from which on the item can be chosen
    first     (GROUPS + 1,) group g's items are first[g]:first[g + 1]
    number    (M,) the number in the item's id
    favourite (U,) each user's group
    user_id   (U,) the id of each user; users come by falling activity
    """

    weight: NDArray[np.float64]
    phase: NDArray[np.float32]
    birth: NDArray[np.float32]
    first: NDArray[np.int64]
    number: NDArray[np.int32]
    favourite: NDArray[np.int8]
    user_id: NDArray[np.int32]


def fetch_synthetic(folder: Path, console: Console, *, events: int = 1_000_000, items: int = 100_000, seed: int = 1) -> Project:
    """The tables and texts of a shop with so many events and items, in blocks. Raises FetchError for sizes that make no shop."""
    if items < GROUPS or events < 1:
        raise FetchError(f"a synthetic shop must have at least {GROUPS} items and 1 event; got {items} items and {events} events")
    shop = make_shop(events, items, seed)
    source = f"shortlist fetch synthetic --events {events} --items {items} --seed {seed}"
    tables = {"events": event_blocks(shop, events, seed), "items": item_blocks(shop, seed)}
    return Project(tables, SETTINGS, README.format(source=source), source)


def make_shop(events: int, items: int, seed: int) -> Shop:
    """The shop of a log of so many events."""
    rng = np.random.default_rng((seed, _NUMBERS))
    users = max(1, events // EVENTS_PER_USER)
    weight = 1.0 / (1 + rng.permutation(items))
    weight[rng.permutation(items)[: int(items * BARE_SHARE)]] = 0.0
    birth = np.zeros(items, np.float32)
    birth[rng.permutation(items)[: int(items * NEW_SHARE)]] = rng.random(int(items * NEW_SHARE), np.float32)
    return Shop(
        weight,
        rng.random(items, np.float32),
        birth,
        np.arange(GROUPS + 1) * items // GROUPS,
        rng.permutation(items).astype(np.int32),
        rng.integers(0, GROUPS, users).astype(np.int8),
        rng.permutation(users).astype(np.int32),
    )


def popularity(shop: Shop, time: float) -> NDArray[np.float64]:
    """(M,) what each item weighs at a time of the log between 0 and 1."""
    weights: NDArray[np.float64] = shop.weight * (1 + np.sin(2 * np.pi * (time + shop.phase))) * (shop.birth <= time)
    return weights


def event_blocks(shop: Shop, events: int, seed: int) -> Iterator[pl.DataFrame]:
    """The log by time, in blocks of one day or less: user_id, item_id, timestamp.

    A user's number is U v^1.5, v uniform: the first eighth of the users asks a quarter of the queries.
    """
    names = _item_ids(shop.number)
    for day in range(DAYS):
        count = events * (day + 1) // DAYS - events * day // DAYS
        weights = popularity(shop, (day + 0.5) / DAYS)
        edges = np.concatenate([[0.0], np.cumsum(weights)])  # (M + 1,)
        for block, start in enumerate(range(0, count, EVENTS_AT_ONCE)):
            rng = np.random.default_rng((seed, _EVENTS, day, block))
            size = min(EVENTS_AT_ONCE, count - start)
            user = (len(shop.user_id) * rng.random(size) ** 1.5).astype(np.int64)
            item = _chosen(shop, edges, shop.favourite[user], rng)
            first, last = (DAY_MS * place // count for place in (start, start + size))
            at = START_MS + DAY_MS * day + np.sort(rng.integers(first, max(last, first + 1), size))
            times = pl.Series(at).cast(pl.Datetime("ms"))
            yield pl.DataFrame({"user_id": shop.user_id[user].astype(np.int64), "item_id": names[item], "timestamp": times})


def _chosen(shop: Shop, edges: NDArray[np.float64], group: NDArray[np.int8], rng: np.random.Generator) -> NDArray[np.int64]:
    """(n,) an item for each event, by popularity: from the user's group with probability LOYALTY, else from all."""
    first, end = edges[shop.first[group]], edges[shop.first[group + 1]]
    anywhere = (rng.random(len(group)) >= LOYALTY) | (first == end)
    low, high = np.where(anywhere, 0.0, first), np.where(anywhere, edges[-1], end)
    places = np.searchsorted(edges, low + (high - low) * rng.random(len(group)), side="right") - 1
    chosen: NDArray[np.int64] = np.minimum(places, np.flatnonzero(np.diff(edges))[-1])  # rounding may step on the end
    return chosen


def item_blocks(shop: Shop, seed: int) -> Iterator[pl.DataFrame]:
    """The catalogue in blocks: item_id, category, title (five words, three of them the group's own), price."""
    words = _words(GROUPS * OWN_WORDS + COMMON_WORDS)
    group = np.searchsorted(shop.first, np.arange(len(shop.number)), side="right") - 1
    place = np.argsort(shop.number)  # by id
    for start in range(0, len(place), ITEMS_AT_ONCE):
        rng = np.random.default_rng((seed, _ITEMS, start))
        rows = place[start : start + ITEMS_AT_ONCE]
        own = group[rows][:, None] * OWN_WORDS + rng.integers(0, OWN_WORDS, (len(rows), 3))
        common = GROUPS * OWN_WORDS + rng.integers(0, COMMON_WORDS, (len(rows), 2))
        titles = [words[column] for column in np.concatenate([own, common], axis=1).T]
        price = np.exp(1 + group[rows] / GROUPS + 0.5 * rng.standard_normal(len(rows)))
        yield pl.DataFrame(
            {
                "item_id": _item_ids(shop.number[rows]),
                "category": "group " + pl.Series(group[rows]).cast(pl.String),
                "title": pl.select(pl.concat_str(titles, separator=" ")).to_series(),
                "price": pl.Series(price).round(2),
            }
        )


def _item_ids(numbers: NDArray[np.int32]) -> pl.Series:
    return "i" + pl.Series(numbers).cast(pl.String).str.zfill(7)


def _words(count: int) -> pl.Series:
    """So many distinct words of three syllables."""
    base = len(_SYLLABLES)
    numbers = np.arange(count) * 7919 % base**3  # 7919 is prime and base**3 is not its multiple: all differ while count <= base**3
    return pl.Series([_SYLLABLES[n % base] + _SYLLABLES[n // base % base] + _SYLLABLES[n // base**2] for n in numbers.tolist()])
