"""The software store of the machine as project tables: packages are items; Recommends, Suggests and Enhances are choices.

The packages' maintainers have said which package goes with which; here each such word is an event: a person who looks at the
seed package may want the other. Read through apt (`apt.py`) from the machine's own sources, so the numbers follow the release.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl
from rich.console import Console

from shortlist.datasets.apt import PrivateApt, open_private_apt, stanzas
from shortlist.datasets.debian_texts import README, SETTINGS
from shortlist.datasets.project_folder import Project
from shortlist.errors import FetchError

RELATIONS = ("Recommends", "Suggests", "Enhances")
OTHER_AREAS = ("contrib", "non-free", "non-free-firmware", "restricted", "multiverse")  # as in `Section: non-free/net`
FEWEST_PACKAGES = 1_000  # fewer are no software store: the lists did not come
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9+.\-]*")
BRACES = re.compile(r"([^\s,]+::)\{([^}]*)\}")

ITEM_COLUMNS = {
    "package": pl.String(),
    "section": pl.String(),
    "tags": pl.List(pl.String()),
    "maintainer": pl.String(),
    "source": pl.String(),
    "summary": pl.String(),
    "description": pl.String(),
    "installed_size": pl.Int64(),
}
EVENT_COLUMNS = {"seed_package": pl.String(), "package": pl.String(), "relation": pl.String()}

Stanza = dict[str, str]


def fetch_debian(folder: Path, console: Console, *, keep_same_source: bool = False) -> Project:
    """The tables and texts of the machine's software store. Raises FetchError without apt, offline, or with too few packages."""
    apt = open_private_apt(folder / "download" / "apt")
    with console.status("apt-get update (into the project folder)"):
        complaints = apt.update()
    for line in complaints:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    with console.status("reading the package lists"):
        packages, counts = distinct_packages(stanzas(apt.lines("apt-cache", "dumpavail")))
        _refuse_empty_store(len(packages), complaints)
        items = item_table(packages, _long_descriptions(apt))
        events, left_out = event_table(packages, keep_same_source=keep_same_source)
    counts |= left_out
    counts["packages_without_description"] = items["description"].null_count()
    source = f"the package lists of {'; '.join(apt.releases())}, read through apt on this machine"
    return Project({"events": events, "items": items}, SETTINGS, README.format(source=source), source, counts)


def distinct_packages(stream: Iterable[Stanza]) -> tuple[dict[str, Stanza], dict[str, int]]:
    """The package stanzas by name, and how many were left out; of several with one name the first counts, which apt prefers."""
    packages: dict[str, Stanza] = {}
    counts = Counter({"packages_of_other_areas_left_out": 0, "repeated_packages_left_out": 0})
    for stanza in stream:
        if "Package" not in stanza:
            raise FetchError(f"a package list must name the package in each paragraph; got {stanza}; run again to fetch the list anew")
        if stanza.get("Section", "").partition("/")[0] in OTHER_AREAS:
            counts["packages_of_other_areas_left_out"] += 1
        elif stanza["Package"] in packages:
            counts["repeated_packages_left_out"] += 1
        else:
            packages[stanza["Package"]] = stanza
    return packages, dict(counts)


def item_table(packages: dict[str, Stanza], descriptions: dict[str, str]) -> pl.DataFrame:
    """One row per package, by name: the columns of ITEM_COLUMNS; what a package does not state is null, no tags an empty list.

    descriptions   long descriptions by the MD5 that the stanza names
    """
    rows = [
        {
            "package": name,
            "section": stanza.get("Section"),
            "tags": tag_list(stanza.get("Tag", "")),
            "maintainer": stanza["Maintainer"].partition("<")[0].strip().strip('"') if "Maintainer" in stanza else None,
            "source": source_of(stanza),
            "summary": stanza.get("Description", "").partition("\n")[0] or None,
            "description": _description(stanza, descriptions),
            "installed_size": _size_kib(stanza),
        }
        for name, stanza in sorted(packages.items())
    ]
    return pl.DataFrame(rows, schema=ITEM_COLUMNS)


