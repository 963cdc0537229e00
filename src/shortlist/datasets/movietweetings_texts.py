"""The words that go with the MovieTweetings tables: README.txt and the proposed shortlist.toml."""

from __future__ import annotations

from datetime import date

README = """\
movietweetings

Films that people rated on IMDb and told Twitter about, in well-formed tweets. Source: {source}

Terms: the MIT licence, copyright (c) 2013 Simon Dooms; the licence text goes with every copy.

Attribution: Simon Dooms, Toon De Pessemier and Luc Martens. 2013. MovieTweetings: a Movie Rating Dataset Collected From Twitter.
Workshop on Crowdsourcing and Human Computation for Recommender Systems, CrowdRec at RecSys 2013.

events.parquet  one row per rating: user_id, item_id, rating (0 to 10), timestamp (seconds since 1970, UTC); by time
items.parquet   one row per film: item_id (its IMDb number, as text), title, year, genres (a list)
shortlist.toml  settings that train and evaluate on these tables
fetch.json      where the tables came from, what was missing in them, row counts and SHA-256

A film that was rated but is not described is in items.parquet by its id alone; a described film that nobody rated is there too.
The last day of the log is cut short, where the snapshot was taken: the proposed tests end on the day before.
"""

_SETTINGS = """\
# movietweetings: which film will this person rate next? Made by `shortlist fetch movietweetings`.

[data]  # paths are taken from this file's folder
events = "events.parquet"
items = "items.parquet"

[columns]  # which column plays which role; every rating is a choice, a low one too
user = "user_id"
item = "item_id"
time = "timestamp"

[item.features]  # what the item tower sees
item_id = "id"
title = "text"
genres = "categories"
year = {{ kind = "number", buckets = 16 }}

[query.features]  # what the query tower sees; `rating` is left out: it is not known when the query is asked
seed = "item"  # the film rated before
history = {{ kind = "items", last = 50 }}  # the films rated before, newest first

[evaluate]  # train on 30 days, test on the next day, seven times, a day apart
protocol = "rolling"
train_days = 30
test_days = 1
shifts = 7
last_day = {last_day}  # the last full day: the snapshot was taken in the course of the next
"""


def settings_text(last_day: date) -> str:
    """The text of shortlist.toml, with the last day tested."""
    return _SETTINGS.format(last_day=last_day)
