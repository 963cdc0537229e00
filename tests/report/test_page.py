"""The page: whole, self-contained, safe against whatever the data hold, and shown by a real browser without a complaint."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from small_browser import Page, browser, chromium_path
from small_report import HOSTILE, write_evaluation

from shortlist.errors import DataError
from shortlist.report.inputs import read_evaluation
from shortlist.report.page import bars, write_report
from shortlist.report.verdict import verdicts

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Outline(HTMLParser):
    """Elements by tag, ids, links, and whether every element was closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.faults: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.faults += self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}>")

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag == name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evaluation(tmp_path_factory.mktemp("page") / "an evaluation", runs=2)


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    return write_report(folder, folder / "out" / "report.html", title=HOSTILE)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """The page of a folder that holds the table alone."""
    alone = tmp_path_factory.mktemp("bare") / "table alone"
    alone.mkdir()
    (alone / "evaluation.json").write_bytes((folder / "evaluation.json").read_bytes())
    return write_report(alone, alone / "report.html")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Page]:
    path = chromium_path()
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail("the report must be opened in a browser: no Chromium found; install Debian's package `chromium`")
        pytest.skip("no Chromium here; install Debian's package `chromium`")
    with browser(path) as opened:
        yield opened


# --- what stands in the file


def test_the_page_is_well_formed_with_every_id_once(page: Path, bare: Path) -> None:
    for path in (page, bare):
        outline = Outline(path.read_text())
        ids = [attributes["id"] for _, attributes in outline.found if "id" in attributes]
        assert outline.faults == [] and len(ids) == len(set(ids)) > 5
        targets = {attributes["href"] for attributes in outline.tags("a")}
        assert {str(target).removeprefix("#") for target in targets} <= set(ids)


def test_nothing_is_loaded_and_no_script_is_there(page: Path) -> None:
    text = page.read_text()
    outline = Outline(text)
    assert not outline.tags("script") and not outline.tags("img") and not outline.tags("iframe")
    assert [link["href"] for link in outline.tags("link")] == ["data:,"]
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\w", text)) - {"http://www.w3.org"}  # the name of SVG's vocabulary loads nothing
    assert addresses == set() and "@import" not in text and "url(" not in text
    assert all(not key.startswith("on") for _, attributes in outline.found for key in attributes)
    assert any(meta.get("content", "").startswith("default-src 'none'") for meta in outline.tags("meta"))  # type: ignore[union-attr]


def test_hostile_names_stay_text(page: Path) -> None:
    text = page.read_text()
    assert "<script" not in text and "alert(" in text
    assert text.count("&lt;script&gt;alert(") > 20  # title, models, slices, items, askers, warnings, the study


def test_every_part_is_there_with_its_numbers(page: Path, folder: Path) -> None:
    text, evaluation = page.read_text(), read_evaluation(folder)
    recall = evaluation.table.models["two-tower"]["recall@100"]
    assert f"<b>{recall.mean:.3f}</b>" in text and f"[{recall.low:.3f}, {recall.high:.3f}]" in text
    assert len(Outline(text).tags("svg")) == 7  # popularity, age, by K, coverage, two of training, one study
    assert 'class="missing"' not in text
    for said in (
        "Training by training",
        "How the baselines were tuned",
        "factors 64, half life 4.0; by 1,234 queries",
        "Warnings of training",
    ):
        assert said in text
    assert "shortlist evaluate &#39;a folder/shortlist.toml&#39;" in text
    assert len([1 for attributes in Outline(text).tags("details") if attributes.get("class") == "example"]) == 3
    assert text.count("(chosen next)") == 3 * 2  # three queries, two models that list the hit


def test_what_is_missing_is_said_with_the_command_that_makes_it(bare: Path) -> None:
    text = bare.read_text()
    for what in (
        "ranks.parquet is not in this folder",
        "examples.json is not in this folder",
        "no train.jsonl",
        "no study",
        "No config.toml",
    ):
        assert re.search(what, text, re.IGNORECASE), what
    assert text.count('class="missing"') >= 5 and "shortlist evaluate CONFIG --out FOLDER" in text
    assert len(Outline(text).tags("svg")) == 3  # what the table alone can draw


