"""The manifest: what was sealed verifies, what is damaged or hostile is refused by name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import shortlist.manifest as manifest_module
from shortlist.errors import BundleError
from shortlist.manifest import MANIFEST, plain_facts, seal, verify_version


def sealed(folder: Path, number: int, size_bytes: int = 5000) -> Path:
    """A sealed folder of two files that both say `number`, of 5000 and 808 bytes."""
    (folder / "index").mkdir(parents=True)
    (folder / "vectors.npy").write_bytes(f"{number:08d}".encode() * (size_bytes // 8))
    (folder / "index" / "codes.bin").write_bytes(f"{number:08d}".encode() * 101)
    seal(folder, {"number": number})
    return folder


def reseal(version: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Writes a changed manifest whose own hash is right: what an attacker could do."""
    tree = json.loads((version / MANIFEST).read_bytes())
    change(tree)
    tree["sha256"] = ""
    digest = hashlib.sha256(msgspec.json.encode(tree, order="sorted")).hexdigest()
    raw = msgspec.json.encode({**tree, "sha256": digest}, order="sorted")
    (version / MANIFEST).write_bytes(msgspec.json.format(raw, indent=1))


def test_a_sealed_folder_verifies_and_lists_its_files(tmp_path: Path) -> None:
    manifest = verify_version(sealed(tmp_path / "v", 7))
    assert manifest.format == 1 and manifest.facts == {"number": 7}
    assert {name: facts.size_bytes for name, facts in manifest.files.items()} == {"vectors.npy": 5000, "index/codes.bin": 808}
    assert manifest.files["index/codes.bin"].sha256 == hashlib.sha256(b"00000007" * 101).hexdigest()


def test_a_folder_is_sealed_once(tmp_path: Path) -> None:
    version = sealed(tmp_path / "v", 7)
    with pytest.raises(BundleError, match=r"manifest\.json must have another name"):
        seal(version, {})
    assert verify_version(version).facts == {"number": 7}


def test_facts_are_copied_as_json_would_give_them_back() -> None:
    facts = {"a": (1, 2), "b": {"c": None}}
    assert plain_facts(facts) == {"a": [1, 2], "b": {"c": None}}
    with pytest.raises(BundleError, match="keys that become equal as text do not"):
        plain_facts({"a": {1: "x", "1": "y"}})


def damages(raw: bytes) -> dict[str, bytes]:
    flipped = bytearray(raw)
    flipped[len(raw) // 3] ^= 0x10
    return {
        "empty": b"",
        "one byte": raw[:1],
        "half": raw[: len(raw) // 2],
        "one byte short": raw[:-1],
        "one byte more": raw + raw[-1:],
        "a newline more": raw + b"\n",
        "a bit flipped": bytes(flipped),
    }


@pytest.mark.parametrize("name", ["vectors.npy", "index/codes.bin", MANIFEST])
def test_every_damaged_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    version = sealed(tmp_path / "v", 1)
    raw = (version / name).read_bytes()
    for damage, content in damages(raw).items():
        (version / name).write_bytes(content)
        with pytest.raises(BundleError) as caught:
            verify_version(version)
        assert str(version / name) in str(caught.value), damage
    (version / name).write_bytes(raw)
    verify_version(version)


def test_every_single_flipped_bit_of_the_manifest_is_refused(tmp_path: Path) -> None:
    version = sealed(tmp_path / "v", 1)
    raw = (version / MANIFEST).read_bytes()
    for place in range(len(raw)):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << (place % 8)
        (version / MANIFEST).write_bytes(bytes(damaged))
        with pytest.raises(BundleError, match=MANIFEST):
            verify_version(version)


def test_files_swapped_between_versions_are_refused_by_name(tmp_path: Path) -> None:
    first, second = sealed(tmp_path / "v1", 1), sealed(tmp_path / "v2", 2)
    for name in ("vectors.npy", "index/codes.bin"):  # equal sizes, other content
        raw = (second / name).read_bytes()
        shutil.copy(first / name, second / name)
        with pytest.raises(BundleError, match=name):
            verify_version(second)
        (second / name).write_bytes(raw)
    shutil.copy(first / MANIFEST, second / MANIFEST)
    with pytest.raises(BundleError, match=r"vectors\.npy|codes\.bin"):
        verify_version(second)


def test_missing_and_extra_files_are_refused_by_name(tmp_path: Path) -> None:
    version = sealed(tmp_path / "v", 1)
    (version / "index" / "extra.bin").write_bytes(b"")
    with pytest.raises(BundleError, match=r"index/extra\.bin .* extra"):
        verify_version(version)
    (version / "index" / "extra.bin").unlink()
    (version / "index" / "codes.bin").rename(tmp_path / "codes.bin")
    with pytest.raises(BundleError, match=r"index/codes\.bin must exist"):
        verify_version(version)
    (version / "index" / "codes.bin").mkdir()
    with pytest.raises(BundleError, match=r"index/codes\.bin must exist"):
        verify_version(version)
    (version / MANIFEST).unlink()
    with pytest.raises(BundleError, match=MANIFEST):
        verify_version(version)


def test_a_copy_of_a_version_verifies_anywhere_but_not_through_a_symlink(tmp_path: Path) -> None:
    version = sealed(tmp_path / "v", 3)
    shutil.copytree(version, tmp_path / "copy")
    assert verify_version(tmp_path / "copy").facts == {"number": 3}
    (tmp_path / "link").symlink_to(version)
    for wrong in (tmp_path / "link", version / MANIFEST):
        with pytest.raises(BundleError, match="must be a folder"):
            verify_version(wrong)
    with pytest.raises(BundleError, match="nowhere"):
        verify_version(tmp_path / "nowhere")


def test_a_version_of_a_newer_program_says_upgrade(tmp_path: Path) -> None:
    version = sealed(tmp_path / "v", 1)
    reseal(version, lambda tree: tree.update(format=2, unknown_field={"x": 1}))
    with pytest.raises(BundleError, match="made by a newer shortlist: format 2, this one reads up to 1; upgrade"):
        verify_version(version)
    reseal(version, lambda tree: tree.update(format=0))
    with pytest.raises(BundleError, match="must have format 1: got 0"):
        verify_version(version)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "index/../../outside", "a//b", "./a", "", "a\\b", "a\0b", MANIFEST, "x/"])
