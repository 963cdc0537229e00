"""A published bundle answers as the trained model does, and its features are those of training to the bit."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from small_project import silent, small_config, small_project, write_tables

from shortlist.bundle import Bundle, open_bundle, open_current
from shortlist.catalogue import read_catalogue
from shortlist.checkpoint import load_tensors, save_tensors
from shortlist.dataset import Dataset, make_dataset
from shortlist.encode import Corpus, codes_for, encode_corpus, encode_queries
from shortlist.errors import BundleError, ConfigError, DataError
from shortlist.export import asked_vectors, publish_run
from shortlist.features.arrays import flat_arrays
from shortlist.index import proposing
from shortlist.manifest import verify_version
from shortlist.project import Project, open_project
from shortlist.protocols.configured import splits
from shortlist.queries import Queries
from shortlist.run import MODEL_FILE, Run, open_run, split_validation, train_run
from shortlist.sections import IndexSettings
from shortlist.store import versions


@dataclass
class World:
    project: Project
    dataset: Dataset
    run: Run
    bundle: Bundle
    store: Path


MODELS: dict[str, dict[str, Any]] = {
    "item bias": {},
    "no item bias": {"item_bias": False},
    "few directions for many words": {"match_dim": 6},
    "attention and cross layers": {"history_pooling": "attention", "cross_layers": 2, "cross_rank": 3},
    "a table for an item tower": {"item_tower": "table", "history_pooling": "mean", "linear_path": False},
}


@pytest.fixture(scope="module", params=MODELS.values(), ids=list(MODELS))
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("bundle")
    project = small_project(folder, {"model": {"embedding_dim": 8, "hidden": [19, 11], **request.param}, "train": {"epochs": 2}})
    dataset = make_dataset(project, project.log)
    run = train_run(project, project.log, folder / "run", dataset=dataset, log_to=silent)
    publish_run(run, folder / "store")
    return World(project, dataset, run, open_current(folder / "store"), folder / "store")


def corpus_of(world: World) -> Corpus:
    """The dataset's items by the trained towers."""
    codes = codes_for(world.run.model, world.dataset)
    return encode_corpus(world.run.model, world.run.tables, world.dataset.item_features, codes=codes)


def questions_of(project: Project, queries: Queries) -> pl.DataFrame:
    """The same queries as a user would ask them: ids, not rows."""
    ids = project.items.ids
    frame = project.log.frame
    history = [[ids[int(row)] for row in queries.history(i)] for i in range(len(queries))]
    seed = [ids[int(row)] if row >= 0 else None for row in queries.seed_row]
    return pl.DataFrame(
        {
            "user": frame["user"],
            "seed": pl.Series(seed, dtype=pl.String),
            "history": pl.Series(history, dtype=pl.List(pl.String)),
            "weekday": frame["weekday"],
        }
    )


def test_training_bulk_and_single_requests_have_the_same_feature_bits(world: World) -> None:
    trained = world.dataset.train.queries
    questions = questions_of(world.project, trained)
    bulk = world.bundle.query_encoder.encode(questions, world.bundle.items, world.bundle.users)
    assert np.array_equal(bulk.seed_row, trained.seed_row)
    assert np.array_equal(bulk.user_row, trained.user_row)
    assert np.array_equal(bulk.newest_first(7), trained.newest_first(7))
    for name, column in flat_arrays(trained.context).items():
        assert column.tobytes() == flat_arrays(bulk.context)[name].tobytes()
    for row in range(0, len(trained), 37):
        alone = world.bundle.query_encoder.encode(questions[row : row + 1], world.bundle.items, world.bundle.users)
        assert alone.seed_row[0] == trained.seed_row[row] and alone.user_row[0] == trained.user_row[row]
        assert np.array_equal(alone.newest_first(7)[0], trained.newest_first(7)[row])
        for name, column in alone.context.items():
            expected = trained.context[name].take(np.array([row]))
            assert {part: array.tobytes() for part, array in column.arrays().items()} == {
                part: array.tobytes() for part, array in expected.arrays().items()
            }


