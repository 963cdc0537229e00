"""TensorFlow Recommenders on a project of ours: it is given our encoded features, and gives back vectors after every epoch.

Item: all its features. Query: the seed's id, the ids of the history under equal weights, features of user and context. The towers are
[512, 128] on what is looked up; each role has a table of its own.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["TF_USE_LEGACY_KERAS"] = "1"  # what this library asks for

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

BATCH, INDEX_BATCH, DIM, HIDDEN, TEMPERATURE = 1024, 1024, 64, (512, 128), 0.1
LEARNING_RATE, ADAGRAD_START = 0.1, 1e-4
_BLOCK = 4096


class Looked(tf.keras.layers.Layer):
    """The features of one table, looked up by row and laid side by side."""

    def __init__(self, arrays: dict[str, np.ndarray], prefix: str) -> None:
        super().__init__()
        self.features, self.made = {}, {}
        for key in [key for key in arrays if key.startswith(prefix)]:
            feature, shape, part = key[len(prefix) :].rsplit(".", 2)
            self.features.setdefault((feature, shape), {})[part] = arrays[key]
        for (feature, shape), parts in self.features.items():
            if shape != "dense":
                start = tf.keras.initializers.RandomNormal(stddev=DIM**-0.5)
                rows = int(arrays[f"rows.{prefix}{feature}"])
                self.made[feature] = self.add_weight(name=f"table_{len(self.made)}", shape=(rows, DIM), initializer=start)
            if shape == "bag":
                parts["values"] = tf.RaggedTensor.from_row_splits(tf.constant(parts["values"]), tf.constant(parts["offsets"]))
                parts["weights"] = tf.RaggedTensor.from_row_splits(tf.constant(parts["weights"]), tf.constant(parts["offsets"]))
            else:
                parts["values"] = tf.constant(parts["values"])

    def call(self, rows: tf.Tensor) -> list[tf.Tensor]:
        found = []
        for (feature, shape), parts in self.features.items():
            values = tf.gather(parts["values"], rows)
            if shape == "dense":
                found.append(values)
            elif shape == "ids":
                found.append(tf.gather(self.made[feature], values))
            else:
                weights = tf.gather(parts["weights"], rows).flat_values
                looked = tf.gather(self.made[feature], values.flat_values) * weights[:, None]
                found.append(tf.math.unsorted_segment_sum(looked, values.value_rowids(), tf.shape(rows)[0]))
        return found


def tower() -> tf.keras.Sequential:
    return tf.keras.Sequential([tf.keras.layers.Dense(width, "relu") for width in HIDDEN[:-1]] + [tf.keras.layers.Dense(HIDDEN[-1])])


class Model(tfrs.Model):
    """Both towers and the retrieval task."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.items, self.users = Looked(arrays, "item."), Looked(arrays, "user.")
        self.item_mlp, self.query_mlp = tower(), tower()
        corpus, self.last = int(arrays["corpus"]), int(arrays["history_last"])
        start = tf.keras.initializers.RandomNormal(stddev=DIM**-0.5)
        self.seeds = tf.keras.layers.Embedding(corpus + 1, DIM, embeddings_initializer=start)
        self.past = tf.keras.layers.Embedding(corpus + 1, DIM, embeddings_initializer=start)
        mean = tf.keras.losses.CategoricalCrossentropy(from_logits=True, reduction=tf.keras.losses.Reduction.SUM_OVER_BATCH_SIZE)
        self.task = tfrs.tasks.Retrieval(loss=mean, temperature=TEMPERATURE, remove_accidental_hits=True)

    def query(self, inputs: dict[str, tf.Tensor], context: Looked) -> tf.Tensor:
        pieces = [self.seeds(inputs["seed"]), *self.users(inputs["user"]), *context(inputs["row"])]
        if self.last:
            present = tf.cast(inputs["history"] > 0, tf.float32)[:, :, None]  # 0 = none
            pieces.append(tf.reduce_sum(self.past(inputs["history"]) * present, axis=1) / tf.maximum(tf.reduce_sum(present, axis=1), 1.0))
        return tf.math.l2_normalize(self.query_mlp(tf.concat(pieces, axis=1)), axis=1)

    def item(self, rows: tf.Tensor) -> tf.Tensor:
        return tf.math.l2_normalize(self.item_mlp(tf.concat(self.items(rows), axis=1)), axis=1)

    def compute_loss(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        queries, candidates = self.query(inputs, self.train_context), self.item(inputs["item"])
        return self.task(
            queries,
            candidates,
            sample_weight=inputs["weight"],
            candidate_sampling_probability=inputs["expected_count"],
            candidate_ids=inputs["item"],
            compute_metrics=False,
        )


def batch_of(arrays: dict[str, np.ndarray], part: str, rows: np.ndarray, last: int) -> dict[str, tf.Tensor]:
    """What the query tower asks for; item rows are raised by 1, so that 0 is none."""
    batch = {"seed": arrays[f"{part}.seed"][rows] + 1, "user": arrays[f"{part}.user"][rows], "row": rows.astype(np.int64)}
    if last:
        places = arrays[f"{part}.end"][rows][:, None] - 1 - np.arange(last)
        inside = places >= arrays[f"{part}.start"][rows][:, None]
        batch["history"] = np.where(inside, arrays[f"{part}.past"][np.where(inside, places, 0)] + 1, 0)
    return {name: tf.constant(value) for name, value in batch.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("arrays", type=Path)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    answers, sys.stdout = sys.stdout, sys.stderr
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    with np.load(options.arrays) as file:
        arrays = {name: file[name] for name in file.files}
    model, corpus, last = Model(arrays), int(arrays["corpus"]), int(arrays["history_last"])
    model.train_context, test_context = Looked(arrays, "train.context."), Looked(arrays, "test.context.")
    test_context.made = model.train_context.made  # one table for both
    model.compile(tf.keras.optimizers.Adagrad(LEARNING_RATE, initial_accumulator_value=ADAGRAD_START, epsilon=1e-12))
    train_step = tf.function(model.train_step, reduce_retracing=True)
    item, weight = arrays["train.item"].astype(np.int64), arrays["train.weight"]
    drawn = min(INDEX_BATCH, corpus)
    expected = ((BATCH - 1) * np.bincount(item, minlength=corpus) / len(item) + drawn / corpus).astype(np.float32)
    rng, seconds = np.random.default_rng(0), 0.0
    size = min(BATCH, len(item))
    for epoch in range(options.epochs):
        started, order = time.perf_counter(), rng.permutation(len(item))
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            candidates = np.concatenate([item[rows], rng.choice(corpus, drawn, replace=False)])
            batch = batch_of(arrays, "train", rows, last)
            batch |= {
                "item": tf.constant(candidates),
                "expected_count": tf.constant(expected[candidates]),
                "weight": tf.constant(weight[rows]),
            }
            train_step(batch)
        seconds += time.perf_counter() - started
        count = len(arrays["test.item"])
        blocks = [np.arange(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK)]
        queries = np.concatenate([model.query(batch_of(arrays, "test", rows, last), test_context).numpy() for rows in blocks])
        items = np.concatenate([model.item(tf.range(start, min(start + _BLOCK, corpus))).numpy() for start in range(0, corpus, _BLOCK)])
        vectors = options.arrays.parent / "tfrs_vectors.npz"
        np.savez(vectors, queries=queries, items=items)
        print(json.dumps({"epoch": epoch + 1, "seconds": seconds, "vectors": str(vectors)}), file=answers, flush=True)
        sys.stdin.readline()  # the vectors are read before the next epoch writes over them


if __name__ == "__main__":
    main()
