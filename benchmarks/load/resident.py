"""What a process holds in memory, as Linux counts it: whole, its share, and by what it is mapped from."""

from __future__ import annotations

from pathlib import Path


def memory_of(process: int, store: Path) -> dict[str, int]:
    """In bytes: resident, pss, peak; and of the resident ones mapped_of_files (below `store`), libraries (other files), heap (none)."""
    folder = Path(f"/proc/{process}")
    held = {"resident": 0, "pss": 0, "peak": _kilobytes((folder / "status").read_text(), "VmHWM:")}
    held |= {"mapped_of_files": 0, "libraries": 0, "heap": 0}
    below, kind = str(store.resolve()), "heap"
    for line in (folder / "smaps").read_text().splitlines():
        name, *values = line.split()
        if not name.endswith(":"):  # a mapping: addresses, rights, offset, device, inode, path
            path = values[4] if len(values) > 4 else ""
            kind = "mapped_of_files" if path.startswith(below) else "libraries" if path.startswith("/") else "heap"
        elif name == "Rss:":
            held["resident"] += int(values[0]) * 1024
            held[kind] += int(values[0]) * 1024
        elif name == "Pss:":
            held["pss"] += int(values[0]) * 1024
    return held


def _kilobytes(text: str, name: str) -> int:
    line = next(line for line in text.splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
