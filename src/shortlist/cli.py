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
        "shortlist evaluate movielens/shortlist.toml --set evaluate.shifts=1",
    )
    _config_options(evaluate)
    evaluate.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where the runs go (default: `evaluation/KEY` beside CONFIG, by settings)"
    )

    study = _command(
        commands,
        "study",
        _study,
        "named variants side by side, with seeds and intervals",
        "shortlist study designs movielens/shortlist.toml --seeds 5 --set train.epochs=3",
    )
    study.add_argument(
        "study", choices=["designs", "cold", "towers"], help="loss designs and samplers; what keeps new items alive; tower options"
    )
    _config_options(study)
    study.add_argument("--seeds", type=_positive, default=5, help="trainings per variant (default: 5)")
    study.add_argument("--out", type=Path, metavar="FOLDER", help="where trials are kept (default: `study` beside CONFIG)")

    publish = _command(
        commands, "publish", _publish, "a run -> a new live version in a store, atomically", "shortlist publish run --to store"
    )
    publish.add_argument("run", type=Path, metavar="RUN")
    publish.add_argument("--to", type=Path, required=True, metavar="STORE")
    publish.add_argument("--items", metavar="NEWER", help="a newer snapshot of the items table, embedded with the same model")
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
    return parser


def _command(commands: Any, name: str, run: Any, summary: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run, name=name)
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

    project = _open_project(options)
    table = backtest(
        project, options.out or options.config.parent / "evaluation" / settings_key(project.config), log_to=_log_to, stage=_stage
    )
    _print_json(table) if options.json else print_evaluation(table)


def _study(options: argparse.Namespace) -> None:
    from shortlist.study import run_study
    from shortlist.tables_for_people import print_study

    project = _open_project(options)
    folder = options.out or options.config.parent / "study" / options.study
    table = run_study(options.study, project, folder, seeds=options.seeds, log_to=_log_to)
    _print_json(table) if options.json else print_study(table)


def _publish(options: argparse.Namespace) -> None:
    from shortlist.export import publish_run
    from shortlist.progress import stderr_console, working
    from shortlist.run import open_run

    with working(stderr_console(), "embedding and publishing"):
        published = publish_run(open_run(options.run), options.to, items=options.items)
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
