"""What the softmax sees. One formula a design, chosen by name; torch in, torch out.

Notation (Yang et al., WWW'20; docs/estimators.md): s_ij = similarity / temperature + bias is the logit of query i and column j,
column i holds query i's positive y_i, c_j is how often item j was drawn among a row's N negatives, n_j the expected value of
c_j over the whole design, pi_j the probability that c_j > 0. The temperature divides before anything is corrected.

    design            positive's term   term of j, drawn c_j times   equal ids          converges to
    expected_count    e^s_y             c_j e^s_j / n_j              masked             log P(y|x) + c(x), bias falls with N
    all_corrected     e^s_y / n_y       c_j e^s_j / n_j              kept as columns    log P(y|x) + c(x)
    inclusion         e^s_y / pi_y      [c_j > 0] e^s_j / pi_j       deduplicated       log P(y|x) + c(x)
    paper_literal     e^s_y             c_j e^s_j / (n_j / N)        masked             nothing consistent: negatives weigh N times
    uncorrected       e^s_y             c_j e^s_j                    masked             about log P(y|x) - log n_y: popularity removed

`logq_weight` in [0, 1] is a dial from the most informative items (0) to the most likely ones (1): under the consistent designs s
converges to log P - (1 - logq_weight) log n. (Under `expected_count` the positive's term is then e^s_y n_y^(1 - logq_weight).)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from shortlist.errors import ShapeError
from shortlist.sections import LossDesign
from shortlist.tiles import Terms, softmax_loss

NOTHING = float("-inf")


@dataclass(frozen=True)
class Candidates:
    """The C columns of a batch with B queries; column i < B is query i's positive.

    item_row    (C,) dense rows; a column with the positive's row is an accidental hit
    log_n       (C,) natural log of the expected count; may exceed 0
    log_pi      (C,) natural log of the inclusion probability; None where the design does not ask for it
    draws       N, how many negatives a row was meant to have
    in_batch    are the other queries' positives negatives? If not, only the columns from B on are
    hidden      (B, C) cells that are no negatives for other reasons; None = none. Never hides a positive.
    """

    item_row: torch.Tensor
    log_n: torch.Tensor
    log_pi: torch.Tensor | None = None
    draws: int = 0
    in_batch: bool = True
    hidden: torch.Tensor | None = None


def sampled_softmax_loss(
    design: LossDesign,
    similarity: torch.Tensor,
    candidates: Candidates,
    *,
    temperature: torch.Tensor | float,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    logq_weight: float = 1.0,
    hardest: int = 0,
) -> torch.Tensor:
    """Weighted mean loss of each query against its candidates under a named design, in nats per query.

    similarity   (B, C) row i is query i, column i its positive; C >= B
    temperature  > 0
    weight       (B,) reward r_i >= 0; None = 1
    bias         (C,) added to the logits, in nats; None = 0
    hardest      keep this many of the hardest negatives a row (0 = all): biased, whatever the design
    Returns      () float32 (float64 for float64)
    Raises       ShapeError where lengths differ or C < B; ValueError naming the first log_n that is not finite
    """
    _check(len(similarity), similarity.shape[1], candidates, weight, bias)
    logits = (similarity if similarity.dtype == torch.float64 else similarity.float()) / temperature
    if bias is not None:
        logits = logits + bias  # (B, C)
    own, others = _corrected(design, logits, candidates, logq_weight)
    if hardest and hardest < others.shape[1]:
        others = others.topk(hardest, dim=1).values  # (B, hardest)
    return _mean(_row_loss(own, others), weight)


def sampled_softmax_of_vectors(
    design: LossDesign,
    queries: torch.Tensor,
    vectors: torch.Tensor,
    candidates: Candidates,
    *,
    place: torch.Tensor | None,
    temperature: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    logq_weight: float = 1.0,
    kind: torch.dtype = torch.float32,
) -> torch.Tensor:
    """What `sampled_softmax_loss` says of similarity = queries @ columns.T, without ever holding it: what training runs.

    queries   (B, D) float32
    vectors   (K, D) float32
    place     (C,) which vector each column has; all columns at one place must agree in log_n, log_pi and hidden. None = column j
              has vector j
    bias      (K,) added to the logits, in nats; None = 0
    kind      the type of the matrix products
    """
    columns = len(vectors) if place is None else len(place)
    _check(len(queries), columns, candidates, weight, None)
    shifts = _shifts(design, candidates, len(queries), logq_weight)
    if place is None:
        terms = _terms(shifts, candidates, len(queries))
    else:
        terms = _merged_terms(shifts, candidates, len(queries), place, len(vectors))
    return softmax_loss(queries, vectors, terms, temperature=temperature, weight=weight, bias=bias, kind=kind)


def expected_count_loss(
    similarity: torch.Tensor,
    *,
    temperature: torch.Tensor | float,
    log_n: torch.Tensor,
    item_row: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """The default design by itself: weighted mean loss by expected counts, in nats per query.

        loss_i = -s_ii + log( exp(s_ii) + sum_{j: item_j != item_i} exp(s_ij - log_n_j) )

    Arguments, errors as in `sampled_softmax_loss` and `Candidates`.
    Source    Yang et al., WWW'20, Eq. 5; differs: counts for probabilities, equal ids masked. Its gradient equals that of the
              corrected log Q loss of Khrylchenko et al., RecSys'25.
    """
    candidates = Candidates(item_row, log_n)
    return sampled_softmax_loss("expected_count", similarity, candidates, temperature=temperature, weight=weight, bias=bias)


def full_softmax_loss(logits: torch.Tensor, item_row: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Weighted mean of -log P(positive) with the softmax over the whole corpus, in nats per query: the oracle.

    logits    (B, M) one column an item of the corpus
    item_row  (B,) the column of each query's positive
    Source    Yang et al., WWW'20, Eq. 2
    """
    return _mean(torch.logsumexp(logits.float(), dim=1) - logits.float().gather(1, item_row[:, None].long())[:, 0], weight)


