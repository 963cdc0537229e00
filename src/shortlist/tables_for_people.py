"""What the commands print for people: tables on stdout. Machines read --json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:  # a table needs only their facts
    from shortlist.bundle import Bundle
    from shortlist.project import Project

_SHOWN_METRICS = ("recall", "ndcg")  # the others are in --json
_SEEN = {"rank": "seen items may be listed", "exclude_seed": "the seed left out", "exclude": "seen items left out"}
_WITH_INTERVALS = 3  # models side by side
_FILE_WIDTH = 110


def print_project(facts: dict[str, Any]) -> None:
    """What `shortlist check` found: tables, rows left out, facts, features."""
    console = console_for_tables()
    tables = Table("table", "source", "rows", title="what is read")
    for name in ("events", "items", "users"):
        if facts[name] is not None:
            tables.add_row(name, facts[name]["source"], f"{facts[name]['rows']:,}")
    console.print(tables)
    for reason, rows in facts["left_out"].items():
        console.print(f"left out: {rows:,} events: {reason}")
    found = Table("fact", "value", title="what was found")
    for name, value in facts["facts"].items():
        found.add_row(name.replace("_", " "), _shown(value))
    console.print(found)
    features = Table("side", "feature", "kind", "from", title="what the towers see" + (" (proposed)" if facts["features_proposed"] else ""))
    for side, entries in facts["features"].items():
        for entry in entries:
            features.add_row(side, entry["name"], entry["kind"], f"{entry['table']}.{entry['column']}")
    console.print(features)


def print_proposed(project: Project, console: Console) -> None:
    """The features that were proposed because the settings named none."""
    for side, table in (("item", project.config.item), ("query", project.config.query)):
        named = ", ".join(f"{name} ({kind if isinstance(kind, str) else kind.kind})" for name, kind in table.features.items())
        console.print(f"proposed {side} features: {named}", highlight=False)
    context = [name for name in project.config.query.features if name.startswith("events.")]
    if context:
        console.print(
            f"keep {', '.join(context)} under [query.features] only if it is known when the query is asked", markup=False, highlight=False
        )


def print_evaluation(table: dict[str, Any]) -> None:
    """The models side by side, then the slices at the longest list: of many models the means alone, intervals are in --json."""
    console = console_for_tables()
    splits = table["splits"]
    span = splits[0]["name"] if len(splits) == 1 else f"{splits[0]['name']} ... {splits[-1]['name']}, mean of {len(splits)}"
    console.print(
        f"{table['protocol']} ({span}); {table['queries']:,} queries over all {table['corpus_size']:,} items; ties {table['ties']}; "
        f"{_SEEN[table['seen_items']]}; {table['interval']}",
        highlight=False,
    )
    names = [name for name in next(iter(table["models"].values())) if name.split("@")[0] in _SHOWN_METRICS]
    result = Table("model", *names)
    for model, metrics in table["models"].items():
        result.add_row(model, *(with_interval(metrics[name]) for name in names))
    console.print(result)
    longest = [name for name in names if name.startswith("recall@")][-1]
    slices = Table(f"{longest} on", "queries", *table["models"])
    for name, part in table["slices"].items():
        if part["queries"]:
            found = [part["models"][model][longest] for model in table["models"]]
            shown = [with_interval(metric) if len(found) <= _WITH_INTERVALS else f"{metric['mean']:.3f}" for metric in found]
            slices.add_row(name, f"{part['queries']:,}", *shown)
    console.print(slices)
    for name, reason in table.get("baselines_left_out", {}).items():
        console.print(f"left out: {name}: {reason}", highlight=False)


def print_answer(bundle: Bundle, answers: pl.DataFrame, column: str | None) -> None:
    """The lists, best first; with `column`, that column of the items table beside the ids."""
    from shortlist.errors import ConfigError

    items = bundle.items
    if column is not None and column not in items.frame.columns:
        raise ConfigError(f"--show must name a column of the items: got {column!r}; columns are {', '.join(items.frame.columns)}")
    console = console_for_tables()
    for query_row, ids, scores in answers.iter_rows():
        result = Table("rank", items.id_column, *([column] if column else []), "score", title=f"query {query_row}, version {bundle.name}")
        for rank, (item_id, score) in enumerate(zip(ids, scores, strict=True), start=1):
            more = [_shown(items.frame[column][items.row_of(item_id)])] if column else []
            result.add_row(str(rank), str(item_id), *more, f"{score:.4f}")
        console.print(result)


def console_for_tables() -> Console:
    """Wide enough for the tables where the width is not a terminal's own."""
    console = Console()
    return console if console.is_terminal else Console(width=_FILE_WIDTH)


def with_interval(metric: dict[str, float]) -> str:
    """The mean, and its interval where there is one."""
    if "low" not in metric:
        return f"{metric['mean']:.3f}"
    return f"{metric['mean']:.3f} [{metric['low']:.3f}, {metric['high']:.3f}]"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_shown(part)}" for name, part in value.items())
    if isinstance(value, (list, pl.Series)):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
