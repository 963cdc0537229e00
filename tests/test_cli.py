"""The commands, end to end on a small project, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import tomli_w
from small_project import small_config, write_tables

from shortlist.cli import build_parser, main
from shortlist.config import config_tree


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tables and a shortlist.toml whose paths are relative."""
    folder = tmp_path_factory.mktemp("project")
    write_tables(folder)
    tree = config_tree(small_config(folder, {"train": {"epochs": 2}}))
    tree["data"] = {name: f"{name}.parquet" for name in ("events", "items", "users")}
    (folder / "shortlist.toml").write_text(tomli_w.dumps(tree))
    return folder


@pytest.fixture(scope="module")
def store(project: Path) -> Path:
    assert main(["train", str(project / "shortlist.toml"), "--out", str(project / "run")]) == 0
    assert main(["publish", str(project / "run"), "--to", str(project / "store")]) == 0
    return project / "store"


def test_check_prints_tables_and_json(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(project / "shortlist.toml")]) == 0
    printed = capsys.readouterr().out
    assert "601" in printed and "what the towers see" in printed
    assert main(["check", str(project / "shortlist.toml"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["events"]["rows"] == 601 and facts["items"]["rows"] == 53


def test_evaluate_prints_one_json_object_with_means_intervals_and_queries(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(project / "shortlist.toml"), "--json", "--set", "evaluate.bootstrap=20", "--out", str(project / "tested")]
    assert main(arguments) == 0
    table = json.loads(capsys.readouterr().out)
    metric = table["models"]["two-tower"]["recall@10"]
    assert metric["low"] <= metric["mean"] <= metric["high"] and metric["queries"] == table["queries"]
    assert {"head items", "mid items", "tail items", "unseen items", "known users", "unseen users"} <= set(table["slices"])
    assert table["made"]["command"].endswith("--out " + str(project / "tested"))
    assert main([word for word in arguments if word != "--json"]) == 0
    printed = capsys.readouterr().out
    assert "two-tower" in printed and f"shortlist report {project / 'tested'} --out report.html" in printed.replace("\n", "")
    assert main(["report", str(project / "tested"), "--out", str(project / "report.html"), "--title", "a small shop"]) == 0
    assert capsys.readouterr().out == f"{project / 'report.html'}\n"
    assert "Evaluation of a small shop" in (project / "report.html").read_text()


def test_evaluate_takes_baselines_by_name_and_several_seeds(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(project / "shortlist.toml"), "--set", "evaluate.bootstrap=20", "--out", str(project / "tested"), "--json"]
    assert main([*words, "--baselines", "popularity,decayed-popularity", "--seeds", "2"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert list(table["models"]) == ["two-tower", "popularity", "decayed-popularity"] and table["seeds"] == [0, 1]
    words.remove("--json")
    assert main([*words, "--baselines", "popularity,decayed-popularity,item-knn"]) == 0
    assert "item-knn" in capsys.readouterr().out
    assert main([*words, "--baselines", "popularty"]) == 1
    assert "did you mean 'popularity'?" in capsys.readouterr().err


def test_recommend_answers_one_query_with_titles(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = '{"user": 3, "history": ["i01", "i06"], "exclude": ["i11"]}'
    assert main(["recommend", str(store), "--query", query, "-k", "4", "--show", "title"]) == 0
    printed = capsys.readouterr().out
    assert "number" in printed and "i11" not in printed
    assert main(["recommend", str(store), "--query", query, "-k", "4", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["version"] == "v000001" and len(answer["answers"][0]["items"]) == 4


def test_recommend_writes_a_table_of_answers(store: Path, tmp_path: Path) -> None:
    pl.DataFrame({"user_id": [1, 2, 3]}).write_parquet(tmp_path / "q.parquet")
    assert main(["recommend", str(store), "--queries", str(tmp_path / "q.parquet"), "-k", "6", "--out", str(tmp_path / "r.parquet")]) == 0
    answers = pl.read_parquet(tmp_path / "r.parquet")
    assert answers["query_row"].to_list() == [0, 1, 2] and answers["items"].list.len().to_list() == [6, 6, 6]


def test_publish_takes_a_newer_catalogue(store: Path, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = pl.read_parquet(project / "items.parquet")
    newer = pl.concat([items[2:], items[:1].with_columns(item_id=pl.lit("zz"))])
    newer.write_parquet(tmp_path / "newer.parquet")
    run, other = str(project / "run"), str(tmp_path / "store")
    assert main(["publish", run, "--to", other, "--items", str(tmp_path / "newer.parquet"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"version": "v000001", "items": 52, "new": 1, "gone": 2}


def test_fetch_reads_the_publishers_files_from_a_local_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "movies.dat").write_text("1::A (2001)::Drama\n")
    (tmp_path / "ratings.dat").write_text("7::1::5::1377993600\n7::2::5::1377993700\n")
    assert main(["fetch", "movietweetings", "--from", str(tmp_path), "--to", str(tmp_path / "project")]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'project' / 'shortlist.toml'}\n" and "1  films rated but not described" in printed.err
    assert main(["check", str(tmp_path / "project" / "shortlist.toml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"]["rows"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fetch", "movielens-1m", "--from", "{project}", "--to", "x"], "movietweetings, online-retail"),
        (["check", "nowhere.toml"], "nowhere.toml"),
        (["check", "{project}/shortlist.toml", "--set", "model.tempratur=1"], "temperature"),
        (["publish", "{project}", "--to", "x"], "model.safetensors"),
        (["report", "{project}", "--out", "x"], "evaluation.json"),
        (["recommend", "{project}/no-store", "--query", "{{}}"], "no-store"),
        (["recommend", "{project}/store", "--query", "nonsense"], "JSON"),
        (["recommend", "{project}/store", "--query", '{{"user": 1}}', "--show", "titel"], "titel"),
    ],
)
def test_mistakes_are_one_line_on_stderr_and_exit_code_1(
    arguments: list[str], said: str, project: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(project=project) for word in arguments]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"shortlist {arguments[0]}: ") and said in error


def test_every_command_explains_itself_with_an_example_that_parses(capsys: pytest.CaptureFixture[str]) -> None:
    import shlex

    parser = build_parser()
    studies = [f"study {name}" for name in ("designs", "cold", "towers", "table1", "table2", "sweep", "sets")]
    for name in ("fetch", "check", "train", "evaluate", "report", "study", *studies, "publish", "recommend", "serve"):
        with pytest.raises(SystemExit):
            parser.parse_args([*name.split(), "--help"])
        printed = capsys.readouterr().out
        example = next(line for line in printed.splitlines() if line.startswith("example: shortlist "))
        assert parser.parse_args(shlex.split(example)[2:]).name.startswith(name)


def test_studies_print_tables_and_one_json_object_that_says_how_it_was_made(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shortlist.study.sets.BASELINES", ("popularity", "co-occurrence"))
    short = ["--seeds", "1", "--set", "train.epochs=1", "--set", "evaluate.bootstrap=10"]
    config = str(project / "shortlist.toml")
    over = ["--over", "model.temperature=0.1,0.3", "--trials", "2"]
    for words in (["sets", str(project)], ["table1", config], ["table2", config], ["sweep", config, *over]):
        assert main(["study", *words, *short, "--json"]) == 0
        table = json.loads(capsys.readouterr().out)
        assert table["study"] == words[0] and {"command", "commit", "versions", "finished"} <= set(table["made"])
        assert main(["study", *words, *short]) == 0
        printed = capsys.readouterr()
        assert "recall@100" in printed.out and "items nobody chose" in printed.out
        assert "reading and checking" in printed.err or words[0] == "sets"


def test_sets_of_one_name_are_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "sets", str(project), str(project)]) == 1
    assert "name each once" in capsys.readouterr().err
