"""The one-way order of the files: a file imports only from files above it, and serving never meets torch.

ORDER is the reading order of src/shortlist. A new file goes below everything that it imports and above everything that imports it.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import shortlist

SOURCE = Path(shortlist.__file__).parent
ORDER = (
    # what everything may use
    "__init__",
    "errors",
    "native",
    "sections",
    "config_rules",
    "config",
    "pace",
    "id_places",
    "user_order",
    "array_files",
    "parquet_steps",
    "parquet_blocks",
    # the tables users bring
    "instants",
    "csv_files",
    "files",
    "times",
    "log",
    "catalogue",
    # columns -> arrays
    "features/__init__",
    "features/arrays",
    "features/vocabulary",
    "features/text",
    "features/number",
    "features/saved_values",
    "decomposition",
    "features/content_words",
    "features/content_codes",
    "features/shown_popularity",
    "features/encoder",
    "features/lookup",
    # the project -> queries and examples
    "repeats",
    "project",
    "protocols/__init__",
    "protocols/split",
    "protocols/days",
    "protocols/rolling",
    "protocols/holdout",
    "protocols/release",
    "protocols/configured",
    "queries",
    "histories",
    "dataset",
    # learning
    "frequency",
    "prior",
    "spectral",
    "streaming",
    "negatives",
    "compiled",
    "kernels",
    "local_rows",
    "tables",
    "tower_inputs",
    "tiles",
    "losses",
    "masks",
    "batches",
    "layers",
    "towers",
    "encode",
    "memory",
    "checkpoint",
    "learner",
    "diagnostics",
    "train",
    "both_ways",
    "held_out",
    "unlisted",
    "first_choices",
    "likeliest",
    "calibration",
    # judging
    "metrics/__init__",
    "metrics/checks",
    "metrics/ranking",
    "metrics/lists",
    "metrics/intervals",
    "index/__init__",
    "index/contract",
    "index/exact",
    "index/engines",
    "index/refining",
    "index/int8",
    "index/proposing",
    "index/scann",
    "index/faiss",
    "index/tuning",
    "index/kinds",
    "learned",
    "snapshot",
    "slices",
    "evaluate",
    "evaluation_table",
    "baselines/__init__",
    "baselines/top_rows",
    "baselines/chosen_by",
    "baselines/scored_corpus",
    "baselines/tuning",
    "baselines/of_history",
    "baselines/popularity",
    "baselines/cooccurrence",
    "baselines/item_knn",
    "baselines/least_squares",
    "baselines/ials",
    "baselines/ease",
    "baselines/item_texts",
    "baselines/content_neighbours",
    "baselines/content_transfer",
    "baselines/fit",
    # publishing and answering
    "disk",
    "manifest",
    "store",
    "saved_arrays",
    "bundle",
    "recommender",
    "mining",
    # the service
    "serve/__init__",
    "serve/heap",
    "serve/messages",
    "serve/settings",
    "serve/ids",
    "serve/context",
    "serve/tower",
    "serve/query_path",
    "serve/predicates",
    "serve/overlay",
    "serve/admission",
    "serve/popular",
    "serve/version",
    "serve/journal",
    "serve/item_rows",
    "serve/user_keys",
    "serve/events",
    "serve/history",
    "serve/guard",
    "serve/answering",
    "serve/writes",
    "serve/loading",
    "serve/compaction",
    "serve/live",
    "serve/service",
    "serve/contract",
    "serve/keys",
    "serve/limits",
    "serve/routes",
    "serve/refusals",
    "serve/requests",
    "serve/openapi",
    "serve/gate",
    "serve/placement",
    "serve/metrics",
    "serve/logs",
    "serve/app",
    "serve/whole_query",
    "serve/raw_answers",
    "serve/protocol",
    "serve/listener",
    "serve/accepting",
    "serve/deadlines",
    "serve/server",
    "serve/client",
    # whole stages, one a command
    "run",
    "search_graphs",
    "export",
    "report/__init__",
    "report/provenance",
    "evaluation_folder",
    "judged",
    "examples",
    "backtest",
    "study/__init__",
    "study/never_chosen",
    "study/trials",
    "study/on_splits",
    "study/tables",
    "study/variants",
    "study/paper",
    "study/table1",
    "study/table2",
    "study/compared",
    "study/space",
    "study/validation",
    "study/sweep",
    "study/sets",
    "growth",
    "sequential",
    "datasets/__init__",
    "datasets/project_folder",
    "datasets/download",
    "datasets/apt",
    "datasets/separated_rows",
    "datasets/movielens_texts",
    "datasets/movielens",
    "datasets/movietweetings_texts",
    "datasets/movietweetings",
    "datasets/online_retail_texts",
    "datasets/online_retail",
    "datasets/debian_texts",
    "datasets/debian",
    "datasets/synthetic_texts",
    "datasets/synthetic",
    "datasets/fetch",
    # the terminal
    "report/training",
    "report/inputs",
    "report/verdict",
    "report/wording",
    "report/labels",
    "report/scales",
    "report/chart",
    "report/figures",
    "report/training_figures",
    "report/page",
    "progress",
    "tables_for_people",
    "study_tables",
    "cli",
    "__main__",
)
IMPORTS_TORCH = {  # at the top of the file
    *(
        "kernels",
        "tower_inputs",
        "tiles",
        "losses",
        "tables",
        "layers",
        "towers",
        "encode",
        "memory",
        "checkpoint",
        "learner",
        "diagnostics",
        "train",
    ),
    "both_ways",
    "spectral",
    "likeliest",
    "calibration",
    *("run", "search_graphs", "export", "growth"),
}
_STUDIES = {f"study/{name}" for name in ("trials", "on_splits", "tables", "paper", "table1", "table2", "compared", "sweep", "sets")}
REACHES_TORCH = (
    IMPORTS_TORCH | {"held_out", "learned", "backtest", "sequential"} | _STUDIES
)  # through those; all other files are free of it
HEAVY = ("torch", "faiss", "scann")
STARTUP_S = 0.5  # of `shortlist --help`; a slow machine may stretch it: SHORTLIST_TEST_SLACK=3 allows three times as long


@dataclass(frozen=True)
class Import:
    """One import as it stands in a file. `lazy`: inside a function, so nothing happens when the file is imported."""

    target: str  # "shortlist.features.arrays", "torch.nn"
    line: int
    lazy: bool


def file_names(source: Path) -> list[str]:
    return sorted(path.relative_to(source).with_suffix("").as_posix() for path in source.rglob("*.py"))


def imports_of(source: Path, name: str) -> list[Import]:
    return _imports_of_text((source / f"{name}.py").read_text(encoding="utf-8"), name)


@cache  # the tests ask for the same files again and again
def _imports_of_text(text: str, name: str) -> list[Import]:
    return list(_imports_in(ast.parse(text), name, lazy=False))


def _imports_in(node: ast.AST, name: str, *, lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, lazy) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            module = _absolute(child, name)
            yield from (Import(f"{module}.{alias.name}", child.lineno, lazy) for alias in child.names)
        else:
            is_for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from _imports_in(child, name, lazy=lazy or is_for_types or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)))


def _absolute(node: ast.ImportFrom, name: str) -> str:
    if not node.level:
        return node.module or ""
    parents = ["shortlist", *name.split("/")][: -node.level]
    return ".".join([*parents, *([node.module] if node.module else [])])


def own_file(source: Path, target: str) -> str | None:
    """The file of ours that an import reads last, e.g. "features/arrays" for shortlist.features.arrays.Ids; None for others' packages."""
    first, *parts = target.split(".")
    if first != "shortlist":
        return None
    for end in range(len(parts), -1, -1):
        stem = "/".join(parts[:end])
        for name in (stem, f"{stem}/__init__".lstrip("/")):
            if name and (source / f"{name}.py").is_file():
                return name
    return None


