"""Where and with what a benchmark ran: machine, commit, date. Benchmarks add it to their JSON line."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np


def run_record() -> dict[str, Any]:
    """machine, commit and date of this run. Raises CalledProcessError outside a git checkout: numbers without a commit are no record."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    return {
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version(), "numpy": np.__version__},
        "commit": commit.stdout.strip(),
        "date": datetime.now(UTC).date().isoformat(),
    }
