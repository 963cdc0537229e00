"""The words that go with a synthetic shop: README.txt and the proposed shortlist.toml."""

from __future__ import annotations

README = """\
synthetic

A made-up shop. Source: {source}. What the rules are is said in shortlist/datasets/synthetic.py; nothing here is real.

events.parquet  one row per choice: user_id, item_id, timestamp (UTC); by time
items.parquet   one row per item: item_id, category, title, price; some are never chosen, some come in the course of the log
shortlist.toml  settings that train and evaluate on these tables
fetch.json      how the tables were made, row counts and SHA-256
"""

SETTINGS = """\
# synthetic: a made-up shop of any size. Made by `shortlist fetch synthetic`.

[data]  # paths are taken from this file's folder
events = "events.parquet"
items = "items.parquet"

[columns]  # which column plays which role
user = "user_id"
item = "item_id"
time = "timestamp"

[item.features]  # what the item tower sees
item_id = "id"
category = "category"
title = "text"
price = "number"

[query.features]  # what the query tower sees
seed = "item"  # the item chosen before
history = { kind = "items", last = 20 }  # the items chosen before, newest first

[model]
embedding_dim = 64
hidden = [512, 128]

[evaluate]  # train on 59 days, test on the last
protocol = "rolling"
train_days = 59
test_days = 1
shifts = 1
"""
