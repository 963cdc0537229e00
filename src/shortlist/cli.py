"""The command line: one sub-command per arrow of the design, no logic of its own.

Results go to stdout (a table, or with --json one object), progress and notes to stderr. Heavy imports wait for the
command that needs them, so that --help is instant.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shortlist import __version__
from shortlist.errors import ShortlistError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code: 0, or 1 after a one-line error, or 130 when interrupted."""
    options = build_parser().parse_args(arguments)
    options.words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options.command(options)
    except ShortlistError as error:
        print(f"shortlist {options.name}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"shortlist {options.name}: {error.strerror or error}: {error.filename or ''}".rstrip(": "), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"shortlist {options.name}: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """All commands with their options; every help text ends with an example that runs."""
    parser = argparse.ArgumentParser(
        prog="shortlist", description="Two-tower retrieval: from a log of choices to the right few hundred items."
    )
    parser.add_argument("--version", action="version", version=f"shortlist {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    fetch = _command(
        commands,
        "fetch",
        _fetch,
        "public data -> a project folder with a ready shortlist.toml",
        "shortlist fetch movielens-1m --to movielens",
    )
    fetch.add_argument("dataset", help="movielens-1m, movielens-100k, movietweetings, online-retail, debian or synthetic")
    fetch.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="the project folder to make")
    fetch.add_argument(
        "--from",
        dest="files",
        type=Path,
        metavar="FOLDER",
        help="movietweetings, online-retail: a local folder that holds the publisher's files",
    )
    fetch.add_argument("--keep-same-source", action="store_true", help="debian: keep pairs of packages built from one source")

    for size, what in (("events", "rows of the log"), ("items", "rows of the catalogue"), ("seed", "another made-up shop")):
        fetch.add_argument(f"--{size}", type=_positive, metavar="N", help=f"synthetic: {what}")

    check = _command(commands, "check", _check, "validate the data and print what will be used", "shortlist check movielens/shortlist.toml")
    _config_options(check)

    train = _command(
        commands, "train", _train, "train both towers on the latest window", "shortlist train movielens/shortlist.toml --out run"
    )
    _config_options(train)
    train.add_argument("--sequential", action="store_true", help="day by day, each day tested before it is learned from")
    train.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run; the same command resumes it")

    evaluate = _command(
        commands,
        "evaluate",
        _evaluate,
        "train and test on every split, beside the baselines",
        "shortlist evaluate movielens/shortlist.toml --baselines all --set evaluate.shifts=1",
    )
    _config_options(evaluate)
    evaluate.add_argument(
        "--baselines", metavar="NAMES", help="`all`, or names with commas between, instead of evaluate.baselines (popularity,co-occurrence)"
    )
    evaluate.add_argument("--seeds", type=_positive, default=1, help="trainings per split, from train.seed on (default: 1)")
    evaluate.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where runs, evaluation.json, ranks.parquet and examples.json go (default: `evaluation/KEY` beside CONFIG, by settings)",
    )

    report = _command(
        commands,
        "report",
        _report,
        "an evaluation -> one HTML page that needs nothing else",
        "shortlist report movielens/evaluation/1c2f9a07 --out report.html",
    )
    report.add_argument("folder", type=Path, metavar="FOLDER", help="what `shortlist evaluate --out` wrote")
    report.add_argument("--out", type=Path, required=True, metavar="FILE", help="the page")
    report.add_argument("--title", help="what was evaluated (default: the name of FOLDER)")

    _add_studies(commands)

    publish = _command(
        commands, "publish", _publish, "a run -> a new live version in a store, atomically", "shortlist publish run --to store"
    )
    publish.add_argument("run", type=Path, metavar="RUN")
    publish.add_argument("--to", type=Path, required=True, metavar="STORE")
    publish.add_argument("--items", metavar="NEWER", help="a newer snapshot of the items table, embedded with the same model")
    publish.add_argument("--set", action="append", default=[], metavar="index.KEY=VALUE", help="search it otherwise; may be repeated")
    _json_option(publish)

    recommend = _command(
        commands,
        "recommend",
        _recommend,
        "answer one query, or a file of them",
        """shortlist recommend store --query '{"user_id": 1}' -k 10""",
    )
    recommend.add_argument("store", type=Path, metavar="STORE")
    asked = recommend.add_mutually_exclusive_group(required=True)
    asked.add_argument("--query", metavar="JSON", help="one query: the columns of an event (user, seed, history, context), or `exclude`")
    asked.add_argument("--queries", metavar="FILE", help="a table of queries, one a row")
    recommend.add_argument("-k", type=_positive, default=10, help="how many items (default: 10)")
    recommend.add_argument("--out", type=Path, metavar="FILE", help="write the answers to this Parquet file")
    recommend.add_argument("--exclude-seen", action="store_true", help="leave out the query's seed and history")
    recommend.add_argument("--show", metavar="COLUMN", help="an items column to print beside the ids, e.g. title")
    _json_option(recommend)

    serve = _command(commands, "serve", _serve, "answer queries over HTTP, until SIGTERM", "shortlist serve store --port 8000")
    serve.add_argument("store", type=Path, metavar="STORE")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, reached from this machine alone)")
    serve.add_argument("--port", type=_port, default=8000, help="default: 8000; 0 takes a free one and prints it")
    serve.add_argument("--workers", type=_positive, default=1, help="processes that share the port (default: 1)")
    serve.add_argument("--events", metavar="URL", help="database of events, e.g. postgresql+psycopg://host/name (default: a file in STORE)")
    return parser


