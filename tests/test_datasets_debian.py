"""The software store as tables: relations counted by hand, package lists read back, and apt played by small scripts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_fetch import put, quiet, said

from shortlist.config import load_config
from shortlist.datasets import apt, debian, fetch
from shortlist.datasets.debian import distinct_packages, event_table, item_table, related_names, source_of, tag_list
from shortlist.errors import FetchError
from shortlist.sections import feature_settings


def test_every_column_that_the_settings_name_is_in_the_tables(tmp_path: Path, fake_apt: Path) -> None:
    config = load_config(fetch.fetch_project("debian", tmp_path / "d", console=quiet()))
    items, events = (pl.read_parquet(tmp_path / "d" / f"{table}.parquet") for table in ("items", "events"))
    assert {settings.column or name for name, settings in feature_settings(config.item).items()} == set(items.columns)
    assert {config.columns.item, config.columns.seed} <= set(events.columns)
    assert (config.evaluate.protocol, config.evaluate.holdout, config.evaluate.holdout_fraction) == ("holdout", "pairs", 0.1)
    assert not (tmp_path / "d" / "users.parquet").exists()


PACKAGES = """\
Package: editor
Source: editor-suite (1.2-3)
Maintainer: "Doe, Jo" <jo@example.org>
Recommends: editor-doc, spell:any (>= 2) | speller, ghost
Suggests: spell, spell
Tag: role::program, use::{editing,viewing}
Installed-Size: 28591
Section: editors
Description: text editor
Description-md5: aa

Package: editor-doc
Source: editor-suite
Maintainer: Team <t@example.org>
Enhances: editor, editor-doc
Section: doc
Description: manual of the editor

Package: spell
Maintainer: Team <t@example.org>
Enhances: editor [amd64] <!nocheck>
Section: text
Description: spell checker
Description-md5: bb

Package: speller
Section: text
Description: another one
 Short text.
 .
 More.

Package: blob
Section: non-free/net
Suggests: editor

Package: spell
Section: text
Description: an older spell checker
"""
TRANSLATIONS = """\
Package: editor
Description-md5: aa
Description-en: text editor
 Edits text.
 .
 And views it:
  * indented
