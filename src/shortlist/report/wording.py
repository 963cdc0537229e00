"""Facts -> plain English: what a reader who was not there has to know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shortlist.report.inputs import Estimate, Evaluation
from shortlist.report.verdict import Verdict

_METRICS = {"ndcg": "NDCG", "mrr": "MRR", "gini": "Gini", "intra_list_similarity": "Intra-list similarity"}
_PROTOCOLS = {
    "rolling": "Rolling windows: every split learns from the days before its test days, and is tested on what was chosen in them.",
    "holdout": "Holdout: a random part of the log was held out and tested; the rest was learned from.",
    "leave_last": "Leave the last out: the last choice of every user was tested; all earlier ones were learned from.",
    "release": "Release: learned from one snapshot, tested on what the next one added, out of the next one's items.",
}
_SEEN = {
    "rank": "Lists may hold items that the query already knew.",
    "exclude": "Items that the query already knew were left out of the lists.",
    "exclude_seed": "The item that the query looks at was left out of the list, and not tested; items of the history were not left out.",
}
_REPEATS = {
    "keep": "Choices of items that the query already knew were tested like all others.",
    "drop": "Choices of items that the query already knew were not tested.",
    "apart": "Choices of items that the query already knew were tested, and are also reported apart.",
}


def metric_name(metric: str) -> str:
    """ "recall_per_user@10" -> "Recall per user@10"."""
    name, at, k = metric.partition("@")
    return f"{_METRICS.get(name, name.replace('_', ' ').capitalize())}{at}{k}"


def number(value: float, *, signed: bool = False) -> str:
    """Three decimals; a true minus sign."""
    text = f"{value:+.3f}" if signed else f"{value:.3f}"
    return text.replace("-", "−")


def score(value: float) -> str:
    """Four digits that count: scores of different models differ by orders of magnitude."""
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}").replace("-", "−")


def interval(estimate: Estimate, *, signed: bool = False) -> str:
    """ "[0.572, 0.645]", empty where none is known."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{number(estimate.low, signed=signed)}, {number(estimate.high, signed=signed)}]"


def tuned_words(tuned: Mapping[str, Any]) -> str:
    """ "half life 4.0, factors 64; by 1,234 queries"."""
    chosen = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in tuned.items() if name != "tuned_on")
    judged = tuned.get("tuned_on")
    if judged is None:
        return chosen
    return f"{chosen}; by {judged:,} queries" if judged else f"{chosen}; not tuned: the log is too small to hold any choice out"


def headline(verdict: Verdict, evaluation: Evaluation) -> tuple[str, str]:
    """(who wins, by how much), each a sentence or two."""
    k = verdict.metric.split("@")[1]
    share = f"{100 * evaluation.table.models[verdict.best][verdict.metric].mean:.1f}\N{NO-BREAK SPACE}%"
    splits = len(evaluation.table.splits)
    of_queries = f"{share} of the queries" + (f" (mean of {splits} splits)" if splits > 1 else "")
    found = f"the item chosen next is among its first {k} for {of_queries}"
    if verdict.runner_up is None:
        return f"{verdict.best}: {found}.", "No other model was evaluated, so there is nothing to compare it with."
    first = f"{verdict.best} wins: {found}." if verdict.is_certain else f"No certain winner. {verdict.best} leads: {found}."
    return first, _lead(verdict, evaluation)


def _lead(verdict: Verdict, evaluation: Evaluation) -> str:
    assert verdict.runner_up is not None
    models, lead = evaluation.table.models, verdict.lead
    if lead is None:
        distance = models[verdict.best][verdict.metric].mean - models[verdict.runner_up][verdict.metric].mean
        return f"That is {_points(distance)} above {verdict.runner_up}, the next best; without ranks.parquet the interval is not known."
    text = f"That is {_points(lead.mean)} above {verdict.runner_up}, the next best"
    if lead.low is not None and lead.high is not None:
        text += f" (95\N{NO-BREAK SPACE}% interval of the difference: {_plain(lead.low)} to {_plain(lead.high)} points)"
    return text + ("." if verdict.is_certain else _doubt(verdict))


def _doubt(verdict: Verdict) -> str:
    """Which of the others cannot be told apart from the best."""
    close = [other for other, difference in verdict.ahead.items() if difference.low is None or difference.low <= 0]
    return f": these queries do not tell it apart from {_joined(close)}."


def _joined(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _points(difference: float) -> str:
    return f"{_plain(difference)} percentage points"


def _plain(difference: float) -> str:
    return f"{100 * difference:.1f}".replace("-", "−")


def measured(evaluation: Evaluation) -> list[tuple[str, str]]:
    """How it was measured: (term, explanation) pairs."""
    table = evaluation.table
    names = [split.name for split in table.splits]
    span = names[0] if len(names) == 1 else f"{len(names)}: {names[0]} to {names[-1]}. All weigh alike in every mean."
    facts = [
        ("Protocol", _PROTOCOLS.get(table.protocol, table.protocol)),
        ("Splits", span + (" Only days with events count." if table.days == "active" else "")),
        ("Queries", f"{table.queries:,}. Each asks for the one item that was chosen next."),
        ("Corpus", f"{table.corpus_size:,} items. Every list is drawn from all of them; nothing is sampled."),
        ("Known items", f"{_SEEN.get(table.seen_items, table.seen_items)} {_REPEATS.get(table.repeats, table.repeats)}"),
        ("Ties", f"{table.ties[:1].upper()}{table.ties[1:]}."),
        (
            "Intervals",
            f"{table.interval}." + ("" if "seed" in table.interval else " What another training seed would change is not in them."),
        ),
    ]
    if len(table.seeds) > 1:
        facts.append(
            ("Trainings", f"{len(table.seeds)} a split, with seeds {_joined([str(seed) for seed in table.seeds])}; means are over all.")
        )
    if table.baselines_left_out:
        facts.append(("Not compared", " ".join(f"{name}: {reason}." for name, reason in table.baselines_left_out.items())))
    left_out = sum(split.repeats_left_out for split in table.splits), sum(split.unrewarded_left_out for split in table.splits)
    if any(left_out):
        facts.append(("Not tested", f"{left_out[0]:,} choices of items already known, {left_out[1]:,} with a reward of 0."))
    return facts
