"""A server over a small service, as a program: `python tests/small_server.py '{"seconds": 0.001, "limits": {...}, "workers": 2}'`."""

from __future__ import annotations

import json
import sys
from typing import Any

from small_service import SmallService

from shortlist.errors import BundleError
from shortlist.serve.contract import ServiceContract
from shortlist.serve.keys import Keys
from shortlist.serve.limits import Limits
from shortlist.serve.server import Serving, serve


def open_small(options: dict[str, Any]) -> ServiceContract:
    if options.get("broken"):
        raise BundleError("the store must hold a version: got none")
    return SmallService(options.get("seconds", 0.0))


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    limits = Limits(**given.get("limits", {}))
    try:
        serve(Serving(open_service=lambda: open_small(given), keys=Keys({}), port=0, workers=given.get("workers", 1), limits=limits))
    except BundleError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