def event_table(packages: dict[str, Stanza], *, keep_same_source: bool = False) -> tuple[pl.DataFrame, dict[str, int]]:
    """One row per related pair, in order of seed, package and relation, and how many pairs were kept and left out, by reason.

    A recommends or suggests B: A is the seed. A enhances B: B is the seed, for who looks at B may want A.
    """
    counts = Counter({f"{word.lower()}_kept": 0 for word in RELATIONS})
    kept: set[tuple[str, str, str]] = set()
    for pair in _stated_pairs(packages):
        reason = _reason_against(pair, packages, kept, keep_same_source=keep_same_source)
        counts[reason or f"{pair[2]}_kept"] += 1
        if reason is None:
            kept.add(pair)
    return pl.DataFrame(sorted(kept), schema=EVENT_COLUMNS, orient="row"), dict(counts)


def related_names(field: str) -> list[str]:
    """The package names in a relation field: each alternative of `a | b`, without versions, architectures and build profiles.

    Raises FetchError for an entry that begins with no package name.
    """
    names = []
    for entry in re.split(r"[,|]", field):
        if entry.strip():
            name = NAME.match(entry.strip())
            if name is None:
                raise FetchError(f"a relation must name a package; got {entry.strip()!r}; report it with the package's name")
            names.append(name.group())
    return names


def tag_list(field: str) -> list[str]:
    """The debtags in a Tag field, sorted; `x::{a,b}` is short for `x::a, x::b`."""
    spelled = BRACES.sub(lambda match: ", ".join(match[1] + part.strip() for part in match[2].split(",")), field)
    return sorted({tag.strip() for tag in spelled.split(",") if tag.strip()})


def source_of(stanza: Stanza) -> str:
    """The source package's name, which a stanza leaves out where it is the package's own."""
    return stanza.get("Source", stanza["Package"]).partition("(")[0].strip()


def _size_kib(stanza: Stanza) -> int | None:
    size = stanza.get("Installed-Size")
    if size is not None and not size.isdecimal():
        raise FetchError(f"Installed-Size of {stanza['Package']} must be a whole number; got {size!r}; run again to fetch the list anew")
    return None if size is None else int(size)


def _stated_pairs(packages: dict[str, Stanza]) -> Iterator[tuple[str, str, str]]:
    for name, stanza in packages.items():
        for relation in RELATIONS:
            for other in related_names(stanza.get(relation, "")):
                yield (other, name, "enhances") if relation == "Enhances" else (name, other, relation.lower())


def _reason_against(
    pair: tuple[str, str, str], packages: dict[str, Stanza], kept: set[tuple[str, str, str]], *, keep_same_source: bool
) -> str | None:
    seed, item, _ = pair
    if seed not in packages or item not in packages:
        return "pairs_with_a_package_not_in_the_store_left_out"
    if seed == item:
        return "self_pairs_left_out"
    if not keep_same_source and source_of(packages[seed]) == source_of(packages[item]):
        return "pairs_of_one_source_left_out"
    if pair in kept:
        return "repeated_pairs_left_out"
    return None


def _long_descriptions(apt: PrivateApt) -> dict[str, str]:
    files = apt.list_files("Translations")
    if not files:
        return {}
    stream = stanzas(apt.lines("apt-helper", "cat-file", *files))
    return {
        stanza["Description-md5"]: stanza["Description-en"] for stanza in stream if {"Description-md5", "Description-en"} <= stanza.keys()
    }


def _description(stanza: Stanza, descriptions: dict[str, str]) -> str | None:
    """The long description as plain paragraphs, from the translations or, in small archives, from the stanza itself."""
    whole = descriptions.get(stanza.get("Description-md5", ""), stanza.get("Description", ""))
    lines = whole.partition("\n")[2].split("\n")
    return "\n".join("" if line.strip() == "." else line.rstrip() for line in lines).strip() or None


def _refuse_empty_store(count: int, complaints: list[str]) -> None:
    if count < FEWEST_PACKAGES:
        said = f" apt says: {' '.join(complaints)}" if complaints else ""
        raise FetchError(
            f"the machine's apt sources must offer at least {FEWEST_PACKAGES:,} packages; got {count}; "
            f"check that the machine is online and that `apt-get update` works.{said}"
        )