def test_a_manifest_that_names_files_outside_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    version = sealed(tmp_path / "v", 1)
    (tmp_path / "outside").write_bytes(b"secret")
    reseal(version, lambda tree: tree["files"].update({name: {"size_bytes": 6, "sha256": hashlib.sha256(b"secret").hexdigest()}}))
    opened: list[str] = []
    real_open = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest, **named: opened.append(str(path)) or real_open(path, *rest, **named))
    with pytest.raises(BundleError, match="must list plain names"):
        verify_version(version)
    assert opened == [str(version / MANIFEST)]


@pytest.mark.parametrize(
    "facts",
    [
        {"size_bytes": -1},
        {"size_bytes": "5000"},
        {"size_bytes": 1e30},
        {"size_bytes": 2**70},
        {"size_bytes": None},
        {"sha256": "0" * 63},
        {"sha256": "0" * 64 + "\n"},
        {"sha256": 5},
        {"more": 1},
    ],
)
def test_a_manifest_of_wrong_types_is_refused(tmp_path: Path, facts: dict[str, object]) -> None:
    version = sealed(tmp_path / "v", 1)
    tree = json.loads((version / MANIFEST).read_bytes())
    tree["files"]["vectors.npy"].update(facts)
    (version / MANIFEST).write_text(json.dumps(tree))
    with pytest.raises(BundleError, match=r"manifest\.json must be"):
        verify_version(version)


@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b"null",
        b"{}",
        b'{"format": 1}',
        b'{"format": "1"}',
        b'{"format": 1e400}',
        b'{"format": ' + b"9" * 5000 + b"}",
        b'{"format": 1, "facts": ' + b'{"a":' * 100_000,
        b"[" * 900_000,
        b"\xff\xfe{}",
        b'{"format": 1, "created": "\xff"}',
        b"\x00" * 1000,
        b" " * 1_000_001,
    ],
)
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, raw: bytes) -> None:
    version = sealed(tmp_path / "v", 1)
    (version / MANIFEST).write_bytes(raw)
    with pytest.raises(BundleError, match=MANIFEST):
        verify_version(version)


def test_a_huge_sparse_manifest_is_not_read_into_memory(tmp_path: Path) -> None:
    version = sealed(tmp_path / "v", 1)
    with (version / MANIFEST).open("wb") as file:
        file.truncate(1 << 36)
    with pytest.raises(BundleError, match="must stay below 1000000 bytes"):
        verify_version(version)


def test_sizes_beyond_the_limit_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    version = sealed(tmp_path / "v", 1)
    assert verify_version(version, max_bytes=5808).facts == {"number": 1}  # 5000 + 808
    with pytest.raises(BundleError, match=r"at most 5807 bytes: manifest\.json lists 5808"):
        verify_version(version, max_bytes=5807)
    reseal(version, lambda tree: tree["files"]["vectors.npy"].update(size_bytes=2**62))
    with pytest.raises(BundleError, match="at most 1099511627776 bytes"):
        verify_version(version)


def test_a_file_is_hashed_in_chunks_and_never_whole(tmp_path: Path) -> None:
    version = sealed(tmp_path / "v", 1, size_bytes=3_000_016)
    asked: list[int] = []
    real = manifest_module.open_regular

    class Counted:
        def __init__(self, path: Path) -> None:
            self.file = real(path)

        def __enter__(self) -> Counted:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def read(self, count: int) -> bytes:
            asked.append(count)
            return self.file.read(count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_module, "open_regular", Counted)
        verify_version(version)
    assert max(asked) == 1 << 20 and len(asked) == 1 + 4 + 2  # the manifest; three chunks and the end; codes.bin and its end
