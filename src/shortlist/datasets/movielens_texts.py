"""The words that go with the MovieLens tables: terms of use, README.txt and the proposed shortlist.toml."""

from __future__ import annotations

TERMS = """\
MovieLens data belongs to GroupLens at the University of Minnesota. In short:
- for research; commercial or revenue-bearing use needs their permission
- no redistribution without their permission
- do not state or imply that GroupLens or the University endorses you
- acknowledge the data in publications: cite Harper and Konstan (2015)
- it comes as it is, without warranty
In full: the README in the archive, https://grouplens.org/datasets/movielens/"""

CITATION = """\
F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. ACM Transactions on Interactive
Intelligent Systems 5, 4, Article 19. https://doi.org/10.1145/2827872"""

README = f"""\
{{name}}

Films that people rated on the MovieLens site. Source: {{source}}

{TERMS}

Attribution: {CITATION}

events.parquet  one row per rating: user_id, item_id, rating (1 to 5), timestamp (seconds since 1970, UTC); by time
items.parquet   one row per film: item_id, title, year, genres (a list)
users.parquet   one row per person: user_id, gender, age, occupation, zip_code, as they told the site
shortlist.toml  settings that train and evaluate on these tables
fetch.json      where the tables came from, their row counts and SHA-256
"""

_SETTINGS = """\
# {name}: which film will this person rate next? Made by `shortlist fetch {name}`.

[data]  # paths are taken from this file's folder
events = "events.parquet"
items = "items.parquet"
users = "users.parquet"

[columns]  # which column plays which role
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
"users.gender" = "category"
"users.age" = "category"
"users.occupation" = "category"

[evaluate]  # train on 30 days, test on the next day, seven times, a day apart
protocol = "rolling"
train_days = 30
test_days = 1
shifts = 7
last_day = {last_day}
"""


def settings_text(name: str, last_day: str) -> str:
    """The text of shortlist.toml, with the last day tested."""
    return _SETTINGS.format(name=name, last_day=last_day)
