"""Settings: strict on the way in, equal after a round trip, overridden by key."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortlist.config import config_from_tree, config_tree, dump_config, for_log, load_config
from shortlist.errors import ConfigError
from shortlist.sections import SMALL_LOG, Config, FeatureSettings, feature_settings

FILE = """
[data]
events = "events.parquet"
items = "/somewhere/items-*.parquet"

[columns]
item = "item_id"
user = "user_id"
time = "at"

[item.features]
item_id = "id"
title = { kind = "text", buckets = 1000 }

[query.features]
history = { kind = "items", last = 20 }
"events.weekday" = "category"

[model]
hidden = [32, 8]
"""


def written(folder: Path, text: str = FILE) -> Path:
    path = folder / "shortlist.toml"
    path.write_text(text, encoding="utf-8")
    return path


def tree(**sections: dict[str, Any]) -> dict[str, Any]:
    """The least settings that hold together, with single keys changed."""
    least: dict[str, dict[str, Any]] = {"data": {"events": "e"}, "columns": {"item": "i", "user": "u", "time": "t"}}
    return {**least, **{name: {**least.get(name, {}), **values} for name, values in sections.items()}}


# --- what a file says


def test_a_file_is_read_into_its_sections(tmp_path: Path) -> None:
    config = load_config(written(tmp_path))
    assert config.columns.item == "item_id"
    assert config.model.hidden == (32, 8)
    assert config.negatives.batch_size == 1024  # absent: the default


def test_table_paths_are_taken_from_the_files_own_folder(tmp_path: Path) -> None:
    config = load_config(written(tmp_path))
    assert config.data.events == str(tmp_path / "events.parquet")
    assert config.data.items == "/somewhere/items-*.parquet"
    assert config.data.users is None
    config = load_config(written(tmp_path), ["evaluate.next_events=next/*.parquet", "evaluate.next_items=/else/items.csv"])
    assert config.evaluate.next_events == str(tmp_path / "next" / "*.parquet")
    assert config.evaluate.next_items == "/else/items.csv"


def test_a_feature_is_a_bare_kind_or_a_table(tmp_path: Path) -> None:
    config = load_config(written(tmp_path))
    assert feature_settings(config.item) == {"item_id": FeatureSettings(kind="id"), "title": FeatureSettings(kind="text", buckets=1000)}
    assert feature_settings(config.query)["history"].last == 20
    assert list(feature_settings(config.query)) == ["history", "events.weekday"]


def test_dates_are_read_as_dates_and_as_text() -> None:
    wanted = date(2024, 5, 31)
    assert config_from_tree(tree(evaluate={"last_day": wanted})).evaluate.last_day == wanted
    assert config_from_tree(tree(evaluate={"last_day": "2024-05-31"})).evaluate.last_day == wanted


def test_settings_do_not_change_after_load() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        config_from_tree(tree()).train.epochs = 3  # type: ignore[misc]


# --- round trip


def test_dumped_settings_load_back_equal(tmp_path: Path) -> None:
    config = load_config(written(tmp_path), ["evaluate.last_day=2024-05-31", "train.table_learning_rate=0.125"])
    assert load_config(written(tmp_path, dump_config(config))) == config
    assert config_from_tree(config_tree(config)) == config


@given(
    rate=st.floats(1e-6, 10.0),
    hidden=st.lists(st.integers(1, 4096), min_size=1, max_size=4),
    seed=st.integers(0, 2**40),
    name=st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1),
)
def test_any_settings_survive_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, rate: float, hidden: list[int], seed: int, name: str
) -> None:
    sections: dict[str, dict[str, Any]] = {
        "train": {"learning_rate": rate, "seed": seed},
        "model": {"hidden": hidden},
        "columns": {"item": name},
    }
    config = config_from_tree(tree(**sections, item={"features": {name: "id"}}))
    loaded = load_config(written(tmp_path_factory.getbasetemp(), dump_config(config)))
    assert msgspec.structs.replace(loaded, data=config.data) == config  # relative paths become absolute


# --- unknown keys and wrong types


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"trian": {"epochs": 1}}, r"unknown key trian \(did you mean 'train'\?\)"),
        ({"train": {"epoch": 1}}, r"unknown key train\.epoch \(did you mean 'epochs'\?\)"),
        ({"model": {"temprature": 0.1}}, r"unknown key model\.temprature \(did you mean 'temperature'\?\)"),
        ({"item": {"feature": {}}}, r"unknown key item\.feature \(did you mean 'features'\?\)"),
        (
            {"item": {"features": {"title": {"kind": "text", "bucket": 3}}}},
            r"unknown key item\.features\.title\.bucket \(did you mean 'buckets'\?\); known here: kind, column, dim",
        ),
    ],
)
def test_an_unknown_key_names_the_nearest(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_tree(tree(**sections))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"train": {"epochs": "ten"}}, r"Expected `int \| null`, got `str` - at `\$\.train\.epochs`"),
        ({"train": {"epochs": 1.5}}, r"Expected `int \| null`, got `float` - at `\$\.train\.epochs`"),
        ({"train": {"epochs": True}}, r"Expected `int \| null`, got `bool` - at `\$\.train\.epochs`"),
        ({"model": {"hidden": [8, "x"]}}, r"Expected `int`, got `str` - at `\$\.model\.hidden\[1\]`"),
        ({"model": {"item_bias": 1}}, r"Expected `bool`, got `int` - at `\$\.model\.item_bias`"),
        ({"evaluate": {"protocol": "rollin"}}, r"Invalid enum value 'rollin' - at `\$\.evaluate\.protocol`"),
        ({"columns": {"item": None}}, r"Expected `str`, got `null` - at `\$\.columns\.item`"),
        ({"item": {"features": {"title": 3}}}, r"Expected `.*`, got `int` - at `\$\.item\.features"),
    ],
)
def test_a_wrong_type_names_its_place(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_tree(tree(**sections))


def test_a_missing_section_and_a_missing_role_are_named() -> None:
    with pytest.raises(ConfigError, match="missing required field `columns`"):
        config_from_tree({"data": {"events": "e"}})
    with pytest.raises(ConfigError, match=r"missing required field `item` - at `\$\.columns`"):
        config_from_tree({"data": {"events": "e"}, "columns": {"user": "u"}})


def test_an_unknown_feature_kind_names_the_nearest_and_all() -> None:
    with pytest.raises(
        ConfigError, match=r"feature 'tags': unknown kind 'categorys' \(did you mean 'categor.*'\?\); kinds are id, category"
    ):
        config_from_tree(tree(item={"features": {"tags": "categorys"}}))


def test_a_missing_file_and_broken_toml_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no settings file at .*absent\.toml"):
        load_config(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match=r"must be TOML: .*line 2"):
        load_config(written(tmp_path, "[data]\nevents = \n"))


# --- overrides


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("train.epochs=3", "train", "epochs", 3),
        ("train.learning_rate=0.5", "train", "learning_rate", 0.5),
        ("train.learning_rate=1", "train", "learning_rate", 1.0),
        ("columns.user=customer", "columns", "user", "customer"),
        ('columns.user="1"', "columns", "user", "1"),
        ("columns.user=a=b", "columns", "user", "a=b"),
        ("model.hidden=[16, 4]", "model", "hidden", (16, 4)),
        ("model.item_bias=false", "model", "item_bias", False),
        ("evaluate.last_day=2024-05-31", "evaluate", "last_day", date(2024, 5, 31)),
        ("negatives.replacement=true", "negatives", "replacement", True),  # a section the file does not have
    ],
)
def test_an_override_is_read_as_toml_or_else_as_a_word(tmp_path: Path, override: str, section: str, key: str, value: object) -> None:
    changed = load_config(written(tmp_path), [override])
    assert getattr(getattr(changed, section), key) == value
    assert type(getattr(getattr(changed, section), key)) is type(value)


def test_an_override_reaches_into_features(tmp_path: Path) -> None:
    overrides = ["query.features.history.last=5", "item.features.title.kind=category", "item.features.price=number"]
    config = load_config(written(tmp_path), overrides)
    assert feature_settings(config.query)["history"].last == 5
    assert feature_settings(config.item)["title"].kind == "category"
    assert feature_settings(config.item)["price"].kind == "number"


def test_later_overrides_win(tmp_path: Path) -> None:
    assert load_config(written(tmp_path), ["train.epochs=3", "train.epochs=4"]).train.epochs == 4


@pytest.mark.parametrize("override", ["epochs=3", "train.epochs", "train..epochs=3", ".epochs=3", "=3"])
def test_an_override_without_section_key_and_value_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=rf"must read section\.key=value: got '{override}'"):
        load_config(written(tmp_path), [override])


def test_an_override_below_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'item_id' is a value, not a section"):
        load_config(written(tmp_path), ["item.features.item_id.kind=category"])


def test_an_override_of_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key train\.epoch .*'epochs'"):
        load_config(written(tmp_path), ["train.epoch=3"])


# --- contradictions


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"temperature": 0.0}}, r"model\.temperature must be above 0: got 0\.0"),
        ({"model": {"temperature": 2.0}}, r"must lie within model\.temperature_bounds: got 2\.0 for \[0\.02, 1\.0\]"),
        ({"model": {"temperature": 0.1, "temperature_bounds": [0.2, 0.05]}}, r"got 0\.1 for \[0\.2, 0\.05\]"),
        ({"model": {"temperature": float("nan")}}, r"model\.temperature must be above 0: got nan"),
        ({"model": {"hidden": []}}, r"model\.hidden needs one or more positive widths: got \[\]"),
        ({"model": {"hidden": [8, 0]}}, r"got \[8, 0\]"),
        ({"model": {"embedding_dim": 0}}, r"model\.embedding_dim must be positive: got 0"),
        ({"model": {"id_dropout": 1.0}}, r"model\.id_dropout is a share in \[0, 1\): got 1\.0"),
        ({"model": {"history_dropout": -0.1}}, r"model\.history_dropout is a share in \[0, 1\): got -0\.1"),
        ({"negatives": {"batch_size": 0}}, r"negatives\.batch_size must be at least 1: got 0"),
        ({"negatives": {"index_batch_size": -1}}, r"negatives\.index_batch_size must not be negative: got -1"),
        ({"negatives": {"batch_size": 1, "index_batch_size": 0}}, "a softmax needs a negative"),
        (
            {"item": {"features": {"item_id": {"kind": "id", "min_count": 2}}}},
            r"item\.features\.item_id: an id stands once in the items table, so min_count = 2 would make all unknown; take it out",
        ),
        ({"train": {"epochs": 0}}, r"train\.epochs must be at least 1: got 0"),
        ({"train": {"learning_rate": 0.0}}, r"train\.learning_rate must be above 0: got 0\.0"),
        ({"train": {"validation_fraction": 1.0}}, r"train\.validation_fraction is a share in \[0, 1\): got 1\.0"),
        ({"evaluate": {"holdout_fraction": 0.0}}, r"evaluate\.holdout_fraction is a share in \(0, 1\): got 0\.0"),
        ({"evaluate": {"ks": []}}, r"evaluate\.ks needs one or more positive cut-offs: got \[\]"),
        ({"evaluate": {"ks": [10, 0]}}, r"got \[10, 0\]"),
        ({"evaluate": {"shifts": 0}}, r"evaluate\.train_days, test_days and shifts must be at least 1"),
        ({"columns": {"time": None}}, r'evaluate\.protocol = "rolling" needs times: name \[columns\] time, or set protocol = "holdout"'),
        ({"columns": {"user": None}, "evaluate": {"protocol": "leave_last"}}, r"holds out each user's last event: name \[columns\] user"),
        (
            {"columns": {"user": None}, "evaluate": {"protocol": "holdout", "holdout": "users"}},
            r'"users" holds out users: name \[columns\] user',
        ),
        (
            {"evaluate": {"seen_items": "exclude", "repeats": "apart"}},
            r'no list that could hold a repeat: got repeats = "apart"; set "drop"',
        ),
        ({"evaluate": {"seen_items": "exclude", "repeats": "keep"}}, r'got repeats = "keep"'),
        ({"evaluate": {"protocol": "release"}}, r"what the next snapshot added: name evaluate\.next_events"),
        ({"item": {"features": {"history": "items"}}}, r"item\.features\.history is of kind 'items', which only queries have"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_tree(tree(**sections))


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"negatives": {"batch_size": 1, "index_batch_size": 1}},
        {"negatives": {"batch_size": 2, "index_batch_size": 0}},
        {"columns": {"time": None, "user": None}, "evaluate": {"protocol": "holdout"}},
        {"model": {"temperature": 0.02, "id_dropout": 0.0}},
        {"query": {"features": {"seed": "item", "history": "items"}}},
        {"evaluate": {"seen_items": "exclude", "repeats": "drop"}},
        {"columns": {"time": None}, "evaluate": {"protocol": "release", "next_events": "n"}},
    ],
)
def test_settings_at_the_edge_are_accepted(sections: dict[str, Any]) -> None:
    assert isinstance(config_from_tree(tree(**sections)), Config)


def test_a_log_without_times_is_tested_by_holdout_unless_a_protocol_is_named() -> None:
    timeless = {"data": {"events": "e.parquet"}, "columns": {"item": "item", "user": "user"}}
    assert config_from_tree(timeless).evaluate.protocol == "holdout"
    with pytest.raises(ConfigError, match="needs times"):
        config_from_tree({**timeless, "evaluate": {"protocol": "rolling"}})


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"kind": "hnsw"}, r"Invalid enum value 'hnsw' - at `\$\.index\.kind`"),
        ({"target_recall": 1.0}, r"index\.target_recall is a share in \(0, 1\): got 1\.0"),
        ({"target_recall": 0.0}, r"index\.target_recall is a share in \(0, 1\): got 0\.0"),
        ({"target_k": 0}, r"index\.target_k, leaves, searched, rescored and build_threads must be at least 1"),
        ({"build_threads": 0}, r"build_threads must be at least 1"),
        ({"kind": "scann", "leaves": 0}, r"leaves, .* must be at least 1"),
        ({"kind": "int8", "leaves": 10}, r'for kind "scann" or "faiss": got kind = "int8"'),
        ({"leaves": 10}, r'for kind "scann" or "faiss": got kind = "auto"'),
        ({"kind": "faiss", "searched": 10}, r"set both, or neither"),
        ({"kind": "faiss", "searched": 10, "rescored": 99}, r"index\.rescored must be at least index\.target_k: got 99 for 100"),
        ({"seed": -1}, r"index\.seed must lie in"),
    ],
)
def test_index_settings_that_contradict_themselves_are_refused(index: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_tree(tree(index=index))


def test_index_settings_that_fit_are_kept() -> None:
    settings = {"kind": "scann", "leaves": 10, "searched": 3, "rescored": 100, "target_recall": 0.9, "build_threads": 2, "seed": 5}
    config = config_from_tree(tree(index=settings))
    assert (config.index.kind, config.index.leaves, config.index.rescored, config.index.target_k) == ("scann", 10, 100, 100)


def test_what_depends_on_the_size_of_the_log_is_set_where_it_is_absent() -> None:
    log = {"data": {"events": "e"}, "columns": {"item": "i", "user": "u", "time": "t"}}
    config = config_from_tree(log)
    small, large = for_log(config, SMALL_LOG), for_log(config, SMALL_LOG + 1)
    assert (small.model.temperature, small.model.history_dropout, small.train.both_ways_within) == (0.25, 0.0, 1800.0)
    assert (large.model.temperature, large.model.history_dropout, large.train.both_ways_within) == (0.1, 0.3, 0.0)
    assert for_log(small, SMALL_LOG + 1) == small  # what is set stays
    without_users = config_from_tree({"data": {"events": "e"}, "columns": {"item": "i", "seed": "s"}})
    assert for_log(without_users, 7).train.both_ways_within == 0.0
    narrow = config_from_tree({**log, "model": {"temperature_bounds": [0.02, 0.2]}})
    assert for_log(narrow, 7).model.temperature == 0.2


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"item": "i", "seed": "s"}, "name .columns. user and time"),
        ({"item": "i", "user": "u", "time": "t", "history": "h"}, "got .columns. seed or history"),
    ],
)
def test_a_log_without_derived_histories_cannot_be_read_both_ways(columns: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config_from_tree({"data": {"events": "e"}, "columns": columns, "train": {"both_ways_within": 60.0}})
