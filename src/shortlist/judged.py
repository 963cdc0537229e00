"""What one model did on one split: where it ranked every positive, and its lists for the queries that are shown as examples.

A baseline's judgement is kept on disk, under a key that changes with all that it comes from: fitting and tuning take minutes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import xxhash
from numpy.typing import NDArray

from shortlist import baselines
from shortlist.baselines.chosen_by import window_of
from shortlist.baselines.item_texts import item_texts
from shortlist.baselines.scored_corpus import ScoredCorpus
from shortlist.dataset import Dataset, Examples
from shortlist.disk import write_whole
from shortlist.evaluate import Ranked, Retriever, rank_positives
from shortlist.features import content_words
from shortlist.project import content_columns
from shortlist.sections import Config
from shortlist.unlisted import unlisted

LISTED = 10  # results of a query that is shown as an example


@dataclass(frozen=True)
class Judged:
    """One model on one split."""

    ranked: Ranked
    shown: NDArray[np.intp]  # (n,) the queries that are examples
    rows: NDArray[np.int64]  # (n, LISTED) their lists, best first, padded with -1
    scores: NDArray[np.float32]  # (n, LISTED)


def judge(retriever: Retriever, corpus: Dataset, examples: Examples, shown: NDArray[np.intp], config: Config) -> Judged:
    """What `retriever` does on `examples`, of which those at `shown` (n,) get their lists kept.

    Items of one list are compared by what the catalogue says of them, the same for all models; not at all where it says nothing.
    """
    settings = config.evaluate
    size = len(corpus.items)
    contents = item_texts(window_of(corpus, config)) if content_columns(config) else None
    ranked = rank_positives(retriever, examples, size, settings, item_counts=corpus.item_counts, vectors=contents)
    queries = examples.queries.take(shown)
    rows, scores = retriever.retrieve(queries, min(LISTED, size), unlisted(queries, settings))
    return Judged(ranked, shown, rows, scores)


def judge_baseline(fit: Callable[[], Retriever], corpus: Dataset, examples: Examples, shown: NDArray[np.intp], config: Config) -> Judged:
    """As `judge`, of a baseline that is fitted first; its `ranked` says what was tuned."""
    retriever = fit()
    judged = judge(retriever, corpus, examples, shown, config)
    if isinstance(retriever, ScoredCorpus):
        judged.ranked.tuned.update(retriever.settings)
    return judged


def baseline_key(name: str, corpus: Dataset, examples: Examples, shown: NDArray[np.intp], config: Config) -> str:
    """Changes with everything that a baseline's judgement comes from, its own code included; not with a setting of the model."""
    settings, contents = config.evaluate, content_columns(config)
    chosen = (config.columns, settings.ks, settings.seen_items, settings.repeats, contents)
    digest = xxhash.xxh3_128(repr((name, _code(), chosen)).encode())
    for array in (*corpus.train.arrays().values(), *examples.arrays().values(), shown):
        digest.update(np.ascontiguousarray(array).data)
    table = corpus.items.frame.select(list(dict.fromkeys([corpus.items.id_column, *(column for column, _ in contents)])))
    digest.update(table.rechunk().write_ipc(None).getvalue())
    return digest.hexdigest()


def kept(path: Path, key: str, make: Callable[[], Judged]) -> Judged:
    """The judgement that `path` holds under `key`; made and written where it holds none, or another one."""
    found = _read(path, key)
    if found is None:
        found = make()
        _write(path, key, found)
    return found


@cache
def _code() -> str:
    """A digest of the baselines' source, and of how they read words: a judgement by older code is another one."""
    files = [*sorted(Path(baselines.__file__).parent.glob("*.py")), Path(content_words.__file__)]
    return xxhash.xxh3_128_hexdigest(b"\x00".join(file.read_bytes() for file in files))


def _write(path: Path, key: str, judged: Judged) -> None:
    ranked = judged.ranked
    facts = {"key": key, "model": ranked.model, "of_lists": ranked.of_lists, "tuned": ranked.tuned}
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = BytesIO()
    np.savez(raw, facts=np.array(json.dumps(facts)), rank=ranked.rank, shown=judged.shown, rows=judged.rows, scores=judged.scores)
    write_whole(path, raw.getvalue())


def _read(path: Path, key: str) -> Judged | None:
    """None where there is no such file, or what it holds cannot be read or is not of this key: then it is made anew."""
    if not path.exists():
        return None
    try:
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            facts: dict[str, Any] = json.loads(str(arrays["facts"]))
            if facts["key"] != key:
                return None
            ranked = Ranked(facts["model"], arrays["rank"], facts["of_lists"], tuned=facts["tuned"])
            return Judged(ranked, arrays["shown"], arrays["rows"], arrays["scores"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