def test_bars_are_lengths_in_percent_of_the_longest_reach(folder: Path) -> None:
    evaluation = read_evaluation(folder)
    found = bars(evaluation, verdicts(evaluation)["recall@100"])
    assert [bar.estimate.mean for bar in found] == sorted((bar.estimate.mean for bar in found), reverse=True)
    longest = max(bar.estimate.high or 0 for bar in found)
    for bar in found:
        assert bar.length == pytest.approx(100 * bar.estimate.mean / longest)
        assert bar.low <= bar.length <= bar.high <= 100 + 1e-9


def test_a_report_replaces_an_older_one_only_when_it_is_whole(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("older")
    with pytest.raises(DataError, match=r"must hold evaluation.json"):
        write_report(tmp_path, out)
    assert out.read_text() == "older" and list(tmp_path.iterdir()) == [out]
    assert write_report(folder, out) == out and "an evaluation" in out.read_text()


def test_the_same_folder_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    assert write_report(folder, tmp_path / "a.html").read_bytes() == write_report(folder, tmp_path / "b.html").read_bytes()


# --- what a browser makes of it


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("which", ["page", "bare"])
def test_a_browser_loads_one_file_and_has_nothing_to_complain_of(chromium: Page, page: Path, bare: Path, which: str, width: int) -> None:
    path = {"page": page, "bare": bare}[which]
    chromium.open(path, width=width)
    asked = {entry["request"]["url"] for entry in chromium.reported("Network.requestWillBeSent")}
    assert {url for url in asked if not url.startswith("data:")} == {path.as_uri()}
    assert chromium.reported("Log.entryAdded") == [] and chromium.reported("Runtime.exceptionThrown") == []
    assert chromium.reported("Runtime.consoleAPICalled") == []
    assert chromium.value("document.documentElement.scrollWidth <= window.innerWidth")  # only tables scroll sideways


def test_the_browser_would_see_what_a_page_loads_and_what_fails_in_it(chromium: Page, page: Path, tmp_path: Path) -> None:
    leaking = tmp_path / "leaking.html"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    leaking.write_text(text.replace("</main>", '<img src="picture.png"><script>throw new Error("planted")</script></main>'))
    chromium.open(leaking, width=1280)
    asked = {entry["request"]["url"] for entry in chromium.reported("Network.requestWillBeSent")}
    assert (tmp_path / "picture.png").as_uri() in asked
    assert chromium.reported("Log.entryAdded") and chromium.reported("Runtime.exceptionThrown")


def test_a_browser_shows_the_headline_and_opens_every_example(chromium: Page, page: Path) -> None:
    chromium.open(page, width=1280)
    assert "two-tower" in chromium.value("document.querySelector('h1').innerText")
    assert chromium.value("document.querySelectorAll('script').length") == 0
    chromium.value("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert chromium.value("[...document.querySelectorAll('.example mark')].every(one => one.getBoundingClientRect().height > 0)")
    assert chromium.value("document.querySelector('.example b').innerText") == HOSTILE


def test_no_name_in_a_chart_lies_upon_another_or_outside(chromium: Page, page: Path) -> None:
    chromium.open(page, width=1280)
    crowded = """[...document.querySelectorAll('svg')].flatMap(svg => {
        const all = svg.getBoundingClientRect(), boxes = [...svg.querySelectorAll('.name')].map(name => name.getBoundingClientRect());
        const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 4 && b.top < a.bottom - 4;
        return boxes.flatMap((a, i) => [
            a.right > all.right + 1 || a.left < all.left - 1 ? [`outside ${i}`] : [],
            boxes.slice(i + 1).some(b => meet(a, b)) ? [`upon ${i}`] : [],
        ].flat());
    })"""
    assert chromium.value(crowded) == []


def test_ink_and_paper_contrast_in_light_and_dark(chromium: Page, page: Path) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1 for every series' colour and for soft ink on the paper."""
    contrast = """(() => {
        const parts = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
        const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
        const paper = light(parts(getComputedStyle(document.body).backgroundColor));
        const probe = document.body.appendChild(document.createElement('span'));
        return ['--soft', '--ink', '--link', ...[0, 1, 2, 3, 4, 5, 6, 7, 8].map(n => `--colour-${n}`)].map(name => {
            probe.style.color = `var(${name})`;
            const ink = light(parts(getComputedStyle(probe).color));
            return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
        });
    })()"""
    for dark in (False, True):
        chromium.open(page, width=1280, dark=dark)
        assert min(chromium.value(contrast)) >= 4.5