def _add_studies(commands: Any) -> None:
    example = "shortlist study table1 movielens/shortlist.toml --seeds 5"
    group = _parser(commands, "study", "many trainings side by side, with seeds and intervals; resumable", example)
    study = group.add_subparsers(metavar="STUDY", required=True)
    for name, summary, more in (
        ("designs", "loss designs and samplers side by side", " --set train.epochs=3"),
        ("cold", "what keeps items alive that nobody chose yet", " --seeds 2"),
        ("towers", "the options of the towers, one by one", " --seeds 2"),
        ("table1", "the paper's table 1: sampled-softmax MLP, batch negatives, mixed negatives", " --seeds 5"),
        ("table2", "the paper's table 2: more and more uniform negatives, at fixed B and at fixed B + B'", " --seeds 3 --json"),
    ):
        one = _command(study, name, _study, summary, f"shortlist study {name} movielens/shortlist.toml{more}", group="study")
        _config_options(one)
        _study_options(one)
        _all_splits_option(one)
    example = "shortlist study sweep movielens/shortlist.toml --over model.temperature=0.05..0.3:log --over model.id_dropout=0,0.1,0.5"
    sweep = _command(
        study, "sweep", _sweep, "draw settings, judge them inside the training window, test the best once", example, group="study"
    )
    _config_options(sweep)
    sweep.add_argument(
        "--over",
        action="append",
        default=[],
        required=True,
        metavar="SECTION.KEY=VALUES",
        help="low..high, low..high:log (by factors) or a,b,c; may be repeated",
    )
    sweep.add_argument("--trials", type=_positive, default=30, help="settings to draw, those of earlier calls included (default: 30)")
    _study_options(sweep, seeds=1)
    _all_splits_option(sweep)
    sets = _command(
        study,
        "sets",
        _sets,
        "each project's own settings beside all baselines, on every split",
        "shortlist study sets movielens debian --seeds 5",
        group="study",
    )
    sets.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a project folder, which holds a shortlist.toml")
    sets.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a setting of all; may be repeated")
    _json_option(sets)
    sets.add_argument("--seeds", type=_positive, default=5, help="trainings on each split (default: 5)")


def _all_splits_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all-splits", action="store_true", help="test on every split of the protocol (default: the newest alone)")