def test_item_features_have_the_same_bits_in_training_in_the_bundle_and_alone(world: World) -> None:
    trained = flat_arrays(world.dataset.item_features)
    published = flat_arrays(world.bundle.item_encoder.encode(world.bundle.items.frame))
    assert {name: array.tobytes() for name, array in trained.items()} == {name: array.tobytes() for name, array in published.items()}
    for row in range(0, len(world.bundle.items), 11):
        alone = world.bundle.item_encoder.encode(world.bundle.items.frame[row : row + 1])
        for name, column in alone.items():
            expected = world.dataset.item_features[name].take(np.array([row]))
            assert {part: array.tobytes() for part, array in column.arrays().items()} == {
                part: array.tobytes() for part, array in expected.arrays().items()
            }
    users = flat_arrays(world.dataset.user_features)
    assert {name: array.tobytes() for name, array in users.items()} == {
        name: array.tobytes() for name, array in flat_arrays(world.bundle.user_features).items()
    }


def test_the_published_towers_equal_the_trained_ones(world: World) -> None:
    corpus = corpus_of(world)
    assert np.array_equal(world.bundle.vectors, corpus.vector)
    embedding, vector = world.bundle.encode_items(world.bundle.items.frame)
    np.testing.assert_allclose(embedding, corpus.embedding, atol=2e-6)
    np.testing.assert_allclose(vector, corpus.vector, atol=2e-6)
    queries = world.dataset.train.queries
    trained = encode_queries(
        world.run.model, world.run.tables, queries, user_features=world.dataset.user_features, embedding=corpus.embedding
    )
    np.testing.assert_allclose(world.bundle.encode_queries(queries), trained, atol=2e-6)
    alone = np.concatenate([world.bundle.encode_queries(queries.take(np.array([row]))) for row in range(23)])
    np.testing.assert_allclose(alone, trained[:23], atol=2e-6)


def test_items_match_by_their_words_where_the_model_says_so(world: World) -> None:
    """A published bundle has the codes, an unknown item too; what a query shows meets them behind the bias."""
    match = world.run.config.model.match_dim
    content = world.bundle.item_encoder.content
    assert world.bundle.embeddings.shape[1] == 11 + (content.width + 1 if content is not None else 0)
    assert (content is None) is (match == 0)
    if content is None:
        return
    assert content.width == (match if match == 6 else len(content.words))
    new = world.bundle.items.frame[:1].with_columns(pl.lit("never seen").alias(world.bundle.items.id_column))
    embedding, vector = world.bundle.encode_items(new)
    np.testing.assert_allclose(embedding[0, 11:-1], world.bundle.embeddings[0, 11:-1], atol=1e-6)
    np.testing.assert_array_equal(world.bundle.embeddings[:, -1], world.bundle.vectors[:, 11])  # how popular a query is shown it to be
    assert embedding[0, -1] == vector[0, 11]
    counts = world.bundle.tables["item/item_id#match"]
    np.testing.assert_allclose(vector[0, 12:], counts[1] * embedding[0, 11:-1], atol=1e-6)  # as one of the unknown
    assert len(set(counts[:, 0].tolist())) == 2 and counts.any()


def test_words_and_settings_that_do_not_fit_are_refused(world: World, tmp_path: Path) -> None:
    """Words without a use for them, and a use without words."""
    match = world.run.config.model.match_dim
    folder = shutil.copytree(world.run.folder, tmp_path / "run")
    path = folder / "config.toml"
    text = path.read_text(encoding="utf-8")
    assert f"match_dim = {match}\n" in text
    path.write_text(text.replace(f"match_dim = {match}\n", f"match_dim = {0 if match else 8}\n"), encoding="utf-8")
    with pytest.raises((BundleError, ConfigError), match="match_dim"):
        open_run(folder)


def test_a_run_of_an_older_program_is_refused_where_it_lacks_a_table(world: World, tmp_path: Path) -> None:
    folder = shutil.copytree(world.run.folder, tmp_path / "run")
    tensors = load_tensors(folder / MODEL_FILE)
    save_tensors(folder / MODEL_FILE, {name: value for name, value in tensors.items() if name != "table/query/#popularity"})
    if len(tensors) == len(load_tensors(folder / MODEL_FILE)):
        assert open_run(folder).config.model.match_dim == 0
    else:
        with pytest.raises(BundleError, match=r"older program: got no table 'query/#popularity'; train it again"):
            open_run(folder)


