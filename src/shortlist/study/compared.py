"""A study of variants: all of them trained under one protocol and put side by side."""

from __future__ import annotations

from typing import Any

from shortlist.errors import ConfigError
from shortlist.project import Project
from shortlist.study import table1, table2
from shortlist.study.on_splits import Conditions, run_on_splits
from shortlist.study.tables import Results, heading, minus, of_model, plain_settings, results_of
from shortlist.study.variants import NAMED, Study, changed, named_study

STUDIES = (*NAMED, "table1", "table2")


def run_study(name: str, project: Project, under: Conditions) -> dict[str, Any]:
    """The table of the study of that name, one of STUDIES; trials are kept in the folder and read back.

    Raises ConfigError for an unknown study.
    """
    corpus_size = len(project.items)
    match name:
        case "table1":
            study = table1.table1()
        case "table2":
            study = table2.table2(corpus_size)
        case _ if name in NAMED:
            study = named_study(name, corpus_size)
        case _:
            raise ConfigError(f"a study must be one of {', '.join(STUDIES)}: got {name!r}")
    table, results = compared(study, project, under)
    if name == "table1":
        table["paper"] = table1.beside_the_paper(results)
    if name == "table2":
        table |= {**table2.rows_at_fixed_batch(results, table2.BATCH_SIZE, table2.INDEX_BATCH_SIZES), "study": name}
        table["at_fixed_sum"] = table2.rows_at_fixed_sum(results, table2.SUM)
        table["paper"] = table2.beside_the_paper(results, table2.BATCH_SIZE)
    return table


def compared(study: Study, project: Project, under: Conditions) -> tuple[dict[str, Any], Results]:
    """(the table of the study's variants, each beside the reference; what it was made of)."""
    configs = {variant: changed(project.config, changes) for variant, changes in study.variants.items()}
    outcome = run_on_splits(project, configs, under)
    results = results_of(outcome, project.config.evaluate)
    table = {
        "study": study.name,
        **heading(results),
        "settings": plain_settings(project.config),
        "variants": {variant: {"changes": changes, **of_model(results, variant)} for variant, changes in study.variants.items()},
        "compared": {"model": study.reference, "minus": minus(results, study.reference, study.variants)},
        "left_out": {**study.left_out, **outcome.left_out},
    }
    return table, results
