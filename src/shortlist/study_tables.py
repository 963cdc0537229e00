"""What the studies print for people: one line a variant, differences, and what never-chosen items account for."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from shortlist.tables_for_people import console_for_tables, with_interval

_SHOWN_TRIALS = 20  # of a sweep; all are in --json
SLICES = ("head items", "mid items", "tail items", "unseen items")


def print_study(table: dict[str, Any]) -> None:
    """The variants with their intervals over seeds, slices and cost; then each of them beside the reference, and the paper's ratios."""
    console = console_for_tables()
    variants = table["variants"]
    _print_heading(console, table, next(iter(variants.values()))["seeds"])
    _print_metrics(console, variants)
    _print_slices(console, table, variants)
    _print_never_chosen(console, variants)
    _print_differences(console, table["compared"])
    if "paper" in table:
        _print_ratios(console, table["paper"])
    for name, reason in table["left_out"].items():
        console.print(f"left out: {name}: {reason}", highlight=False)


def print_sweep(table: dict[str, Any]) -> None:
    """What was drawn, best first, and the winner beside the settings as they are."""
    console = console_for_tables()
    validation, trials = table["validation"], table["trials"]
    states = [trial["state"] for trial in trials]
    console.print(
        f"sweep over {', '.join(table['over'])}: {states.count('complete')} complete, {states.count('pruned')} pruned, "
        f"{states.count('fail')} failed; judged on {validation['split']} ({validation['queries']:,} queries) of {validation['of']}",
        highlight=False,
    )
    drawn = Table("trial", f"{validation['metric']}, validation", *table["over"], "loss", "s", "why not")
    for trial in trials[:_SHOWN_TRIALS]:
        value = f"{trial['value']:.4f}" if "value" in trial else trial["state"]
        settings = [f"{chosen:.4g}" if isinstance(chosen, float) else str(chosen) for chosen in trial["settings"].values()]
        loss = f"{trial['best_loss']:.3f}" if "best_loss" in trial else ""
        drawn.add_row(str(trial["number"]), value, *settings, loss, str(trial.get("seconds", "")), trial.get("reason", ""))
    console.print(drawn)
    if len(trials) > _SHOWN_TRIALS:
        console.print(f"{len(trials) - _SHOWN_TRIALS} more are in --json", highlight=False)
    print_study(table)


def print_sets(table: dict[str, Any]) -> None:
    """Every set: the models, their slices, the model minus each baseline; then one line a set."""
    console = console_for_tables()
    for name, found in table["sets"].items():
        _print_heading(console, {**found, "study": f"sets: {name}"}, next(iter(found["models"].values()))["seeds"])
        _print_metrics(console, found["models"])
        _print_slices(console, found, found["models"])
        _print_never_chosen(console, found["models"])
        _print_differences(console, found["compared"])
        for left, reason in found["left_out"].items():
            console.print(f"left out: {left}: {reason}", highlight=False)
    console.print(_verdicts(table["sets"]))


def _verdicts(sets: dict[str, Any]) -> Table:
    """One line a set and metric: the best baseline and how far the model is from it."""
    result = Table("set", "metric", "best baseline", "its value", "two-tower minus it", "above", "cost s")
    for name, found in sets.items():
        for metric, verdict in found["verdict"].items():
            above = "yes" if verdict["above"] else "no"
            difference, cost = with_interval(verdict["difference"]), f"{found['cost_seconds']:,.0f}"
            result.add_row(name, metric, verdict["best_baseline"], f"{verdict['of_baseline']:.3f}", difference, above, cost)
    return result


def _print_heading(console: Console, table: dict[str, Any], seeds: int) -> None:
    splits = table["splits"]
    span = splits[0] if len(splits) == 1 else f"{splits[0]} ... {splits[-1]}, mean of {len(splits)}"
    console.print(
        f"study {table['study']} on {span}: {table['queries']:,} queries, {table['corpus_size']:,} items, {seeds} "
        f"{'seed' if seeds == 1 else 'seeds'}; ties {table['ties']}; intervals: {table['intervals']}",
        highlight=False,
    )


def _print_metrics(console: Console, models: dict[str, Any]) -> None:
    metrics = list(next(iter(models.values()))["metrics"])
    result = Table("model", *metrics, "epoch", "negatives", "fit s")
    for name, found in models.items():
        cost = (
            f"{found['best_epoch']:.1f}" if "best_epoch" in found else "",
            f"{found['negatives_per_row']:,.0f}" if "negatives_per_row" in found else "",
        )
        result.add_row(name, *(with_interval(found["metrics"][metric]) for metric in metrics), *cost, f"{found['fit_seconds']:.0f}")
    console.print(result)


def _print_slices(console: Console, table: dict[str, Any], models: dict[str, Any]) -> None:
    longest = _longest(models)
    shown = [name for name in SLICES if table["slice_queries"].get(name)]
    result = Table(f"{longest} on", *(f"{name} ({table['slice_queries'][name]:,})" for name in shown))
    for name, found in models.items():
        result.add_row(name, *(with_interval(found["slices"][part]) for part in shown))
    console.print(result)


def _print_never_chosen(console: Console, models: dict[str, Any]) -> None:
    """Items that training never chose: how many of them lists show, and what recall is without them in the corpus."""
    longest = _longest(models)
    k = longest.removeprefix("recall@")
    of_chosen = f"{longest} of chosen items"
    result = Table("items nobody chose", f"share of top {k}", "of corpus", "mean place", of_chosen, "... among chosen items alone")
    for name, found in models.items():
        never = found["never_chosen"]
        place = f"{never['never_chosen_place']:.2f}" if "never_chosen_place" in never else ""
        recalls = [with_interval(never[key]) if key in never else "" for key in (of_chosen, f"{of_chosen}, among chosen items")]
        result.add_row(name, f"{never[f'never_chosen_share@{k}']:.3f}", f"{never['never_chosen_of_corpus']:.3f}", place, *recalls)
    console.print(result)


def _print_differences(console: Console, compared: dict[str, Any]) -> None:
    """The reference minus each other model; the last column is the part that comes from listing fewer never-chosen items."""
    if not compared["minus"]:
        return
    metrics = list(next(iter(compared["minus"].values()))["metrics"])
    result = Table(f"{compared['model']} minus", *metrics, "through items nobody chose")
    for name, found in compared["minus"].items():
        through = with_interval(found["never_chosen"]["through_never_chosen"]) if "never_chosen" in found else ""
        result.add_row(name, *(with_interval(found["metrics"][metric]) for metric in metrics), through)
    console.print(result)


def _print_ratios(console: Console, paper: dict[str, Any]) -> None:
    metrics = list(next(iter(paper.values())))
    result = Table("ratio (paper's, ours)", *metrics)
    for pair, found in paper.items():
        shown = [
            f"{found[name]['paper']:.3f}, {found[name]['ours']:.3f}" if "ours" in found[name] else f"{found[name]['paper']:.3f}, -"
            for name in metrics
        ]
        result.add_row(pair, *shown)
    console.print(result)


def _longest(models: dict[str, Any]) -> str:
    """The name of the recall of the longest list."""
    metrics: dict[str, Any] = next(iter(models.values()))["metrics"]
    return max((name for name in metrics if name.startswith("recall@")), key=lambda name: int(name.removeprefix("recall@")))
