"""Columns -> arrays. Fitted on the training window, saved without pickle, the same code offline and online.

arrays.py       the three shapes a feature can take: one table row, a weighted bag of them, plain numbers
vocabulary.py   ids, categories and bags of categories
text.py         words and character n-grams, hashed and weighted by rarity
number.py       numbers (standardised, bucketed) and precomputed vectors
saved_values.py external ids as plain arrays, to be saved
encoder.py      all features of one table together: fit, encode, save, open
lookup.py       encoded features -> numbers, in numpy: what serving does where training looks up in torch
"""
