"""Hostile request bodies: valid ones, broken in ways that break servers. The same seed and number give the same body."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

PATHS = ("/recommend", "/recommend/batch", "/similar", "/events", "/items", "/items")
METHODS = ("POST", "POST", "POST", "POST", "PUT", "DELETE")

_VALUES: tuple[bytes, ...] = (
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e999",
    b"-1e400",
    b"1e-400",
    b"1000000000",
    b"-1",
    b"0",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775809",
    b"9" * 400,
    b"1.5",
    b"-0",
    b"0.0",
    b"true",
    b"null",
    b'""',
    b'"\\u0000"',
    b'"\\ud800"',
    b'"\\udfff\\ud800"',
    b'"\xff"',
    b'"\xc0\xaf"',
    b'"\xed\xa0\x80"',
    b'"' + "\U0001f600".encode() * 100 + b'"',
    b'"' + b"x" * 600 + b'"',
    b'"\xe2\x80\xae"',
    b"[]",
    b"{}",
    b"[[[[[[[[[[]]]]]]]]]]",
    b"[" * 3000,
    b"[" * 500 + b"]" * 500,
    b'{"a":' * 1500,
    b'{"":{"":{"":{}}}}',
    b"'single'",
    b"01",
    b"0x10",
    b"1_000",
    b"\xef\xbb\xbf1",
    b"",
    b'"\n"',
    b'"DROP TABLE events; --"',
    b'"../../../../etc/passwd"',
    b'{"__class__":"os.system"}',
)


def hostile_request(seed: int, number: int, *, ids: tuple[str, ...], columns: tuple[str, ...]) -> tuple[str, str, bytes]:
    """(method, path, body) number `number` of a seed. `ids` and `columns`: some that the server knows."""
    rng = random.Random(f"{seed}/{number}")
    place = rng.randrange(len(PATHS))
    tree = _valid(rng, place, ids, columns)
    body = rng.choice(_BREAKS)(rng, tree)
    for _ in range(rng.choice((0, 0, 0, 0, 1, 3))):
        body = _broken_bytes(rng, body)
    return METHODS[place], PATHS[place], body[:60_000]


def _valid(rng: random.Random, place: int, ids: tuple[str, ...], columns: tuple[str, ...]) -> dict[str, Any]:
    def some(count: int) -> list[str]:
        return [rng.choice(ids) for _ in range(rng.randrange(count))]

    filters: dict[str, Any] = {"deny": some(5), "exclude_seen": rng.random() < 0.5}
    if rng.random() < 0.5:
        filters["where"] = [{"column": rng.choice(columns), rng.choice(("at_least", "at_most")): rng.uniform(-5, 5)}]
        filters["where"].append({"column": rng.choice(columns), rng.choice(("any_of", "none_of")): [rng.choice(ids), 1, 2.5, True]})
    if rng.random() < 0.2:
        filters["allow"] = some(9)
    query = {
        "user": rng.choice((rng.choice(ids), rng.randrange(10**6))),
        "seed": rng.choice(ids),
        "history": some(9),
        "context": {rng.choice(columns): rng.choice((1, "day 3", [1, 2], None))},
        "k": rng.randrange(1, 50),
        "filters": filters,
    }
    rows = [{"item_id": f"new{rng.randrange(50)}", columns[0]: "c1", columns[-1]: rng.random()}]
    events = [{"user": rng.randrange(99), "item": rng.choice(ids), "time": rng.uniform(0, 2e9), "id": f"e{rng.randrange(10**9)}"}]
    every: tuple[dict[str, Any], ...] = (
        query,
        {"requests": [query, {}]},
        {"item": rng.choice(ids), "k": 5, "filters": filters},
        {"events": events},
        {"items": rows},
        {"ids": [f"new{rng.randrange(50)}"]},
    )
    return every[place]


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value in it."""
    found: list[tuple[Any, Any]] = []
    stack = [tree]
    while stack:
        node = stack.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            found.append((node, key))
            stack.append(node[key])
    return found


_MARK = "\x00hole\x00"


def _with_value(rng: random.Random, tree: Any) -> bytes:
    """One value, or several, replaced by hostile ones."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        if places := _places(tree):
            node, key = rng.choice(places)
            node[key] = _MARK
    raw = json.dumps(tree).encode()
    hole = json.dumps(_MARK).encode()
    while hole in raw:
        raw = raw.replace(hole, rng.choice(_VALUES), 1)
    return raw


def _with_unknown_key(rng: random.Random, tree: Any) -> bytes:
    nodes = [node for node, _ in _places({"root": tree}) if isinstance(node, dict)]
    node = rng.choice(nodes)
    node[rng.choice(("kk", "", "__proto__", "K", "user ", "\u202euser"))] = rng.choice((1, "x", None, [], {}))
    return json.dumps(tree).encode()


def _with_long_list(rng: random.Random, tree: Any) -> bytes:
    lists = [(node, key) for node, key in _places(tree) if isinstance(node[key], list) and node[key]]
    if lists:
        node, key = rng.choice(lists)
        node[key] = node[key] * rng.choice((50, 300, 2000))
    return json.dumps(tree).encode()


def _twice(rng: random.Random, tree: Any) -> bytes:
    """The same keys again."""
    raw = json.dumps(tree).encode()
    return raw[:-1] + b"," + raw[1:] if len(raw) > 2 else raw


def _as_it_is(rng: random.Random, tree: Any) -> bytes:
    return json.dumps(tree, ensure_ascii=rng.random() < 0.5).encode()


_BREAKS: tuple[Callable[[random.Random, Any], bytes], ...] = (
    _with_value,
    _with_value,
    _with_value,
    _with_unknown_key,
    _with_long_list,
    _twice,
    _as_it_is,
)


def _broken_bytes(rng: random.Random, raw: bytes) -> bytes:
    """Cut, flipped, doubled or stuffed."""
    if not raw:
        return raw
    place, kind = rng.randrange(len(raw)), rng.randrange(5)
    if kind == 0:
        return raw[:place]
    if kind == 1:
        return raw[:place] + bytes([raw[place] ^ (1 << rng.randrange(8))]) + raw[place + 1 :]
    if kind == 2:
        return raw[:place] + raw[place : place + 40] + raw[place:]
    if kind == 3:
        return raw[:place] + rng.randbytes(rng.randrange(1, 9)) + raw[place:]
    return raw[place:] + raw[:place]
