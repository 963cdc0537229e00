"""What learns: towers, tables, their optimisers, the draws and their counts. One step at a time; the loop is train.py's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from shortlist.batches import Batch, BatchMaker, Mine
from shortlist.compiled import choose_passes
from shortlist.config import for_log
from shortlist.dataset import Dataset, Examples
from shortlist.encode import encode_corpus
from shortlist.errors import ConfigError, TrainingError
from shortlist.features.shown_popularity import TASTE
from shortlist.frequency import exact_frequency
from shortlist.kernels import kernels
from shortlist.losses import Candidates, sampled_softmax_loss, sampled_softmax_of_vectors
from shortlist.memory import VectorMemory
from shortlist.negatives import MixedNegatives, make_negatives
from shortlist.sections import Config, FrequencySettings, LossSettings, Mask
from shortlist.spectral import start_ids
from shortlist.streaming import StreamingFrequency, StreamingSettings, keys_of_ids
from shortlist.tables import EmbeddingTables, Sources
from shortlist.towers import BIAS, MATCH, EncodedItems, TwoTower, batch_id_rows, batch_table_rows, initial_tables, learns_bias

_BUCKETS_PER_ITEM = 5  # of the streaming estimator, where the settings name none


@dataclass(frozen=True)
class Columns:
    """What the queries of a step are compared with: K vectors, and which of them each of the C columns has."""

    vectors: torch.Tensor  # (K, D)
    bias: torch.Tensor | None  # (K,)
    candidates: Candidates  # C columns
    place: torch.Tensor | None  # (C,) which vector; None = column j has vector j

    def each(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """((C, D) vectors, (C,) biases), one a column."""
        if self.place is None:
            return self.vectors, self.bias
        bias = None if self.bias is None else functional.embedding(self.place, self.bias[:, None])[:, 0]
        return functional.embedding(self.place, self.vectors), bias

    def detached(self) -> Columns:
        """The same numbers without their graph."""
        bias = None if self.bias is None else self.bias.detach()
        return Columns(self.vectors.detach(), bias, self.candidates, self.place)


@dataclass(frozen=True)
class Scored:
    """What a step's softmax saw, for the diagnostics; detached from the graph."""

    queries: torch.Tensor  # (B, D)
    columns: Columns
    items: EncodedItems

    @property
    def candidates(self) -> Candidates:
        """The C columns."""
        return self.columns.candidates

    @property
    def bias(self) -> torch.Tensor | None:
        """(C,) of each column."""
        bias, place = self.columns.bias, self.columns.place
        return bias if bias is None or place is None else bias[place]

    def similarity_of(self, rows: torch.Tensor) -> torch.Tensor:
        """(R, C) of the queries at `rows` (R,) and each column."""
        scores, place = self.columns.vectors @ self.queries[rows].T, self.columns.place  # (K, R)
        return (scores if place is None else functional.embedding(place, scores)).T.contiguous()

    @property
    def similarity(self) -> torch.Tensor:
        """(B, C) of each query and column."""
        return self.similarity_of(torch.arange(len(self.queries)))