def broken_order(source: Path, order: Sequence[str]) -> list[str]:
    """What is wrong with the imports of `source`, a sentence each."""
    rank = {name: place for place, name in enumerate(order)}
    faults = []
    for name in file_names(source):
        if name not in rank:
            faults.append(f"{name}.py must have a place in ORDER of tests/test_layers.py: put it below all that it imports")
            continue
        for found in imports_of(source, name):
            target = own_file(source, found.target)
            if target is not None and rank.get(target, len(order)) >= rank[name]:
                faults.append(f"{name}.py line {found.line} must import only from files above it in ORDER: got {target}")
    faults += [
        f"ORDER of tests/test_layers.py must list files that exist: {name}.py does not"
        for name in rank
        if not (source / f"{name}.py").is_file()
    ]
    return faults


def loaded_by(source: Path) -> dict[str, list[str]]:
    """What each file imports when it is imported itself."""
    return {name: [found.target for found in imports_of(source, name) if not found.lazy] for name in file_names(source)}


def importing(source: Path, package: str) -> set[str]:
    """The files that import `package` at their top."""
    return {name for name, targets in loaded_by(source).items() if any(target.split(".")[0] == package for target in targets)}


def reaching(source: Path, package: str) -> set[str]:
    """The files whose import brings in `package`, directly, through others, or through a folder's __init__."""
    loads = {name: {file for target in targets for file in _loaded(source, target)} for name, targets in loaded_by(source).items()}
    found = importing(source, package)
    size = -1
    while size != len(found):
        size = len(found)
        found |= {name for name, files in loads.items() if files & found}
    return found


def _loaded(source: Path, target: str) -> set[str]:
    """The files of ours that importing `target` runs: the one named and the __init__ of each folder above it."""
    last = own_file(source, target)
    if last is None:
        return set()
    folders = last.split("/")[:-1]
    return {last, *("/".join([*folders[:end], "__init__"]) for end in range(len(folders) + 1))}


