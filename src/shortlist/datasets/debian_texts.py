"""The words that go with the Debian tables: README.txt and the proposed shortlist.toml."""

from __future__ import annotations

README = """\
debian

Which software package goes with which, as the packages' maintainers say. Source: {source}

Terms: package lists are published for anyone to use and pass on; descriptions belong to the packages' authors and maintainers
and come under the packages' own free licences. Not endorsed by the Debian project. The lists change over time: another day or
another release gives other counts, so compare results only on one folder (fetch.json has the hashes).

Attribution: the Debian project and the maintainers of its packages; tags by the debtags project.

events.parquet  one row per stated pair: seed_package (looked at), package (may be wanted with it), relation
                (recommends, suggests, or enhances, which is stated the other way round)
items.parquet   one row per package: package, section, tags (a list), maintainer (the name alone), source, summary,
                description, installed_size (KiB)
shortlist.toml  settings that train and evaluate on these tables
fetch.json      where the tables came from, what was left out, row counts and SHA-256
"""

SETTINGS = """\
# debian: who looks at this package, which other may they want? Made by `shortlist fetch debian`.

[data]  # paths are taken from this file's folder
events = "events.parquet"
items = "items.parquet"

[columns]  # which column plays which role; there is no user and no time
item = "package"
seed = "seed_package"

[item.features]  # what the item tower sees
package = "id"
section = "category"
tags = "categories"
maintainer = "category"
source = "category"
name = { kind = "text", column = "package" }
summary = "text"
description = { kind = "text", character_ngrams = [0, 0] }  # words alone
installed_size = { kind = "number", buckets = 16 }

[query.features]  # what the query tower sees; `relation` is left out: it is not known when the query is asked
seed = "item"  # the package looked at: its content, and its id as something that is chosen
seed_id = { kind = "id", column = "seed_package" }  # its id as something that is looked at
history = { kind = "items", last = 50 }  # what else was chosen by who looked at it: there are no times, so no before

[evaluate]  # a tenth of the pairs is held out, at random
protocol = "holdout"
holdout = "pairs"
holdout_fraction = 0.1
"""
