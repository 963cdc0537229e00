"""How often each item is chosen, learned from the stream of batches itself: no vocabulary, no pass over the log, follows drift.

The estimator of Yi et al. (RecSys'19, Algorithms 2 and 3): per hash bucket the last step that hit it and the mean number of steps
between hits; the frequency is one over that mean. Exact shares over a window that is read as a whole are `frequency.py`'s.
numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from shortlist.errors import ConfigError, DataError, ShapeError

if TYPE_CHECKING:  # a series is only read
    import polars as pl

Keys = NDArray[np.int64] | NDArray[np.uint64]

_ID_SEED = 29  # part of the meaning of a saved state: never change it
_STATE_TYPES = {"last_step": np.int64, "mean_gap": np.float64, "hits": np.int64, "multiplicity": np.float64}


@dataclass(frozen=True, kw_only=True)
class StreamingSettings:
    """How the stream is averaged. Raises ConfigError for a value out of its range.

    Choose at least 5 buckets in all per live item before taking more than one hash: with 1.5 an item, four hashes are worse than one.
    """

    rate: float = 0.01  # a: weight of the newest gap; the window is 1/a steps that hit the bucket
    buckets: int = 1 << 20  # H, of all hashes together
    hashes: int = 4  # m
    semantics: Literal["count", "inclusion"] = "count"  # expected number of draws in a step, or probability of one at least
    warm_start: bool = True  # the n-th hit weighs max(rate, 1/n)
    stale_after: float | None = 6.0  # c: a silence longer than c mean gaps is taken for the gap; None: never
    count_silence: bool = True  # the steps since the last hit lengthen the mean gap: unbiased for rare items
    start: Literal["first_gap", "prior", "paper"] = "first_gap"  # what a bucket holds before it has seen a gap, see StreamingFrequency
    start_gap: float | None = None  # steps; for "prior" and "paper" only
    seed: int = 0

    def __post_init__(self) -> None:
        rules = (
            (0 < self.rate <= 1, f"rate is a weight in (0, 1]: got {self.rate}"),
            (self.hashes >= 1, f"hashes must be at least 1: got {self.hashes}"),
            (
                self.hashes >= 1 and self.buckets >= self.hashes and self.buckets % self.hashes == 0,
                f"buckets must be a positive multiple of the {self.hashes} hashes, which share them equally: got {self.buckets}",
            ),
            (self.semantics in ("count", "inclusion"), f'semantics must be "count" or "inclusion": got {self.semantics!r}'),
            (
                self.stale_after is None or self.stale_after >= 1,
                f"stale_after must be at least 1 mean gap, or None: got {self.stale_after}",
            ),
            (self.start in ("first_gap", "prior", "paper"), f'start must be "first_gap", "prior" or "paper": got {self.start!r}'),
            (
                self.start != "first_gap" or self.start_gap is None,
                f'start_gap has no meaning with start = "first_gap": got {self.start_gap}',
            ),
            (
                self.start == "first_gap" or (self.start_gap is not None and 1 <= self.start_gap < np.inf),
                f'start = "{self.start}" needs a start_gap of 1 step or more: got {self.start_gap}',
            ),
            (self.seed >= 0, f"seed must not be negative: got {self.seed}"),
        )
        for holds, message in rules:
            if not holds:
                raise ConfigError(message)


class StreamingFrequency:
    """Expected count, or inclusion probability, of any item in one step of the stream.

    With t the number of steps taken, a step that hits bucket h k times (all its items together) does

        B[h] <- (1 - a_n) B[h] + a_n (t - A[h]),   A[h] <- t              mean gap, last step
        K[h] <- (1 - a_n) K[h] + a_n k                                    mean multiplicity, "count" only
        a_n = max(rate, 1/n) with warm_start (n = hits of h, this one included), else rate

    and an item reads the lowest of its m buckets, since a collision can only raise a bucket:

        inclusion   p = min_i 1 / G[h_i] = 1 / max_i G[h_i]
        count       min_i K[h_i] / G[h_i]
        G[h] = t - A[h] where that exceeds stale_after * B[h], else B[h] + a_n (t - A[h]), without count_silence B[h]

    In the loss, an item's expected count among the B-1 other positives and B' uniform draws is (B-1)/B * count + B'/M. One
    estimator that is fed positives and index draws alike estimates the whole mixture. Inclusion saturates at 1 and is right only
    for batches without duplicates.

    start, the rule for buckets without a gap of their own:
      first_gap  never hit: 0. Hit once, at step T: B = T. The second hit replaces that by the first true gap, so that an item born
                 late does not drag along the time before its birth; for B, n then counts gaps: n - 1, at least 1.
      prior      never hit: 0. The first hit sets B = start_gap.
      paper      every bucket starts with A = 0, B = start_gap: never hit reads 1/start_gap, and the first hit at step T is averaged
                 like any other, which adds rate * T.

    count_silence takes time without a hit for what it is: 1/B alone reads an item with one hit expected so far 2 times too high
    (an early first hit reads far too often, and the silence after it is forgotten), with the silence 1.0 times; a frequent item
    does not notice. For the same reason read the keys of a batch *before* updating with it: just hit, a rare item reads too high.

    Bias. After t hits with mean gap d and a fixed rate, E[B] - d = (1-a)^t (d0 - d), d0 being the start gap: Prop. 4.1, Eq. 7 prints
    (1-a)^t d0 - (1-a)^(t-1) d, which is an erratum. 1/B is biased up by about a/(2-a) (1-p), relative (Jensen).
    The windows assume batches of one size. Time-sorted batches are bursty and the estimate follows: shuffle within a day.

    Not offered: the other count, Algorithm 2 run over every positive, where the second hit in a step has gap 0. Its window is 1/a
    hits, not steps, so what comes 17 times a step is averaged over 6 steps and reads 10 % high (benchmarks/frequency.py).

    Source: Yi et al., RecSys'19, Alg. 2 and 3, section 4; the starts, warm start, the two uses of silence and K are additions.
    """

    def __init__(self, settings: StreamingSettings) -> None:
        self.settings = settings
        self.step = 0  # t
        self._seeds = _mixed(np.arange(settings.hashes, dtype=np.uint64) + _mixed(np.array([settings.seed], np.uint64)))  # (m,)
        self._state: dict[str, NDArray[Any]] = {name: np.zeros(settings.buckets, kind) for name, kind in _STATE_TYPES.items()}
        if settings.semantics == "inclusion":
            del self._state["multiplicity"]

    def update(self, keys: Keys) -> None:
        """Takes one step: a batch of positives, duplicates included. An empty batch is a step in which nothing was chosen.

        keys     (B,) dense rows as int64, or hashes of ids as uint64 (`keys_of_ids`)
        Raises   ShapeError unless one-dimensional; TypeError for another type; ValueError for a negative row (padding)
        """
        touched, times = np.unique(self._buckets_of(keys), return_counts=True)
        self.step += 1
        state = self._state
        hits = state["hits"][touched] + 1
        weight, before = self._gap_weight(hits), state["mean_gap"][touched]
        if self.settings.start_gap is not None:
            before = np.where(hits == 1, self.settings.start_gap, before)
        if self.settings.start == "prior":
            weight = np.where(hits == 1, 0.0, weight)
        state["mean_gap"][touched] = (1 - weight) * before + weight * (self.step - state["last_step"][touched])
        if self.settings.semantics == "count":
            weight = np.where(hits == 1, 1.0, self._weight(hits))
            state["multiplicity"][touched] = (1 - weight) * state["multiplicity"][touched] + weight * times
        state["last_step"][touched] = self.step
        state["hits"][touched] = hits

    def estimate(self, keys: Keys) -> NDArray[np.float64]:
        """(n,) expected count of each key in one step, or its inclusion probability, by `semantics`; 0 if it was never chosen.

        Raises as `update` does. Reading changes nothing.
        """
        buckets = self._buckets_of(keys)  # (m, n)
        hits, gap = self._state["hits"][buckets], self._state["mean_gap"][buckets]
        if self.settings.start == "paper" and self.settings.start_gap is not None:
            gap = np.where(hits == 0, self.settings.start_gap, gap)
        gap_now = gap + self._silence_share(buckets)
        if self.settings.stale_after is not None:
            silence = self.step - self._state["last_step"][buckets]
            gap_now = np.where(silence > self.settings.stale_after * gap, silence, gap_now)
        multiplicity = np.where(hits == 0, 1.0, self._state["multiplicity"][buckets]) if self.settings.semantics == "count" else 1.0
        is_known = (hits > 0) | (self.settings.start == "paper")
        per_bucket = np.divide(multiplicity, gap_now, out=np.zeros(buckets.shape), where=is_known)
        return np.asarray(per_bucket.min(axis=0), np.float64)

    def merge(self, others: Iterable[StreamingFrequency]) -> StreamingFrequency:
        """One estimator from w workers that each saw batches of their own, all of one size, in the same number of steps.

        With r_i = 1 / (B_i + a_n (t - A_i)) the rate at which worker i hits a bucket, 0 if it never did, the merged bucket has

            A = max_i A_i,   n = sum_i n_i,   B = w / sum_i r_i - a_n (t - A),   K = sum_i r_i K_i / sum_i r_i

        so it reads the mean of the workers' readings (several hashes, or stale buckets: nearly), however the log was dealt out,
        and may go on with batches of a worker's size. The count in the global batch is w times the reading, the inclusion
        probability 1 - (1-p)^w. To read the global count only, add the workers' estimates instead.
        Weighing B by hits in place of rates leaves out the workers that never met an item: rare items then read up to w times too
        high, and after a drift the hits before it still weigh (benchmarks/frequency.py).
        Raises ValueError for other settings or another number of steps. The parts are left as they are.
        """
        parts = [self, *others]
        for part in parts:
            if part.settings != self.settings:
                raise ValueError(f"merged estimators must have equal settings: got {part.settings} beside {self.settings}")
            if part.step != self.step:
                raise ValueError(
                    f"merged estimators must have taken the same steps: got {part.step} beside {self.step}; merge at one clock"
                )
        merged = StreamingFrequency(self.settings)
        merged.step = self.step
        merged._state["hits"] = np.sum([part._state["hits"] for part in parts], axis=0)  # (w, H) -> (H,)
        merged._state["last_step"] = np.max([part._state["last_step"] for part in parts], axis=0)
        rates = [part._hit_rate() for part in parts]
        total: NDArray[np.float64] = np.sum(rates, axis=0)
        is_hit = total > 0
        gap = np.divide(len(parts), total, out=np.zeros_like(total), where=is_hit)
        merged._state["mean_gap"] = np.where(is_hit, gap - merged._silence_share(), 0.0)
        if self.settings.semantics == "count":
            weighted = sum(rate * part._state["multiplicity"] for rate, part in zip(rates, parts, strict=True))
            merged._state["multiplicity"] = np.divide(weighted, total, out=np.zeros_like(total), where=is_hit)
        return merged

    def state(self) -> dict[str, NDArray[Any]]:
        """Copies of all arrays, by name, for a checkpoint: `from_state` with equal settings goes on where this one stands.

        step () int64; seeds (m,) uint64; last_step, hits (H,) int64 and mean_gap, multiplicity (H,) float64, one hash after the other.
        """
        return {"step": np.array(self.step), "seeds": self._seeds.copy(), **{name: array.copy() for name, array in self._state.items()}}

    @classmethod
    def from_state(cls, settings: StreamingSettings, state: Mapping[str, NDArray[Any]]) -> StreamingFrequency:
        """The estimator that `state()` described. rate, warm_start, stale_after and the start may differ from then.

        Raises ShapeError for missing or surplus arrays, shapes or types; ValueError for other hashes (a different seed).
        """
        restored = cls(settings)
        expected = restored.state()
        if state.keys() != expected.keys():
            raise ShapeError(f"a {settings.semantics} state must hold {sorted(expected)}: got {sorted(state)}; was it saved otherwise?")
        for name, array in expected.items():
            if (state[name].shape, state[name].dtype) != (array.shape, array.dtype):
                got = f"{state[name].shape} {state[name].dtype}"
                raise ShapeError(
                    f"{name} must be {array.shape} {array.dtype} with these settings: got {got}; use the settings it was made with"
                )
        if not np.array_equal(state["seeds"], restored._seeds):
            raise ValueError(f"the state must come from hashes of seed {settings.seed}: got others; use the settings it was made with")
        restored.step = int(state["step"])
        restored._state = {name: np.array(state[name]) for name in restored._state}
        return restored

    def _hit_rate(self) -> NDArray[np.float64]:
        """(H,) how often a step hits each bucket, by its own gaps and silence; 0 if none did."""
        gap = self._state["mean_gap"] + self._silence_share()
        return np.divide(1.0, gap, out=np.zeros(len(gap)), where=self._state["hits"] > 0)

    def _silence_share(self, buckets: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.float64]:
        """What the steps since a bucket's last hit add to its mean gap, in the shape of `buckets`."""
        silence = self.step - self._state["last_step"][buckets]
        if not self.settings.count_silence:
            return np.zeros(silence.shape)
        return np.asarray(self._gap_weight(np.maximum(self._state["hits"][buckets], 1)) * silence, np.float64)

    def _gap_weight(self, hits: NDArray[np.int64]) -> NDArray[np.float64]:
        """Weight of the newest gap in buckets with so many hits, the newest included; never more for more hits."""
        if self.settings.start != "first_gap":
            return self._weight(hits)
        gaps = np.maximum(hits - 1, 1)
        return np.where(gaps == 1, 1.0, self._weight(gaps))

    def _weight(self, n: NDArray[np.int64]) -> NDArray[np.float64]:
        """a_n, in the shape of n."""
        return np.maximum(self.settings.rate, 1 / n) if self.settings.warm_start else np.full(n.shape, self.settings.rate)

    def _buckets_of(self, keys: Keys) -> NDArray[np.int64]:
        """(m, n) places in the arrays; hash i has the i-th part of them to itself."""
        if keys.ndim != 1:
            raise ShapeError(f"keys must be one-dimensional: got shape {keys.shape}; flatten the batch")
        if keys.dtype not in (np.int64, np.uint64):
            raise TypeError(f"keys must be int64 rows or uint64 hashes: got {keys.dtype}; use keys_of_ids for external ids")
        if keys.dtype == np.int64 and len(keys) and keys.min() < 0:
            raise ValueError(f"rows must not be negative: got {keys.min()}; leave padding out")
        width = self.settings.buckets // self.settings.hashes
        mixed = _mixed(_mixed(keys.astype(np.uint64)) ^ self._seeds[:, None])  # (m, n)
        first = np.arange(self.settings.hashes)[:, None] * width
        return np.asarray((mixed % np.uint64(width)).astype(np.int64) + first, np.int64)


def keys_of_ids(ids: pl.Series) -> NDArray[np.uint64]:
    """(n,) a 64-bit hash of each external id: the same on every day and machine, however rows are numbered.

    The integer 7 and the string "7" are one id, "07" is another.
    Raises DataError for a null (naming its row) or for values that are neither strings nor integers.
    """
    values = ids.to_list()
    if None in values:
        raise DataError(f"column {ids.name!r} row {values.index(None) + 1} must hold an id: got null; leave such rows out")
    if not {type(value) for value in values} <= {int, str}:
        raise DataError(f"column {ids.name!r} must hold strings or integers: got {ids.dtype}; convert it")
    return np.array([xxhash.xxh3_64_intdigest(str(value).encode(), seed=_ID_SEED) for value in values], np.uint64)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each 64-bit word mixed so that every bit of it moves every bit of the result; one-to-one (splitmix64, Steele et al. 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)  # wraps around, as meant
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
