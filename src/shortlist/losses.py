"""What the softmax sees. One formula a function; torch in, torch out."""

from __future__ import annotations

import torch

from shortlist.errors import ShapeError


def expected_count_loss(
    similarity: torch.Tensor,
    *,
    temperature: torch.Tensor | float,
    log_n: torch.Tensor,
    item_row: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Weighted mean loss of each query against its candidates, by expected counts, in nats per query.

        loss_i = -s_ii + log( exp(s_ii) + sum_{j: item_j != item_i} exp(s_ij - log_n_j) ),  s = similarity / temperature + bias

    similarity   (B, C) row i is query i, column i its positive; C >= B
    temperature  > 0; divides before the correction
    log_n        (C,) natural log of each column's expected count; may exceed 0
    item_row     (C,) dense rows; a column with the positive's row is an accidental hit: masked
    weight       (B,) reward r_i >= 0; None = 1
    bias         (C,) added to the logits, in nats; None = 0
    Raises       ShapeError if C < B or lengths differ; ValueError naming the first log_n that is not finite
    Source       Yang et al., WWW'20, Eq. 5; differs: counts for probabilities, equal ids masked
    """
    queries, columns = similarity.shape
    if columns < queries:
        raise ShapeError(f"column i must hold row i's positive, so C >= B: got {columns} columns for {queries} queries")
    if log_n.shape != (columns,) or item_row.shape != (columns,):
        raise ShapeError(
            f"log_n and item_row must have one value per candidate: got {len(log_n)} and {len(item_row)} for {columns}. "
            "Did you append the uniform negatives' values?"
        )
    if weight is not None and weight.shape != (queries,):
        raise ShapeError(f"weight must have one value per query: got {weight.numel()} for {queries}")
    if bias is not None and bias.shape != (columns,):
        raise ShapeError(f"bias must have one value per candidate: got {bias.numel()} for {columns}")
    finite = torch.isfinite(log_n)
    if columns > 1 and not bool(finite.all()):
        raise ValueError(f"log_n must be finite: column {int((~finite).nonzero()[0, 0])} is {log_n[~finite][0].item()}")
    logits = similarity.float() / temperature
    if bias is not None:
        logits = logits + bias  # (B, C)
    positive = logits.diagonal()  # (B,)
    negatives = logits - log_n
    hits = item_row[:queries, None] == item_row[None, :]  # (B, C), the positive's own column among them
    negatives = negatives.masked_fill(hits, float("-inf"))
    # the positive stands in front, so every row keeps a finite logit whatever was masked
    row_loss = torch.logsumexp(torch.cat([positive[:, None], negatives], dim=1), dim=1) - positive
    if weight is None:
        return row_loss.mean()
    return (row_loss * weight).sum() / weight.sum().clamp_min(torch.finfo(row_loss.dtype).tiny)


def full_softmax_loss(logits: torch.Tensor, item_row: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Weighted mean of -log P(positive) with the softmax over the whole corpus, in nats per query: the oracle.

    logits    (B, M) one column an item of the corpus
    item_row  (B,) the column of each query's positive
    Source    Yang et al., WWW'20, Eq. 2
    """
    row_loss = torch.logsumexp(logits.float(), dim=1) - logits.float().gather(1, item_row[:, None].long())[:, 0]
    if weight is None:
        return row_loss.mean()
    return (row_loss * weight).sum() / weight.sum().clamp_min(torch.finfo(row_loss.dtype).tiny)
