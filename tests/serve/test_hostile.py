"""Hostile bodies against the application over a real store, in process: the short form of chaos/hostile.py."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from pathlib import Path

from load.fuzz import hostile_request
from serve_settings import quiet_settings
from small_http import ask

from shortlist.serve.app import App
from shortlist.serve.logs import Log
from shortlist.serve.service import Service

SEED, BODIES = 0, 1_500
IDS = ("i00", "i07", "i52", "nobody", "")
COLUMNS = ("kind", "price", "tags", "item_id", "weekday", "no such column")


def test_no_hostile_body_makes_the_server_fail(store: Path) -> None:
    async def run() -> Counter[int]:
        app = App(lambda: Service.open(store, quiet_settings()), log=Log(said))
        await app.open()
        statuses: Counter[int] = Counter()
        for number in range(BODIES):
            method, path, body = hostile_request(SEED, number, ids=IDS, columns=COLUMNS)
            reply = await ask(app, method, path, body)
            statuses[reply.status] += 1
            assert 200 <= reply.status < 500, f"body {number} of seed {SEED}: {reply.body!r}; {body!r}"
        await app.close()
        return statuses

    said = io.StringIO()
    statuses = asyncio.run(run())
    assert statuses[200] > 100 and statuses[400] > 100 and statuses[422] > 100, statuses
    assert "fault" not in said.getvalue()
