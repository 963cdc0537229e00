"""Metrics as pure functions of rows, ranks and scores. No model, no search, no ids.

The textbook names have the textbook meanings. Results of one value a query are kept for intervals and slices.

checks.py     what ranks, lists and values must be
ranking.py    where is the positive? rank, recall, NDCG, MRR
lists.py      what do the lists show? coverage, inequality, novelty, similarity
intervals.py  how sure is a mean? bootstrap over users, paired differences
"""
