"""Settings for tests of the service."""

from __future__ import annotations

from typing import Any

from shortlist.serve.settings import ServeSettings


def quiet_settings(**changes: Any) -> ServeSettings:
    """Waits long, so that a busy machine degrades nothing, loads versions without rests, and watches nothing."""
    return ServeSettings(
        **{"watch_s": 0.0, "load_share": 1.0, "learned_deadline_s": 30.0, "fresh_deadline_s": 30.0, "events_deadline_s": 30.0, **changes}
    )
