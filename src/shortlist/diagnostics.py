"""Is training healthy? Facts of a step for the log, and warnings that name the cure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from shortlist.batches import Batch
from shortlist.features.arrays import Ids
from shortlist.features.vocabulary import CategoryEncoder
from shortlist.learner import Learner
from shortlist.losses import accidental_hits, negative_shares
from shortlist.negatives import MixedNegatives

_COLLAPSED_COSINE = 0.8
_LOW_RANK = 0.05  # of the dimension
_MANY_HIDDEN = 0.2
_MANY_UNKNOWN = 0.9
_STREAM_ALONE = 0.95
_ROWS_LOOKED_AT = 64  # of a batch, where the whole would take longer than it tells
_STREAM_CURES = {
    "in_batch": "raise negatives.index_batch_size",
    "index": "raise negatives.batch_size, or lower negatives.index_batch_size",
    "mined": "lower negatives.mined_per_query, or mine further down by negatives.mined_ranks",
    "remembered": "lower negatives.queue_batches or negatives.cached",
}


@torch.no_grad()
def step_facts(learner: Learner, batch: Batch) -> dict[str, Any]:
    """What the last step looked like: hits, masks, shares of the gradient by stream, and the geometry of its item vectors."""
    scored = learner.scored
    assert scored is not None
    vectors = scored.items.vector
    facts = {
        "temperature": float(learner.model.temperature),
        **_hidden_facts(learner, batch),
        **_pulls(learner, batch),
        "item_mean_cosine": mean_cosine(vectors),
        "item_effective_rank": effective_rank(vectors),
        "dim": vectors.shape[1],
    }
    if scored.items.embedding is not None:
        facts["item_norm_by_log_count"] = _norm_slope(scored.items.embedding, learner, batch)
    unknown = unknown_share(learner, batch)
    return facts if unknown is None else {**facts, "unknown_id_share": unknown}


def warnings_of(facts: dict[str, Any]) -> list[str]:
    """What a user should change, and why; empty for a healthy step. Facts that are not there are not judged."""
    found = []
    if facts.get("item_mean_cosine", 0.0) > _COLLAPSED_COSINE:
        found.append(
            f"item vectors point the same way (mean cosine {facts['item_mean_cosine']:.2f}): everybody gets one list; "
            "lower train.learning_rate, or raise model.temperature"
        )
    if facts.get("item_effective_rank", 1e9) < lowest_rank(facts.get("dim", 0)):
        found.append(
            f"item vectors span {facts['item_effective_rank']:.1f} dimensions: lower train.learning_rate, or add features to the items"
        )
    if facts.get("masked_share", 0.0) > _MANY_HIDDEN:
        found.append(
            f"{facts['masked_share']:.0%} of the negatives are masked: the corpus is small for this batch; lower negatives.batch_size, "
            'or set negatives.kind = "full"'
        )
    if facts.get("unknown_id_share", 0.0) > _MANY_UNKNOWN:
        found.append(
            f"{facts['unknown_id_share']:.0%} of the candidates have an unknown id: check that events and items use the same ids, or "
            "give the items more features"
        )
    for stream, cure in _STREAM_CURES.items():
        if facts.get(f"pull_{stream}", 0.0) > _STREAM_ALONE and facts.get("streams", 0) > 1:
            found.append(f"{facts[f'pull_{stream}']:.0%} of the gradient comes from the {stream} negatives, the others idle: {cure}")
    return found


def mean_cosine(vectors: torch.Tensor) -> float:
    """Mean cosine of two different rows of (n, D): near 1 when all point the same way."""
    count = len(vectors)
    if count < 2:
        return 0.0
    unit = vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return float((unit.sum(dim=0).square().sum() - count) / (count * (count - 1)))


def effective_rank(vectors: torch.Tensor) -> float:
    """exp of the entropy of the normalised squared singular values of (n, D): how many dimensions the rows use."""
    values = torch.linalg.eigvalsh(vectors.float().T @ vectors.float()).clamp_min(0)
    share = values / values.sum().clamp_min(1e-12)
    return float(torch.exp(-(share * torch.log(share.clamp_min(1e-12))).sum()))


def lowest_rank(dim: int) -> float:
    """The least effective rank that is no alarm for vectors of so many dimensions; 0 where `dim` is not known."""
    return min(max(2.0, _LOW_RANK * dim), dim / 2)


def unknown_share(learner: Learner, batch: Batch) -> float | None:
    """The share of columns whose id is unknown or hidden by dropout; None where items have no id feature."""
    encoder = learner.dataset.item_encoder
    name = encoder.id_feature()
    if name is None:
        return None
    ids, vocabulary = batch.items.columns[name], encoder.features[name].encoder
    assert isinstance(ids, Ids) and isinstance(vocabulary, CategoryEncoder)
    rows = batch.items.table_rows[name][ids.values[batch.columns]]
    return float(np.mean(rows < vocabulary.vocabulary.unknown.stop))


def _hidden_facts(learner: Learner, batch: Batch) -> dict[str, float]:
    """Accidental hits a row, found and expected, and the share of the negatives that hits and masks hide.

    Mined columns are left out: each is meant for one row alone.
    """
    assert learner.scored is not None
    candidates, size = learner.scored.candidates, len(batch.weight)
    own = size if candidates.in_batch else 0  # each row meets its positive's own column, which is no hit
    negative = torch.arange(len(candidates.item_row)) >= (0 if candidates.in_batch else size)
    negative[len(batch.columns) - batch.mined.rows.size : len(batch.columns)] = False
    hits = _hits(candidates.item_row, size)  # (C,)
    masked = hits
    if candidates.hidden is not None:
        masked = (accidental_hits(candidates.item_row, size) | candidates.hidden).sum(dim=0)
    negatives = learner.negatives
    if isinstance(negatives, MixedNegatives):
        cached = 0 if batch.cached_rows is None else len(batch.cached_rows)
        queued = len(candidates.item_row) - len(batch.columns) - cached
        negatives = negatives if queued == negatives.queued else replace(negatives, queued=queued)  # the queue fills up
    return {
        "accidental_hits": float(hits[negative].sum() - own) / size,
        "accidental_hits_expected": negatives.expected_accidental_hits(size),
        "masked_share": float(masked[negative].sum() - own) / max(size * int(negative.sum()) - own, 1),
    }


def _hits(item_row: torch.Tensor, queries: int) -> torch.Tensor:
    """(C,) how many rows' positives each column holds, its own row's among them."""
    _, number = torch.unique(item_row, return_inverse=True)
    return torch.bincount(number[:queries], minlength=int(number.max()) + 1)[number]


def _pulls(learner: Learner, batch: Batch) -> dict[str, float]:
    """Each stream's share of what pulls on a row beside its positive, and how many streams there are.

    By some rows spread over the batch: all of them would cost as much as four steps.
    """
    assert learner.scored is not None
    scored, size, columns = learner.scored, len(batch.weight), len(batch.columns)
    rows = torch.linspace(0, size - 1, min(size, _ROWS_LOOKED_AT)).long()
    shares = negative_shares(
        learner.loss.design,
        scored.similarity_of(rows),
        scored.candidates,
        temperature=learner.model.temperature,
        bias=scored.bias,
        logq_weight=learner.loss.logq_weight,
        rows=rows,
        queries=size,
    ).mean(dim=0)  # (C,)
    index_end = columns - batch.mined.rows.size
    streams = {
        "in_batch": shares[:size] if scored.candidates.in_batch and size > 1 else shares[:0],
        "index": shares[size:index_end],
        "mined": shares[index_end:columns],
        "remembered": shares[columns:],
    }
    pulls = {f"pull_{name}": float(part.sum()) for name, part in streams.items() if len(part)}
    return {**pulls, "streams": len(pulls)}


def _norm_slope(embedding: torch.Tensor, learner: Learner, batch: Batch) -> float:
    """Slope of log |e| over log(1 + count) among the step's candidates: above 0, popular items have longer embeddings."""
    embedding = embedding[: batch.candidates]
    counts = np.log1p(learner.dataset.item_counts[batch.item_row[: batch.candidates]])
    if counts.std() == 0:
        return 0.0
    return float(np.polyfit(counts, np.log(embedding.norm(dim=1).numpy() + 1e-12), 1)[0])