def test_every_file_imports_only_from_files_above_it() -> None:
    assert broken_order(SOURCE, ORDER) == []


def test_no_file_stands_twice_in_the_order() -> None:
    assert len(ORDER) == len(set(ORDER))


def test_torch_is_reached_only_by_the_files_that_train() -> None:
    direct = {
        name
        for name in file_names(SOURCE)
        for found in imports_of(SOURCE, name)
        if found.target.split(".")[0] == "torch" and not found.lazy
    }
    assert direct <= IMPORTS_TORCH, (
        f"torch is imported at the top of {sorted(direct - IMPORTS_TORCH)}; import it inside the function that needs it"
    )
    assert reaching(SOURCE, "torch") <= REACHES_TORCH, "importing these must not import torch, or serving would need it"


@pytest.mark.parametrize("package", ["faiss", "scann"])
def test_optional_engines_are_imported_only_inside_functions(package: str) -> None:
    assert reaching(SOURCE, package) == set()


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """a <- b <- folder/c, all in order; each test breaks it in one way."""
    (tmp_path / "folder").mkdir()
    for name, text in {
        "__init__": "",
        "a": "import json\n",
        "b": "from shortlist.a import x\n",
        "folder/__init__": "",
        "folder/c": "def f():\n    import torch\n    from shortlist import b\n",
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


PLANTED_ORDER = ("__init__", "a", "b", "folder/__init__", "folder/c")


def test_the_check_passes_a_tree_in_order(planted: Path) -> None:
    assert broken_order(planted, PLANTED_ORDER) == []
    assert reaching(planted, "torch") == set()


@pytest.mark.parametrize(
    "line",
    [
        "from shortlist.folder.c import f",
        "from shortlist.folder import c",
        "from .folder.c import f",
        "from .folder import c as d",
        "import shortlist.folder.c",
        "def g():\n    from shortlist.folder.c import f",
        "if TYPE_CHECKING:\n    from shortlist.folder.c import f",
    ],
)
def test_the_check_sees_an_import_from_below_however_it_is_written(planted: Path, line: str) -> None:
    (planted / "b.py").write_text(f"{line}\n")
    (fault,) = broken_order(planted, PLANTED_ORDER)
    assert fault.startswith("b.py line ") and fault.endswith("must import only from files above it in ORDER: got folder/c")


def test_the_check_names_unlisted_files_and_files_that_are_gone(planted: Path) -> None:
    (planted / "folder" / "d.py").write_text("")
    (planted / "a.py").unlink()
    faults = broken_order(planted, PLANTED_ORDER)
    assert any(fault.startswith("folder/d.py must have a place in ORDER") for fault in faults)
    assert "ORDER of tests/test_layers.py must list files that exist: a.py does not" in faults


def test_torch_is_seen_through_other_files_and_through_a_folders_init(planted: Path) -> None:
    (planted / "a.py").write_text("from torch import nn\n")
    assert reaching(planted, "torch") == {"a", "b"}  # folder/c imports b inside a function
    (planted / "a.py").write_text("")
    (planted / "folder" / "__init__.py").write_text("import torch\n")
    (planted / "b.py").write_text("from shortlist.folder.c import f\n")
    assert reaching(planted, "torch") == {"folder/__init__", "b"}


def in_fresh_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE.parent)}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=True)


@pytest.mark.parametrize("start", ["import shortlist", "runpy.run_module('shortlist', run_name='__main__', alter_sys=True)"])
def test_starting_imports_nothing_heavy(start: str) -> None:
    code = f"""
import json, runpy, sys
sys.argv = ["shortlist", "--help"]
try:
    {start}
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(sorted({{name.split(".")[0] for name in sys.modules}})))
"""
    loaded = json.loads(in_fresh_python("-c", code).stdout.splitlines()[-1])
    assert "shortlist" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_a_server_imports_nothing_that_only_training_needs() -> None:
    """Each would be resident in every serving process: scipy's sparse matrices alone are 18 MB."""
    code = """
import json, sys
import shortlist.serve.server, shortlist.serve.service
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""
    loaded = json.loads(in_fresh_python("-c", code).stdout)
    assert "onnxruntime" in loaded
    unneeded = ("torch", "scipy", "pyarrow", "sklearn", "onnx", "optuna", "jinja2", "rich", "scann", "faiss")
    assert [name for name in unneeded if name in loaded] == []


def test_help_is_there_in_half_a_second() -> None:
    seconds = []
    for _ in range(3):  # the best of three: a busy machine is not our doing
        start = time.perf_counter()
        assert "usage: shortlist" in in_fresh_python("-m", "shortlist", "--help").stdout
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < STARTUP_S * float(os.environ.get("SHORTLIST_TEST_SLACK", "1")), f"shortlist --help took {min(seconds):.2f} s"