def test_items_that_share_no_word_are_trained_published_and_asked(tmp_path: Path) -> None:
    """Codes of no width: nothing matches, and nothing breaks."""
    write_tables(tmp_path)
    items = pl.read_parquet(tmp_path / "items.parquet")
    items.with_columns(pl.Series("title", [f"word{row}" for row in range(len(items))])).write_parquet(tmp_path / "items.parquet")
    features = {"item": {"features": {"item_id": "id", "title": "text"}}, "train": {"epochs": 1}}
    project = open_project(small_config(tmp_path, features))
    run = train_run(project, project.log, tmp_path / "run", log_to=silent)
    assert run.item_encoder.content is not None and run.item_encoder.content.width == 0
    bundle = open_bundle(publish_run(run, tmp_path / "store").folder)
    assert bundle.embeddings.shape[1] == 12 and bundle.vectors.shape[1] == 12
    np.testing.assert_allclose(bundle.encode_items(bundle.items.frame)[1], bundle.vectors, atol=2e-6)
    queries = make_dataset(project, project.log).train.queries
    vectors = bundle.encode_queries(queries)
    assert vectors.shape == (len(queries), 12) and np.isfinite(vectors).all()


def test_a_query_that_says_nothing_is_answered(world: World) -> None:
    empty = world.bundle.query_encoder.encode(pl.DataFrame({"user": [None]}), world.bundle.items, world.bundle.users)
    vector = world.bundle.encode_queries(empty)
    assert np.isfinite(vector).all() and np.isclose(np.linalg.norm(vector[0, :11]), 1, atol=1e-5)


def test_a_newer_catalogue_brings_new_items_and_drops_gone_ones(world: World, tmp_path: Path) -> None:
    items = world.project.items.frame
    gone, like = items["item_id"][3], items.row(8, named=True)
    newer = pl.concat([items.filter(pl.col("item_id") != gone), pl.DataFrame([{**like, "item_id": "new"}], schema=items.schema)])
    newer.write_parquet(tmp_path / "newer.parquet")
    published = publish_run(world.run, tmp_path / "store", items=str(tmp_path / "newer.parquet"))
    assert (published.items, published.new_items, published.gone_items) == (len(items), 1, 1)
    bundle = open_bundle(published.folder)
    assert bundle.items.row_of(gone) == -1
    _, vector = bundle.encode_items(newer.filter(pl.col("item_id") == "new"))
    assert np.allclose(bundle.vectors[bundle.items.row_of("new")], vector[0], atol=2e-6)
    old, kept = world.bundle, items["item_id"][20]
    assert np.allclose(bundle.vectors[bundle.items.row_of(kept)], old.vectors[old.items.row_of(kept)], atol=1e-6)


