"""Which events are learned from and which are tested. A split never lets a query see its future.

split.py       one division of a log, and what everybody may know of it
days.py        the UTC days that windows are counted in: all, or those with events
rolling.py     windows of days, shifted day by day
holdout.py     a random share of rows, pairs, users or items; the last event of each user
release.py     what the next snapshot of the tables added
configured.py  the splits that the settings ask for
"""
