"""The disk: nothing but regular files is opened, nothing is overwritten, and its errors are ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shortlist.disk import file_errors, open_regular, sync_folder, write_synced
from shortlist.errors import BundleError


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_synced(tmp_path / "a", b"seven\n")
    sync_folder(tmp_path)
    with open_regular(tmp_path / "a") as file:
        assert file.read() == b"seven\n"


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    write_synced(tmp_path / "a", b"first")
    with pytest.raises(FileExistsError):
        write_synced(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"


@pytest.mark.parametrize("kind", ["symlink", "folder", "pipe"])
def test_only_a_regular_file_is_opened_and_nothing_is_waited_for(tmp_path: Path, kind: str) -> None:
    (tmp_path / "real").write_bytes(b"x")
    path = tmp_path / kind
    if kind == "symlink":
        path.symlink_to(tmp_path / "real")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(BundleError, match=f"{kind} must be a regular file: got a symlink, a folder or a device"):
        open_regular(path)


def test_errors_of_the_file_system_say_what_was_being_done_and_others_pass(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"reading x failed: .*nowhere.*see to the disk or the path"), file_errors("reading x"):
        open_regular(tmp_path / "nowhere")
    with pytest.raises(KeyError), file_errors("reading x"):
        raise KeyError("a bug")