def test_every_file_of_a_bundle_is_checked_before_it_is_opened(world: World, tmp_path: Path) -> None:
    published = publish_run(world.run, tmp_path / "store").folder
    files = sorted(path for path in published.rglob("*") if path.is_file() and path.name != "manifest.json")
    assert len(files) > 15
    for path in files:
        content = path.read_bytes()
        damaged = content[: len(content) // 2] if len(content) > 1 else content + b"x"
        path.write_bytes(damaged)
        with pytest.raises(BundleError, match=path.name.replace(".", r"\.")):
            open_bundle(published)
        path.write_bytes(content)
    assert open_bundle(published).name == "v000001"


def test_no_file_of_a_bundle_is_a_pickle(world: World) -> None:
    suffixes = {path.suffix for path in world.store.rglob("v*/**/*") if path.is_file()}
    assert suffixes <= {".toml", ".json", ".safetensors", ".npy", ".parquet", ".onnx"}


@pytest.mark.parametrize("kind", ["exact", "int8", "scann", "faiss"])
def test_every_kind_of_index_is_published_opened_and_answers_alike(world: World, tmp_path: Path, kind: Any) -> None:
    config = msgspec.structs.replace(world.run.config, index=IndexSettings(kind=kind, target_k=7))
    bundle = open_bundle(publish_run(replace(world.run, config=config), tmp_path / "store").folder)
    assert bundle.index.kind == kind  # 53 items are compared one by one by every kind, so no library is needed
    asked = asked_vectors(world.run, world.run.items, corpus_of(world))
    assert len(asked) == 60
    for mine, expected in zip(bundle.index.search(asked, 10), world.bundle.index.search(asked, 10), strict=True):
        assert (mine == expected).all()


def test_the_manifest_tells_the_index_and_the_index_goes_by_the_manifest(world: World) -> None:
    folder = world.store / world.bundle.name
    assert verify_version(folder).facts["index"] == {"kind": "exact", "chosen": True, "exact": True}
    assert world.bundle.index.kind == "exact"


def test_an_approximate_index_without_enough_queries_is_not_published(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(proposing, "SMALLEST_CORPUS", 1)
    config = msgspec.structs.replace(world.run.config, index=IndexSettings(kind="faiss", leaves=3, target_k=7, build_threads=1))
    with pytest.raises(BundleError, match="at least 100 held-out queries: got 60"):
        publish_run(replace(world.run, config=config), tmp_path / "store")
    assert not (tmp_path / "store").exists() or versions(tmp_path / "store") == []


def test_the_queries_that_were_held_out_are_kept_and_follow_a_newer_catalogue(world: World) -> None:
    _, held_out = split_validation(world.dataset.train, world.run.config.train)
    assert world.run.asked is not None and len(world.run.asked) == len(held_out) == 60
    mine = [world.run.asked.history(number).tolist() for number in range(60)]
    assert mine == [held_out.queries.history(number).tolist() for number in range(60)]
    corpus = corpus_of(world)
    user_features = world.dataset.user_features
    expected = encode_queries(world.run.model, world.run.tables, held_out.queries, user_features=user_features, embedding=corpus.embedding)
    assert np.allclose(asked_vectors(world.run, world.run.items, corpus), expected, atol=1e-6)
    path = world.run.folder.parent / "without_one.parquet"
    world.run.items.frame[1:].write_parquet(path)  # every item is now a row higher
    newer = read_catalogue(str(path), world.run.items.id_column)
    vectors = asked_vectors(world.run, newer, Corpus(corpus.embedding[1:].copy(), corpus.vector[1:].copy()))
    untouched = [number for number in range(60) if 0 not in (held_out.queries.seed_row[number], *mine[number])]
    assert 10 < len(untouched) < 60 and np.allclose(vectors[untouched], expected[untouched], atol=1e-6)
    assert asked_vectors(replace(world.run, asked=None), world.run.items, corpus).shape == (0, corpus.vector.shape[1])


def test_publishing_twice_makes_two_versions(world: World, tmp_path: Path) -> None:
    for _ in range(2):
        publish_run(world.run, tmp_path / "store")
    assert versions(tmp_path / "store") == ["v000001", "v000002"]
    assert open_current(tmp_path / "store").name == "v000002"


def test_what_known_users_chose_is_published(world: World) -> None:
    assert world.bundle.histories is not None
    last = world.project.log.frame.filter(pl.col("user") == 5)["item"].to_list()
    assert world.bundle.histories.filter(pl.col("user") == 5)["history"].to_list() == [last]


def test_the_small_project_has_one_holdout_split(world: World) -> None:
    assert [split.name for split in splits(world.project.log, world.project.config)] == ["10% of rows"]


def test_a_catalogue_with_ids_of_another_type_is_refused_before_anything_is_live(world: World, tmp_path: Path) -> None:
    publish_run(world.run, tmp_path / "store")
    numbers = world.project.items.frame.with_columns(item_id=pl.int_range(len(world.project.items)))
    numbers.write_parquet(tmp_path / "numbers.parquet")
    with pytest.raises(DataError, match="Int64"):
        publish_run(world.run, tmp_path / "store", items=str(tmp_path / "numbers.parquet"))
    assert versions(tmp_path / "store") == ["v000001"]


def test_a_damaged_run_is_named(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.run.folder, tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").write_bytes(b"short")
    with pytest.raises(BundleError, match="damaged run"):
        open_run(tmp_path / "run")
