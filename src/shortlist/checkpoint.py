"""Tensors in one file, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes beside `path`, flushes to the disk and renames: a kill leaves the old file or the new one."""
    partial = path.with_suffix(".partial")
    save_file({name: value.contiguous() for name, value in tensors.items()}, partial, metadata or {})
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """What `save_tensors` wrote, by name."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dictionary


def saved_metadata(path: Path) -> dict[str, str]:
    """The metadata that `save_tensors` wrote, without reading the tensors."""
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})
