"""What a sweep goes over: read from text, refused with a reason before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_project import small_config

from shortlist.config import overridden
from shortlist.errors import ConfigError
from shortlist.sections import Config
from shortlist.study.space import Choices, Range, read_space


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder: Path = tmp_path_factory.mktemp("space")
    return small_config(folder)


@pytest.mark.parametrize(
    ("over", "values"),
    [
        ("model.temperature=.05..0.3:log", Range(0.05, 0.3, False, True)),
        ("model.temperature=0.05..1", Range(0.05, 1.0, False, False)),
        ("train.learning_rate=1e-3..1e-1:log", Range(0.001, 0.1, False, True)),
        ("negatives.index_batch_size=8..64:log", Range(8, 64, True, True)),
        ("model.hidden=[512, 128],[256]", Choices(("[512, 128]", "[256]"))),
        ("model.history_pooling=mean,recency", Choices(("mean", "recency"))),
        ("model.item_bias=true,false", Choices(("true", "false"))),
        ("item.features.title.buckets=61,1009", Choices(("61", "1009"))),
    ],
)
def test_ranges_and_choices_are_read(over: str, values: Range | Choices, config: Config) -> None:
    assert read_space([over], config) == {over.partition("=")[0]: values}


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ("model.temperature", "must read section.key=low..high"),
        ("temperature=0.1..1", "must read section.key=low..high"),
        ("model.temperature=0.3..0.1", "below the upper: got 0.3 and 0.1"),
        ("model.id_dropout=0..0.5:log", "above 0: got 0; take :log away"),
        ("model.hidden=[512, 128]", r"two values or more, each once: got \[512, 128\]"),
        ("model.id_dropout=0.1,0.1", "two values or more"),
        ("model.tempratur=0.1..1", "did you mean 'temperature'"),
        ("model.item_bias=0.1..1", "no value goes with the settings"),
        ("evaluate.ks=[10],[100]", "may not change what is judged, by what, or by luck: got evaluate.ks"),
        ("data.events=a,b", "may not change what is judged"),
        ("columns.ties=hidden,in_order", "may not change what is judged"),
        ("train.seed=0..9", "by luck: got train.seed"),
    ],
)
def test_what_cannot_be_swept_is_refused(over: str, said: str, config: Config) -> None:
    with pytest.raises(ConfigError, match=said):
        read_space([over], config)


def test_a_setting_named_twice_or_none_at_all_is_refused(config: Config) -> None:
    with pytest.raises(ConfigError, match=r"once: got model\.temperature twice"):
        read_space(["model.temperature=0.1..1", "model.temperature=0.1,0.2"], config)
    with pytest.raises(ConfigError, match="must go over a setting: got none"):
        read_space([], config)


def test_a_value_that_needs_another_setting_may_stand_in_the_space(config: Config) -> None:
    over = "negatives.kind=sampled,mixed"  # sampled alone contradicts the loss design
    with pytest.raises(ConfigError, match="distinct items"):
        overridden(config, ["negatives.kind=sampled"])
    assert read_space([over, "loss.design=inclusion,expected_count"], config)["negatives.kind"] == Choices(("sampled", "mixed"))


def test_overrides_of_read_settings_leave_the_rest_alone(config: Config) -> None:
    found = overridden(config, ["model.temperature=0.25", "item.features.price.buckets=9"])
    assert found.model.temperature == 0.25 and found.data == config.data and found.train == config.train
    assert overridden(config, []) == config