def negative_shares(
    design: LossDesign,
    similarity: torch.Tensor,
    candidates: Candidates,
    *,
    temperature: torch.Tensor | float,
    bias: torch.Tensor | None = None,
    logq_weight: float = 1.0,
    rows: torch.Tensor | None = None,
    queries: int = 0,
) -> torch.Tensor:
    """(R, C) the gradient's share of each negative column in its row: dL_i/ds_ij over their sum; rows add up to 1 (or 0).

    similarity   (R, C)
    rows         (R,) which of the `queries` = B rows of the batch these are; None = all
    """
    if rows is None:
        queries, rows = len(similarity), torch.arange(len(similarity))
    shifts = _shifts(design, candidates, queries, logq_weight)
    logits = similarity.float() / temperature
    others = (logits if bias is None else logits + bias) + shifts.others
    return torch.softmax(others.masked_fill(_left_out(shifts, candidates, rows), NOTHING), dim=1).nan_to_num(0.0)


def accidental_hits(item_row: torch.Tensor, queries: int) -> torch.Tensor:
    """(B, C) where a column holds the row's own positive, its own column among them."""
    return item_row[:queries, None] == item_row[None, :]


@dataclass(frozen=True)
class _Shifts:
    """What a design adds to the logits before they meet in the row's sum."""

    own: torch.Tensor  # (B,) to the positive's term
    others: torch.Tensor  # (C,) to a column as a negative; -inf where it is none
    masks_equal_ids: bool  # are columns with the row's positive left out, beside its own column?


def _shifts(design: LossDesign, candidates: Candidates, queries: int, logq_weight: float) -> _Shifts:
    log_n, columns = logq_weight * candidates.log_n, len(candidates.log_n)
    nothing = torch.zeros(queries, dtype=log_n.dtype)
    masks_equal_ids = True
    match design:
        case "expected_count":
            # a weight below 1 aims at s = log P - (1 - weight) log n, so the positive must carry the same shift
            own = nothing if logq_weight == 1 else (1 - logq_weight) * candidates.log_n[:queries]
            others = -log_n
        case "all_corrected":
            own, others, masks_equal_ids = -log_n[:queries], -log_n, False
        case "inclusion":
            if candidates.log_pi is None:
                raise ValueError("the inclusion design needs log_pi: got none; the sampler must tell inclusion probabilities")
            log_pi = logq_weight * candidates.log_pi
            own, others = -log_pi[:queries], (-log_pi).masked_fill(_repeated(candidates, queries), NOTHING)
        case "paper_literal":
            if candidates.draws < 1 and columns > 1:
                raise ValueError(f"the paper_literal design needs N, the draws of a row: got {candidates.draws}; the sampler must tell it")
            own, others = nothing, logq_weight * math.log(max(candidates.draws, 1)) - log_n
        case "uncorrected":
            own, others = nothing, torch.zeros_like(log_n)
    if not candidates.in_batch:
        others = others.masked_fill(torch.arange(columns) < queries, NOTHING)
    return _Shifts(own, others, masks_equal_ids)


