"""What tests of the fetchers share: a console that can be read, files, archives, and a publisher without a network."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from rich.console import Console


def zip_bytes(members: dict[str, bytes]) -> bytes:
    """An archive of these files: the same bytes at any time of day, since their hash is told before they are made again."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def quiet() -> Console:
    return Console(file=io.StringIO(), width=400)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class Reply(io.BytesIO):
    """What `urlopen` gives, without a network."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.headers = {"Content-Length": str(len(content))}


class Publisher:
    """Files by the last part of their address; any other address cannot be reached. It remembers what was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        monkeypatch.setattr("urllib.request.urlopen", self._urlopen)

    def _urlopen(self, url: str, timeout: float) -> Reply:
        self.asked.append(url)
        name = url.rpartition("/")[2]
        if name not in self.files:
            raise OSError("no route to host")
        return Reply(self.files[name])
