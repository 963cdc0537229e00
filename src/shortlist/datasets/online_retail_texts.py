"""The words that go with the Online Retail tables: README.txt and the proposed shortlist.toml."""

from __future__ import annotations

README = """\
online-retail

What the customers of a British mail-order shop for gifts bought in a year, many of them traders. Source: {source}

Terms: Creative Commons Attribution 4.0 (CC BY 4.0), as the UCI Machine Learning Repository states for dataset 352.

Attribution: Daqing Chen. 2015. Online Retail. UCI Machine Learning Repository. https://doi.org/10.24432/C5BW33
Daqing Chen, Sai Liang Sain and Kun Guo. 2012. Data mining for the online retail industry: a case study of RFM model-based customer
segmentation using data mining. Journal of Database Marketing and Customer Strategy Management 19, 3. doi:10.1057/dbm.2012.17

events.parquet  one row per line of an invoice: customer_id, stock_code, invoiced_at (the shop's clock), invoice, quantity,
                unit_price (pounds); by time, and within one instant in the order of the file
items.parquet   one row per stock code that was sold: stock_code, description, price (pounds)
users.parquet   one row per customer: customer_id, country
shortlist.toml  settings that train and evaluate on these tables
fetch.json      where the tables came from, what was left out, row counts and SHA-256

Left out, each row for the first reason that holds: cancellations (the invoice begins with C), rows without a customer, rows
whose unit price or quantity is 0 or less. fetch.json has the counts.

What to know when you compare results:
- An invoice is one instant: its lines share a time. The settings let a line see the lines above it, as in a filling basket.
- description is the one that most of the item's rows carry (of equally many, the first in the alphabet), price the median of its
  unit prices, both over the rows kept of the whole file: facts of the catalogue, taken to be known before the first sale. So a
  tested day has a small share in them, and an item that was first sold on it is in the corpus already.
- country is that of the customer's first row: a few moved.
- POST, M, DOT, C2, PADS and BANK CHARGES are postage, manual entries and fees, not merchandise. They stay in, as in the figures
  this project compares itself with; leave them out where shoppers are to be advised.
"""

SETTINGS = """\
# online-retail: what will this customer put on the invoice next? Made by `shortlist fetch online-retail`.

[data]  # paths are taken from this file's folder
events = "events.parquet"
items = "items.parquet"
users = "users.parquet"

[columns]  # which column plays which role
user = "customer_id"
item = "stock_code"
time = "invoiced_at"
ties = "in_order"  # an invoice is one instant: a line sees the lines above it

[item.features]  # what the item tower sees
stock_code = "id"
description = "text"
price = { kind = "number", buckets = 16 }

[query.features]  # what the query tower sees; `invoice`, `quantity` and `unit_price` are left out: they belong to the choice
seed = "item"  # the item bought before
history = { kind = "items", last = 50 }  # the items bought before, newest first
"users.country" = "category"

[evaluate]  # train on 30 days of trade, test on the next, seven times, a day of trade apart
protocol = "rolling"
days = "active"  # the shop is closed on Saturdays and holidays: those days do not count
train_days = 30
test_days = 1
shifts = 7
"""