def _corrected(design: LossDesign, logits: torch.Tensor, candidates: Candidates, logq_weight: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(B,) the positives' terms and (B, C) the negatives', as logs; what is no negative is -inf."""
    queries = len(logits)
    shifts = _shifts(design, candidates, queries, logq_weight)
    return logits.diagonal() + shifts.own, (logits + shifts.others).masked_fill(
        _left_out(shifts, candidates, torch.arange(queries)), NOTHING
    )


def _left_out(shifts: _Shifts, candidates: Candidates, rows: torch.Tensor) -> torch.Tensor:
    """(R, C) cells that are no negatives of these rows (R,), a row's own column among them."""
    items = candidates.item_row
    own, of_columns = (items[rows], items) if shifts.masks_equal_ids else (rows, torch.arange(len(items)))
    left_out = own[:, None] == of_columns[None, :]
    return left_out if candidates.hidden is None else left_out | candidates.hidden[rows]


def _terms(shifts: _Shifts, candidates: Candidates, queries: int) -> Terms:
    """The sum of each row, one column a candidate."""
    rows = torch.arange(queries)
    hidden = _left_out(shifts, candidates, rows).fill_diagonal_(False)
    return Terms(shifts.others, rows, shifts.own, shifts.own, hidden)


def _merged_terms(shifts: _Shifts, candidates: Candidates, queries: int, place: torch.Tensor, vectors: int) -> Terms:
    """The same sum over K = `vectors` columns, each with the weight of all candidates at its `place`: their logits are equal.

    Then equal ids are one cell a row, the positive's own, and no mask is looked up.
    """
    shift, own, own_cell = torch.full((vectors,), NOTHING, dtype=shifts.others.dtype), place[:queries], shifts.own
    if shifts.others.min() > NOTHING:  # as in nearly every step: each column is a negative
        copies = torch.bincount(place, minlength=vectors).to(shift.dtype)
        shift.scatter_(0, place, shifts.others)  # equal at one place
    else:
        copies = torch.zeros_like(shift).index_add_(0, place, (shifts.others > NOTHING).to(shift.dtype))
        shift.scatter_reduce_(0, place, shifts.others, "amax")
    if not shifts.masks_equal_ids:
        kept = copies[own] - (shifts.others[:queries] > NOTHING).to(shift.dtype)
        own_cell = torch.logaddexp(shifts.own, torch.log(kept) + shift[own])
    hidden = None
    if candidates.hidden is not None:
        hidden = torch.zeros(queries, vectors, dtype=torch.bool)
        hidden[:, place] = candidates.hidden
    return Terms(shift + torch.log(copies), own, shifts.own, own_cell, hidden)


def _repeated(candidates: Candidates, queries: int) -> torch.Tensor:
    """(C,) columns whose item stands in an earlier column that is a negative."""
    rows = candidates.item_row
    start = 0 if candidates.in_batch else queries
    repeated = torch.zeros(len(rows), dtype=torch.bool)
    _, number = torch.unique(rows[start:], return_inverse=True)
    first = torch.full((int(number.max()) + 1 if len(number) else 0,), len(rows))
    first.scatter_reduce_(0, number, torch.arange(len(number)), "amin")
    repeated[start:] = first[number] != torch.arange(len(number))
    return repeated


def _row_loss(own: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """(B,) -log( e^own / (e^own + sum e^others) ). The positive stands in front, so every row keeps a finite logit."""
    return torch.logsumexp(torch.cat([own[:, None], others], dim=1), dim=1) - own


def _mean(row_loss: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    if weight is None:
        return row_loss.mean()
    return (row_loss * weight).sum() / weight.sum().clamp_min(torch.finfo(row_loss.dtype).tiny)


def _check(queries: int, columns: int, candidates: Candidates, weight: torch.Tensor | None, bias: torch.Tensor | None) -> None:
    log_n, item_row = candidates.log_n, candidates.item_row
    if columns < queries:
        raise ShapeError(f"column i must hold row i's positive, so C >= B: got {columns} columns for {queries} queries")
    if log_n.shape != (columns,) or item_row.shape != (columns,):
        raise ShapeError(
            f"log_n and item_row must have one value per candidate: got {len(log_n)} and {len(item_row)} for {columns}. "
            "Did you append the uniform negatives' values?"
        )
    if weight is not None and weight.shape != (queries,):
        raise ShapeError(f"weight must have one value per query: got {tuple(weight.shape)} for {queries} queries")
    if bias is not None and bias.shape != (columns,):
        raise ShapeError(f"bias must have one value per candidate: got {tuple(bias.shape)} for {columns} columns")
    if columns > 1 and not math.isfinite(log_n.double().sum()):  # two passes for a good batch, where looking at each takes five
        finite = torch.isfinite(log_n)
        raise ValueError(f"log_n must be finite: column {int((~finite).nonzero()[0, 0])} is {log_n[~finite][0].item()}")