def _study_options(parser: argparse.ArgumentParser, seeds: int = 5) -> None:
    parser.add_argument("--seeds", type=_positive, default=seeds, help=f"trainings of each variant (default: {seeds})")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where trials are kept (default: `study` beside CONFIG, for all studies)"
    )


def _command(commands: Any, name: str, run: Any, summary: str, example: str, *, group: str | None = None) -> argparse.ArgumentParser:
    """A command, or one of a group's."""
    parser = _parser(commands, name, summary, example)
    parser.set_defaults(command=run, name=f"{group} {name}" if group else name)
    return parser


def _parser(commands: Any, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _config_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a shortlist.toml")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a setting; may be repeated")
    _json_option(parser)


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number: got {text!r}") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1: got {number}")
    return number


def _port(text: str) -> int:
    if not (text.isdigit() and int(text) < 65_536):
        raise argparse.ArgumentTypeError(f"must be a port, 0 to 65535: got {text!r}")
    return int(text)


def _json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def _fetch(options: argparse.Namespace) -> None:
    from shortlist.datasets.fetch import fetch_project
    from shortlist.progress import stderr_console

    sizes = {name: getattr(options, name) for name in ("events", "items", "seed") if getattr(options, name) is not None}
    path = fetch_project(
        options.dataset,
        options.to,
        console=stderr_console(),
        keep_same_source=options.keep_same_source,
        files=options.files,
        sizes=sizes,
    )
    print(path)


def _check(options: argparse.Namespace) -> None:
    from shortlist.project import describe
    from shortlist.tables_for_people import print_project

    facts = describe(_open_project(options))
    _print_json(facts) if options.json else print_project(facts)


def _train(options: argparse.Namespace) -> None:
    from shortlist.backtest import train_latest

    if options.sequential:
        _train_sequentially(_open_project(options), options)
        return
    run = train_latest(_open_project(options), options.out, log_to=_log_to)  # no name here holds the log while it trains
    if options.json:
        _print_json(run.facts)
    else:
        print(f"{run.folder}: trained on {run.facts['examples']:,} examples; publish it with `shortlist publish {run.folder} --to STORE`")


def _train_sequentially(project: Any, options: argparse.Namespace) -> None:
    from shortlist.sequential import train_sequentially
    from shortlist.tables_for_people import print_evaluation

    table = train_sequentially(project, options.out, log_to=_log_to)
    _print_json(table) if options.json else print_evaluation(table)


def _evaluate(options: argparse.Namespace) -> None:
    from shortlist.backtest import backtest
    from shortlist.run import settings_key
    from shortlist.tables_for_people import print_evaluation

    if options.baselines is not None:
        options.set.append(f"evaluate.baselines={json.dumps(options.baselines.split(','))}")
    project = _open_project(options)
    folder = options.out or options.config.parent / "evaluation" / settings_key(project.config)
    table = backtest(project, folder, log_to=_log_to, stage=_stage, seeds=options.seeds, command=options.words)
    if options.json:
        _print_json(table)
    else:
        print_evaluation(table)
        print(f"{folder}: written; see it with `shortlist report {folder} --out report.html`")


def _report(options: argparse.Namespace) -> None:
    from shortlist.report.page import write_report

    print(write_report(options.folder, options.out, title=options.title))


def _study(options: argparse.Namespace) -> None:
    from shortlist.study.compared import run_study
    from shortlist.study_tables import print_study

    project = _open_project(options)
    table = run_study(options.name.removeprefix("study "), project, _conditions(options, every_split=options.all_splits))
    _print_json(_made(table)) if options.json else print_study(table)


def _sweep(options: argparse.Namespace) -> None:
    from shortlist.study.space import read_space
    from shortlist.study.sweep import run_sweep
    from shortlist.study_tables import print_sweep

    project = _open_project(options)
    space = read_space(options.over, project.config)
    table = run_sweep(project, space, _conditions(options, every_split=options.all_splits), trials=options.trials)
    _print_json(_made(table)) if options.json else print_sweep(table)