"""


def packages() -> dict[str, dict[str, str]]:
    return distinct_packages(apt.stanzas(PACKAGES.split("\n")))[0]


def test_pairs_are_kept_and_left_out_for_these_reasons() -> None:
    # editor:     editor-doc (one source), spell, speller, ghost (not in the store); suggests spell twice
    # editor-doc: enhances editor = (editor, editor-doc), one source; enhances itself
    # spell:      enhances editor = (editor, spell)
    events, counts = event_table(packages())
    assert events.rows() == [
        ("editor", "spell", "enhances"),
        ("editor", "spell", "recommends"),
        ("editor", "spell", "suggests"),
        ("editor", "speller", "recommends"),
    ]
    assert counts == {
        "recommends_kept": 2,
        "suggests_kept": 1,
        "enhances_kept": 1,
        "pairs_of_one_source_left_out": 2,
        "pairs_with_a_package_not_in_the_store_left_out": 1,
        "self_pairs_left_out": 1,
        "repeated_pairs_left_out": 1,
    }


def test_pairs_of_one_source_are_kept_on_demand_and_an_enhanced_package_is_the_seed() -> None:
    events, counts = event_table(packages(), keep_same_source=True)
    assert ("editor", "editor-doc", "enhances") in events.rows() and ("editor", "editor-doc", "recommends") in events.rows()
    assert events.height == 6 and "pairs_of_one_source_left_out" not in counts


def test_packages_of_other_areas_and_repeated_ones_are_counted() -> None:
    kept, counts = distinct_packages(apt.stanzas(PACKAGES.split("\n")))
    assert list(kept) == ["editor", "editor-doc", "spell", "speller"] and kept["spell"]["Description"] == "spell checker"
    assert counts == {"packages_of_other_areas_left_out": 1, "repeated_packages_left_out": 1}


def test_the_item_table_says_what_the_stanzas_say() -> None:
    descriptions = {"aa": "text editor\nEdits text.\n.\nAnd views it:\n * indented"}
    rows = {row["package"]: row for row in item_table(packages(), descriptions).to_dicts()}
    assert rows["editor"] == {
        "package": "editor",
        "section": "editors",
        "tags": ["role::program", "use::editing", "use::viewing"],
        "maintainer": "Doe, Jo",
        "source": "editor-suite",
        "summary": "text editor",
        "description": "Edits text.\n\nAnd views it:\n * indented",
        "installed_size": 28591,
    }
    assert rows["spell"] | {"section": "", "maintainer": ""} == {
        "package": "spell",
        "section": "",
        "tags": [],
        "maintainer": "",
        "source": "spell",
        "summary": "spell checker",
        "description": None,
        "installed_size": None,
    }
    assert rows["speller"]["description"] == "Short text.\n\nMore." and rows["speller"]["maintainer"] is None


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("", []),
        ("a1, b.c+d-e", ["a1", "b.c+d-e"]),
        ("fdisk | util-linux (<< 2.29.2-3~),\ngenisoimage", ["fdisk", "util-linux", "genisoimage"]),
        ("python3:any (>= 3.9), perl [!i386] <!stage1>, ", ["python3", "perl"]),
    ],
)
def test_a_relation_field_names_these_packages(field: str, names: list[str]) -> None:
    assert related_names(field) == names


def test_a_relation_without_a_name_is_refused() -> None:
    with pytest.raises(FetchError, match=r"must name a package; got '\(>= 1\)'"):
        related_names("a, (>= 1)")


def test_tags_and_sources_are_spelled_out() -> None:
    assert tag_list("uitoolkit::{sdl,gtk}, role::program,\nx::y") == ["role::program", "uitoolkit::gtk", "uitoolkit::sdl", "x::y"]
    assert source_of({"Package": "a", "Source": "b (1:2.3)"}) == "b" and source_of({"Package": "a"}) == "a"


WORD = st.text(st.sampled_from("abXYZ019:.#é-"), min_size=1, max_size=7)
FIELD = st.from_regex(re.compile(r"[A-Z][A-Za-z0-9-]{0,7}", re.ASCII), fullmatch=True)


@given(st.lists(st.dictionaries(FIELD, st.lists(WORD, min_size=1, max_size=3), min_size=1, max_size=5), max_size=5), st.integers(1, 3))
def test_what_is_written_as_stanzas_is_read_back(written: list[dict[str, list[str]]], blanks: int) -> None:
    lines = []
    for stanza in written:
        for name, values in stanza.items():
            lines += [f"{name}: {values[0]}", *(f" {value}" for value in values[1:])]
        lines += [""] * blanks
    assert list(apt.stanzas(lines)) == [{name: "\n".join(values) for name, values in stanza.items()} for stanza in written]


@pytest.mark.parametrize("line", ["no colon", " continues nothing"])
def test_a_line_that_is_no_field_is_refused(line: str) -> None:
    with pytest.raises(FetchError, match=f"got {line!r}"):
        list(apt.stanzas([line]))


FAKES = {
    "apt-config": "echo 'APT::Architecture \"amd64\";'\necho 'Acquire::IndexTargets::deb::Packages::MetaKey \"p\";'\n"
    "echo 'Acquire::IndexTargets::deb::Contents-deb::MetaKey \"c\";'\n",
    "apt-get": 'echo "$@" >> {log}\ncase "$*" in\n'
    "*Translations*) echo {root}/translations; echo {root}/not-fetched ;;\n*indextargets*) echo 'Debian bookworm main' ;;\nesac\n",
    "apt-cache": "cat {root}/packages\n",
    "apt-helper": 'for file; do last="$file"; done\ncat "$last"\n',
}


@pytest.fixture
def fake_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with programs that answer as apt's do, first on the PATH; `log` holds what apt-get was asked."""
    root = tmp_path / "fake"
    put(root / "packages", PACKAGES.encode())
    put(root / "translations", TRANSLATIONS.encode())
    for name, script in FAKES.items():
        program = put(
            root / "bin" / name, ("#!/bin/sh\n" + script.replace("{root}", str(root)).replace("{log}", str(root / "log"))).encode()
        )
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{root / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(debian, "FEWEST_PACKAGES", 4)
    return root


def test_debian_is_read_through_apt_in_a_private_state(tmp_path: Path, fake_apt: Path) -> None:
    console = quiet()
    fetch.fetch_project("debian", tmp_path / "d", console=console)
    items = pl.read_parquet(tmp_path / "d" / "items.parquet")
    assert items.height == 4 and items["description"][0] == "Edits text.\n\nAnd views it:\n * indented"
    assert json.loads((tmp_path / "d" / "fetch.json").read_text())["counts"]["packages_without_description"] == 2  # editor-doc, spell
    assert re.search(r"2 +pairs of one source left out", said(console))
    state = tmp_path / "d" / "download" / "apt"
    for line in (fake_apt / "log").read_text().splitlines():
        for setting in ("Dir::State", "Dir::State::lists", "Dir::State::status", "Dir::Cache"):
            assert f"-o {setting}={state}" in line
    written = (state / "apt.conf").read_text()
    assert "#clear APT::Update::Post-Invoke-Success;" in written and 'APT::Architectures { "amd64"; };' in written
    assert 'Contents-deb::DefaultEnabled "false"' in written and "Packages::DefaultEnabled" not in written


def test_debian_with_another_option_is_made_again(tmp_path: Path, fake_apt: Path) -> None:
    fetch.fetch_project("debian", tmp_path / "d", console=quiet())
    fetch.fetch_project("debian", tmp_path / "d", console=quiet(), keep_same_source=True)
    assert pl.read_parquet(tmp_path / "d" / "events.parquet").height == 6


def test_an_offline_machine_is_told_apart_from_a_small_store(tmp_path: Path, fake_apt: Path) -> None:
    (fake_apt / "packages").write_text("")
    put(fake_apt / "bin" / "apt-get", b"#!/bin/sh\necho 'W: Failed to fetch' >&2\n")
    console = quiet()
    with pytest.raises(FetchError, match=r"at least 4 packages; got 0; .* apt says: W: Failed to fetch"):
        fetch.fetch_project("debian", tmp_path / "d", console=console)
    assert "W: Failed to fetch" in said(console)


def test_an_apt_program_that_fails_is_quoted(tmp_path: Path, fake_apt: Path) -> None:
    put(fake_apt / "bin" / "apt-cache", b"#!/bin/sh\necho 'E: broken' >&2\nexit 100\n")
    with pytest.raises(FetchError, match="apt-cache dumpavail must work; got exit code 100: E: broken"):
        fetch.fetch_project("debian", tmp_path / "d", console=quiet())


def test_a_machine_without_apt_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchError, match=r"needs a machine with apt .* no apt-config was found"):
        fetch.fetch_project("debian", tmp_path / "d", console=quiet())