class Learner:
    """Both towers with everything that a step of training changes."""

    def __init__(
        self,
        dataset: Dataset,
        examples: Examples,
        config: Config,
        *,
        mine: Mine | None = None,
        ever_chosen: NDArray[np.bool_] | None = None,
    ) -> None:
        """`examples` are those of `dataset.train` to learn from.

        mine          finds hard negatives, where the settings ask for them
        ever_chosen   (M,) items chosen before this window, where training goes on from one
        """
        if config.negatives.mined_from is not None and mine is None:
            raise ConfigError("negatives.mined_from needs a miner, which only `shortlist train` and `evaluate` open; take it out here")
        config = for_log(config, len(dataset.train))
        settings = config.train
        counts = np.bincount(examples.item_row, minlength=len(dataset.items))
        generator = torch.Generator().manual_seed(settings.seed)
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            self.model = TwoTower(dataset.item_encoder, dataset.query_encoder, config.model)
        id_feature = self.model.id_feature
        fixed = frozenset(
            {f"item/{id_feature}{MATCH}", TASTE} | (set() if learns_bias(config.model, id_feature) else {f"item/{id_feature}{BIAS}"})
        )
        tables = initial_tables(dataset, config.model, generator, counts)
        if config.model.id_start == "spectral" and id_feature is not None:
            start_ids(tables[f"item/{id_feature}"], id_feature, dataset=dataset, examples=examples, seed=settings.seed)
        self.tables = EmbeddingTables(tables, adagrad_start=settings.adagrad_start, fixed=fixed)
        self.parameters = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        self.optimizer = torch.optim.Adagrad(
            self.parameters.values(), lr=settings.learning_rate, initial_accumulator_value=settings.adagrad_start, eps=0.0, fused=True
        )
        self.dataset, self.settings, self.loss = dataset, settings, config.loss
        choose_passes(settings.passes)
        self.bfloat16 = settings.matmul == "bfloat16" or (settings.matmul == "auto" and has_fast_bfloat16())
        self.hardest = config.negatives.hardest
        unigram_only = config.loss.frequencies == "unigram"
        self.negatives = make_negatives(exact_frequency(counts, ever_chosen), config.negatives, unigram_only=unigram_only)
        self.memory = _memory(config, len(dataset.items))
        self.stream = _stream(config.frequency, len(dataset.items), settings.seed)
        self.keys = keys_of_ids(dataset.items.ids) if self.stream is not None else None
        self.maker = BatchMaker(
            dataset,
            examples,
            self.negatives,
            config.negatives.batch_size,
            config.model.id_dropout,
            config.model.singleton_id_dropout,
            config.model.history_dropout or 0.0,  # for_log has set it
            settings.seed,
            masks_of(config.loss),
            config.loss.design == "inclusion",
            mine,
        )
        self.scored: Scored | None = None

    def begin(self) -> None:
        """What has to be there before the first step: the cache of item vectors, if one is kept."""
        if self.memory is not None and len(self.memory.cache):
            self.memory.fill_cache(self._corpus_vectors())

    def learn(self, batch: Batch) -> float:
        """One optimiser step on `batch`; the loss in nats per query, before the step. Raises TrainingError if it is not finite."""
        sources = self.sources(batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            queries, items = self.model.encode_batch(batch, sources)
        columns = self._columns(batch, items)
        loss = self._loss(batch, queries, columns)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise TrainingError(f"the loss must be finite: got {value}; lower train.learning_rate or raise model.temperature")
        for parameter in self.parameters.values():
            parameter.grad = None  # the optimizer's own way there takes ten times as long
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        self._move_parameters()
        self.model.keep_temperature_within_bounds()
        settings = self.settings
        rate = settings.learning_rate if settings.table_learning_rate is None else settings.table_learning_rate
        self.tables.update(rate, weight_decay=settings.table_weight_decay)
        if self.memory is not None:
            self.memory.remember(
                torch.from_numpy(batch.item_row[: batch.candidates]), with_bias(items), torch.from_numpy(batch.columns[: len(batch.weight)])
            )
        self.scored = Scored(queries.detach(), columns.detached(), detached(items))
        return value

    def sources(self, batch: Batch) -> Sources:
        """What the batch's features and ids are looked up in, by table, and its gradient kept for the update that follows."""
        return {**self.tables.refer(batch_table_rows(batch)), **self.tables.gather(batch_id_rows(batch, self.model))}

    def weights(self) -> dict[str, torch.Tensor]:
        """All learned numbers by name: what is published."""
        dense = {f"model/{name}": value.detach() for name, value in self.model.state_dict().items()}
        return {**dense, **{f"table/{name}": weight for name, weight in self.tables.weights.items()}}

    @torch.no_grad()
    def load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """The inverse of `weights`, in place."""
        self.model.load_state_dict(part(weights, "model/"))
        for name, weight in self.tables.weights.items():
            weight.copy_(weights[f"table/{name}"])

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that the next step depends on, by name: what a checkpoint holds."""
        state = {f"table/{name}": value for name, value in self.tables.state().items()}
        state |= {f"model/{name}": value.detach() for name, value in self.model.state_dict().items()}
        state |= {f"sum/{name}": self.optimizer.state[value]["sum"] for name, value in self.parameters.items()}
        if self.memory is not None:
            state |= {f"memory/{name}": value for name, value in self.memory.state().items()}
        if self.stream is not None:
            state |= {f"stream/{name}": torch.from_numpy(value) for name, value in self.stream.state().items()}
        return state

    @torch.no_grad()
    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """The inverse of `state`."""
        self.tables.load(part(state, "table/"))
        self.model.load_state_dict(part(state, "model/"))
        for name, parameter in self.parameters.items():
            self.optimizer.state[parameter]["sum"].copy_(state[f"sum/{name}"])
        if self.memory is not None:
            self.memory.load(part(state, "memory/"))
        if self.stream is not None:
            arrays = {name: value.numpy() for name, value in part(state, "stream/").items()}
            self.stream = StreamingFrequency.from_state(self.stream.settings, arrays)

    def _move_parameters(self) -> None:
        """One Adagrad step on the dense layers: torch's, or the same in one pass."""
        passes = kernels()
        if passes is None:
            self.optimizer.step()
            return
        moved = [
            (parameter, self.optimizer.state[parameter]["sum"], parameter.grad.contiguous())
            for parameter in self.parameters.values()
            if parameter.grad is not None
        ]
        passes.adagrad(moved, rate=self.settings.learning_rate)

    def _columns(self, batch: Batch, items: EncodedItems) -> Columns:
        """The columns of the step's softmax: those of the batch, then those of the memory.

        Columns of one item are one vector, but where they differ in more than that: mined for one query, or remembered.
        """
        rows, place = torch.from_numpy(batch.column_item_row), torch.from_numpy(batch.columns)
        vectors, bias, hidden = items.vector, items.bias, batch.hidden
        is_apart = self.memory is not None or batch.mined.rows.size > 0
        if is_apart:
            vectors = functional.embedding(place, vectors)
            bias = None if bias is None else functional.embedding(place, bias[:, None])[:, 0]
        if self.memory is not None:
            old_rows, old = self.memory.columns(batch.cached_rows)
            vectors = torch.cat([vectors, old[:, :-1]])
            bias = None if bias is None else torch.cat([bias, old[:, -1]])
            rows = torch.cat([rows, old_rows])
            hidden = self._hidden(batch, old_rows.numpy())
        candidates = Candidates(
            rows,
            torch.from_numpy(self._log_n(batch, rows.numpy())),
            None if batch.log_pi is None else torch.from_numpy(batch.log_pi),
            batch.draws + (0 if self.memory is None else self.memory.queued),
            self.negatives.in_batch,
            None if hidden is None else torch.from_numpy(hidden),
        )
        return Columns(vectors, bias, candidates, None if is_apart else place)

    def _loss(self, batch: Batch, queries: torch.Tensor, columns: Columns) -> torch.Tensor:
        weight, temperature, logq_weight = torch.from_numpy(batch.weight), self.model.temperature, self.loss.logq_weight
        if not self.hardest:
            return sampled_softmax_of_vectors(
                self.loss.design,
                queries,
                columns.vectors,
                columns.candidates,
                place=columns.place,
                temperature=temperature,
                weight=weight,
                bias=columns.bias,
                logq_weight=logq_weight,
                kind=torch.bfloat16 if self.bfloat16 else torch.float32,
            )
        vectors, bias = columns.each()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            similarity = queries @ vectors.T  # (B, C)
        return sampled_softmax_loss(
            self.loss.design,
            similarity,
            columns.candidates,
            temperature=temperature,
            weight=weight,
            bias=bias,
            logq_weight=logq_weight,
            hardest=self.hardest,
        )

    def _hidden(self, batch: Batch, old_rows: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """(B, C) what the masks hide, the columns of the memory included; None where nothing is hidden."""
        assert batch.asker is not None
        own_row = batch.column_item_row[: len(batch.weight)]
        of_batch = np.zeros((len(own_row), len(batch.columns)), bool) if batch.hidden is None else batch.hidden
        hidden = np.concatenate([of_batch, self.maker.known_cells(batch.asker, own_row, old_rows)], axis=1)
        return hidden if hidden.any() else None

    def _log_n(self, batch: Batch, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(C,) the expected counts of all columns, those of the memory and those that the stream tells included."""
        if self.memory is None and self.stream is None:
            return batch.log_n
        size, negatives = len(batch.weight), self.negatives
        assert isinstance(negatives, MixedNegatives)
        queued = 0 if self.memory is None else self.memory.queued
        positives = negatives.frequency.expected_positives(rows, size - 1 + queued)
        if self.stream is not None and self.keys is not None:
            positives = self._streamed(batch, rows, size, queued)
        log_n = negatives.log_n(rows, size, positives)
        return np.concatenate([batch.mined.corrected(log_n[: len(batch.columns)]), log_n[len(batch.columns) :]])

    def _streamed(self, batch: Batch, rows: NDArray[np.int64], size: int, queued: int) -> NDArray[np.float64]:
        """(C,) expected positives by the stream, which takes this batch in: after reading, since what was just drawn reads
        too high; before, where no uniform draw lifts the count of an item that the stream has not met above 0."""
        assert self.stream is not None and self.keys is not None and isinstance(self.negatives, MixedNegatives)
        chosen = self.keys[batch.column_item_row[:size]]
        is_lifted = self.negatives.drawn + self.negatives.cached > 0
        if not is_lifted:
            self.stream.update(chosen)
        counts = self.stream.estimate(self.keys[rows])
        if is_lifted:
            self.stream.update(chosen)
        return counts * (size - 1 + queued) / size

    def _corpus_vectors(self) -> NDArray[np.float32]:
        corpus = encode_corpus(self.model, self.tables.weights, self.dataset.item_features).vector
        if not self.model.settings.item_bias:
            return np.concatenate([corpus, np.zeros((len(corpus), 1), np.float32)], axis=1)
        corpus[:, -1] /= float(self.model.temperature.detach())  # searched vectors hold T * bias
        return corpus


def masks_of(loss: LossSettings) -> tuple[Mask, ...]:
    """The masks beside accidental hits, which each design handles itself."""
    return tuple(mask for mask in loss.masks or () if mask != "item")


def with_bias(items: EncodedItems) -> torch.Tensor:
    """(c, D + 1) the candidates' vectors with their bias, 0 without."""
    bias = torch.zeros(len(items.vector)) if items.bias is None else items.bias
    return torch.cat([items.vector, bias[:, None]], dim=1)


def detached(items: EncodedItems) -> EncodedItems:
    """The same numbers without the graph that made them, which would keep a step's leaves alive."""
    embedding, bias = (None if numbers is None else numbers.detach() for numbers in (items.embedding, items.bias))
    return EncodedItems(embedding, items.vector.detach(), bias)


def part(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The entries whose name begins with `prefix`, without it."""
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def has_fast_bfloat16() -> bool:
    """Has this processor instructions for bfloat16 matrix products? Without them they are slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _memory(config: Config, corpus_size: int) -> VectorMemory | None:
    negatives = config.negatives
    if not negatives.queue_batches and not negatives.cached:
        return None
    return VectorMemory(
        corpus_size=corpus_size,
        dim=config.model.hidden[-1] + 1,
        queue_size=negatives.queue_batches * negatives.batch_size,
        caches=negatives.cached > 0,
    )


def _stream(settings: FrequencySettings, corpus_size: int, seed: int) -> StreamingFrequency | None:
    if settings.kind == "exact":
        return None
    buckets = settings.buckets or _BUCKETS_PER_ITEM * corpus_size
    return StreamingFrequency(
        StreamingSettings(
            rate=settings.rate,
            buckets=-(-buckets // settings.hashes) * settings.hashes,
            hashes=settings.hashes,
            warm_start=settings.warm_start,
            stale_after=settings.stale_after,
            seed=seed,
        )
    )