def _sets(options: argparse.Namespace) -> None:
    from shortlist.config import load_config
    from shortlist.errors import ConfigError
    from shortlist.study.on_splits import Conditions
    from shortlist.study.sets import run_sets
    from shortlist.study_tables import print_sets

    folders = {folder.resolve().name: folder for folder in options.folders}
    if len(folders) < len(options.folders):
        raise ConfigError(f"sets go by the names of their folders: got {', '.join(map(str, options.folders))}; name each once")
    configs = {name: load_config(folder / "shortlist.toml", options.set) for name, folder in folders.items()}

    def under(name: str) -> Conditions:
        return Conditions(
            folder=folders[name] / "study",
            seeds=options.seeds,
            log_to=lambda path, title: _log_to(path, f"{name}: {title}"),
            stage=lambda what: _stage(f"{name}: {what}"),
            every_split=True,
        )

    table = run_sets(configs, under)
    _print_json(_made(table)) if options.json else print_sets(table)


def _conditions(options: argparse.Namespace, *, every_split: bool) -> Any:
    from shortlist.study.on_splits import Conditions

    folder = options.out or options.config.parent / "study"
    return Conditions(folder=folder, seeds=options.seeds, log_to=_log_to, stage=_stage, every_split=every_split)


def _made(table: dict[str, Any]) -> dict[str, Any]:
    """The table with how it was made."""
    from shortlist.report.provenance import how_made

    return {**table, "made": how_made(sys.argv[1:])}


def _publish(options: argparse.Namespace) -> None:
    from shortlist.export import publish_run
    from shortlist.progress import stderr_console, working
    from shortlist.run import open_run

    with working(stderr_console(), "embedding and publishing"):
        published = publish_run(open_run(options.run), options.to, items=options.items, overrides=options.set)
    if options.json:
        _print_json({"version": published.folder.name, "items": published.items, "new": published.new_items, "gone": published.gone_items})
    else:
        changed = f" ({published.new_items:,} new, {published.gone_items:,} gone)" if options.items else ""
        print(f"{published.folder} is live: {published.items:,} items{changed}")


def _recommend(options: argparse.Namespace) -> None:
    from shortlist.bundle import open_current
    from shortlist.recommender import ids_from_text, read_questions, recommend
    from shortlist.tables_for_people import print_answer

    questions = read_questions(options.query, options.queries)
    bundle = open_current(options.store)
    if options.queries is not None and ".csv" in options.queries:
        questions = ids_from_text(bundle, questions)
    answers = recommend(bundle, questions, options.k, exclude_seen=options.exclude_seen)
    if options.out is not None:
        answers.write_parquet(options.out)
        print(f"{options.out}: {answers.height:,} answers", file=sys.stderr)
    elif options.json:
        _print_json({"version": bundle.name, "answers": answers.to_dicts()})
    else:
        print_answer(bundle, answers, options.show)


def _serve(options: argparse.Namespace) -> None:
    try:
        from shortlist.serve.server import serve_store
    except ModuleNotFoundError as error:
        raise ShortlistError(f"serving needs {error.name}: install `shortlist[serve]`") from None
    serve_store(options.store, host=options.host, port=options.port, workers=options.workers, events=options.events)


def _open_project(options: argparse.Namespace) -> Any:
    from shortlist.config import load_config
    from shortlist.progress import stderr_console, working
    from shortlist.project import open_project
    from shortlist.tables_for_people import print_proposed

    config = load_config(options.config, options.set)
    with working(stderr_console(), "reading and checking the tables"):
        project = open_project(config)
    if project.proposed:
        print_proposed(project, stderr_console())
    return project


def _log_to(path: Path, title: str) -> Any:
    from shortlist.progress import TrainingProgress, stderr_console

    return TrainingProgress(path, title, stderr_console())


def _stage(what: str) -> Any:
    from shortlist.progress import stderr_console, working

    return working(stderr_console(), what)


def _print_json(value: Any) -> None:
    print(json.dumps(value, default=str))


if __name__ == "__main__":
    sys.exit(main())
