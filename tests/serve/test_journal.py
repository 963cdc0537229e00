"""The journal: what was acknowledged is read again, a torn end is cut, other damage is an error, positions survive a cut front."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from shortlist.errors import BundleError, UnavailableError
from shortlist.serve.journal import LARGEST_FRAME, Journal

LIMIT = 1 << 20
HEADER, FRAME = 28, 12


def append(journal: Journal, position: int, *payloads: bytes) -> int:
    for payload in payloads:
        with journal.appending():
            journal.append(position, payload, LIMIT)
        position += FRAME + len(payload)
    return position


def test_what_was_appended_is_read_in_order_by_everybody_and_after_reopening(tmp_path: Path) -> None:
    journal, other = Journal(tmp_path / "journal"), Journal(tmp_path / "journal")
    end = append(journal, 0, b"one", b"", b"three" * 999)
    for reader in (journal, other, Journal(tmp_path / "journal")):
        assert reader.read_from(0) == ([b"one", b"", b"three" * 999], end)
        assert reader.read_from(FRAME + 3) == ([b"", b"three" * 999], end)
        assert reader.read_from(end) == ([], end)


def test_news_are_seen_until_they_are_read(tmp_path: Path) -> None:
    journal, other = Journal(tmp_path / "journal"), Journal(tmp_path / "journal")
    assert not other.has_news(0)
    end = append(journal, 0, b"one")
    assert other.has_news(0) and not other.has_news(end)


@pytest.mark.parametrize("cut", range(1, FRAME + 4))
def test_a_torn_end_is_waited_at_by_readers_and_cut_by_the_next_writer(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    end = append(journal, 0, b"kept")
    append(journal, end, b"torn")
    os.truncate(path, path.stat().st_size - cut)
    reader = Journal(path)
    assert reader.read_from(0) == ([b"kept"], end)
    new_end = append(reader, end, b"next")
    assert Journal(path).read_from(0) == ([b"kept", b"next"], new_end)


@pytest.mark.parametrize("tail", [b"\0" * 40, struct.pack("<I", 3)], ids=["zeros of a lost page", "four bytes"])
def test_an_end_that_never_was_a_frame_is_cut(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "journal"
    end = append(Journal(path), 0, b"kept")
    with path.open("ab") as file:
        file.write(tail)
    journal = Journal(path)
    assert journal.read_from(0) == ([b"kept"], end)
    append(journal, end, b"next")
    assert Journal(path).read_from(0)[0] == [b"kept", b"next"]


def test_every_flipped_byte_before_the_last_frame_is_an_error_and_never_another_payload(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    append(Journal(path), 0, b"one", b"two", b"three")
    whole = path.read_bytes()
    last_frame = len(whole) - FRAME - 5
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        if place >= last_frame + 8:  # the last payload or its checksum: looks like a write that a power cut tore
            assert Journal(path).read_from(0)[0] == [b"one", b"two"]
            continue
        with pytest.raises(BundleError, match="journal"):
            Journal(path).read_from(0)
    path.write_bytes(whole)
    assert Journal(path).read_from(0)[0] == [b"one", b"two", b"three"]


def test_positions_mean_the_same_after_the_front_is_cut_also_to_others(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal, other = Journal(path), Journal(path)
    second = append(journal, 0, b"one")
    end = append(journal, second, b"two")
    assert other.read_from(0)[1] == end
    with journal.appending():
        journal.trim(second)
    assert journal.base == second and path.stat().st_size == HEADER + FRAME + 3
    assert journal.read_from(second) == ([b"two"], end)
    assert other.has_news(end) and other.read_from(end) == ([], end) and not other.has_news(end)
    end = append(other, end, b"three")
    assert journal.read_from(second) == ([b"two", b"three"], end)
    with pytest.raises(BundleError, match="holds positions 15 to 47: got 0"):
        journal.read_from(0)
    with pytest.raises(BundleError, match="got 99"):
        journal.read_from(99)


def test_identities_differ_and_stay(tmp_path: Path) -> None:
    one, two = Journal(tmp_path / "one"), Journal(tmp_path / "two")
    end = append(one, 0, b"x")
    with one.appending():
        one.trim(end)
    assert one.identity == Journal(tmp_path / "one").identity != two.identity


def test_limits_are_told_before_anything_is_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    with journal.appending(), pytest.raises(UnavailableError, match="below 60 bytes: compact"):
        journal.append(0, b"x" * 30, 60)
    with journal.appending(), pytest.raises(UnavailableError, match=f"below {LARGEST_FRAME} bytes"):
        journal.append(0, b"x" * (LARGEST_FRAME + 1), 1 << 40)
    assert journal.read_from(0) == ([], 0)


def test_a_failed_sync_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    journal, other = Journal(path), Journal(path)
    end = append(journal, 0, b"one")
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(UnavailableError, match="No space left on device"):
            append(journal, end, b"lost")
    assert Journal(path).read_from(0) == ([b"one"], end)
    assert other.read_from(end) == ([], end)
    append(journal, end, b"two")
    assert other.read_from(0)[0] == [b"one", b"two"]


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 64])
def test_another_file_is_no_journal(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "journal").write_bytes(content)
    with pytest.raises(BundleError, match="must be a journal"):
        Journal(tmp_path / "journal")
