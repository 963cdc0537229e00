"""The store: what is published verifies, what is damaged is refused by name, and no kill leaves a mixture."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest

import shortlist.store as store_module
from shortlist.errors import BundleError
from shortlist.store import MANIFEST, current_version, prune, publish_version, set_current, verify_version, versions


def writer(number: int, size: int = 5003) -> Callable[[Path], None]:
    """Writes two files that both say `number`: a mixture of versions would show."""

    def write(folder: Path) -> None:
        (folder / "index").mkdir()
        (folder / "vectors.npy").write_bytes(f"{number:08d}".encode() * (size // 8))
        (folder / "index" / "codes.bin").write_bytes(f"{number:08d}".encode() * 101)

    return write


def publish(store: Path, number: int) -> Path:
    return publish_version(store, writer(number), facts={"number": number})


def number_of(version: Path) -> int:
    """The number that every part of a version agrees on; the version verifies."""
    numbers = {verify_version(version).facts["number"]}
    for name in ("vectors.npy", "index/codes.bin"):
        numbers.add(int((version / name).read_bytes()[:8]))
    assert len(numbers) == 1, f"{version} is a mixture: {numbers}"
    return int(numbers.pop())


def strays(store: Path) -> list[str]:
    return sorted(path.name for path in store.glob("tmp-*"))


def reseal(version: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Writes a changed manifest whose own hash is right: what an attacker could do."""
    tree = json.loads((version / MANIFEST).read_bytes())
    change(tree)
    tree["sha256"] = ""
    digest = hashlib.sha256(msgspec.json.encode(tree, order="sorted")).hexdigest()
    raw = msgspec.json.encode({**tree, "sha256": digest}, order="sorted")
    (version / MANIFEST).write_bytes(msgspec.json.format(raw, indent=1))


# --- publish, current, rollback, prune


def test_a_published_version_is_live_and_verifies(tmp_path: Path) -> None:
    version = publish(tmp_path / "new" / "store", 7)
    assert version.name == "v000001" and current_version(version.parent) == version
    manifest = verify_version(version)
    assert manifest.format == 1 and manifest.facts == {"number": 7}
    # "00000007" 5003 // 8 = 625 times: 5000 bytes; 101 times: 808 bytes
    assert {name: facts.size_bytes for name, facts in manifest.files.items()} == {"vectors.npy": 5000, "index/codes.bin": 808}
    assert manifest.files["index/codes.bin"].sha256 == hashlib.sha256(b"00000007" * 101).hexdigest()
    assert json.loads((version / MANIFEST).read_bytes())["facts"] == {"number": 7}


def test_an_older_version_can_be_made_live_again(tmp_path: Path) -> None:
    first, second = publish(tmp_path, 1), publish(tmp_path, 2)
    assert versions(tmp_path) == ["v000001", "v000002"] and current_version(tmp_path) == second
    assert set_current(tmp_path, "v000001") == first == current_version(tmp_path)
    assert publish(tmp_path, 3).name == "v000003"
    assert number_of(current_version(tmp_path)) == 3


def test_a_damaged_or_unknown_version_is_not_made_live(tmp_path: Path) -> None:
    first, second = publish(tmp_path, 1), publish(tmp_path, 2)
    (first / "vectors.npy").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"vectors\.npy"):
        set_current(tmp_path, "v000001")
    for name in ("v000009", "../x", "", "tmp-1", "CURRENT", "v000002\n"):
        with pytest.raises(BundleError, match="must be a version"):
            set_current(tmp_path, name)
    assert current_version(tmp_path) == second


def test_names_are_never_given_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2, 3):
        publish(tmp_path, number)
    set_current(tmp_path, "v000001")
    shutil.rmtree(tmp_path / "v000003")  # by hand, past `prune`
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert publish(tmp_path, 4).name == "v000004"
    (tmp_path / "LAST").unlink()
    (tmp_path / "v999999").mkdir()
    assert publish(tmp_path, 5).name == "v1000000"
    assert publish(tmp_path, 6).name == "v1000001"
    assert versions(tmp_path)[-3:] == ["v999999", "v1000000", "v1000001"]  # by number, not by letters


def test_prune_keeps_the_newest_and_the_live_version(tmp_path: Path) -> None:
    for number in range(1, 8):
        publish(tmp_path, number)
    set_current(tmp_path, "v000002")
    assert prune(tmp_path, keep=2) == ["v000001", "v000003", "v000004", "v000005"]
    assert versions(tmp_path) == ["v000002", "v000006", "v000007"]
    assert number_of(current_version(tmp_path)) == 2 and strays(tmp_path) == []
    assert prune(tmp_path) == []
    with pytest.raises(BundleError, match="keep must be at least 1: got 0"):
        prune(tmp_path, keep=0)


def test_a_store_without_a_live_version_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no version is live"):
        current_version(tmp_path)
    with pytest.raises(BundleError, match="nowhere"):
        versions(tmp_path / "nowhere")
    publish(tmp_path, 1)
    shutil.rmtree(tmp_path / "v000001")
    with pytest.raises(BundleError, match="'v000001' must be a version"):
        current_version(tmp_path)


@pytest.mark.parametrize("content", [b"", b"../../etc", b"/etc", b"v1", b"v000001\nv000002\n", b"\xff" * 9, b"v" + b"1" * 5000])
def test_a_hostile_pointer_is_refused(tmp_path: Path, content: bytes) -> None:
    publish(tmp_path, 1)
    (tmp_path / "CURRENT").write_bytes(content)
    with pytest.raises(BundleError, match="CURRENT must hold"):
        current_version(tmp_path)
    (tmp_path / "LAST").write_bytes(content)
    with pytest.raises(BundleError, match="LAST must hold"):
        publish(tmp_path, 2)


def test_a_symlink_is_no_pointer_and_no_version(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    (tmp_path / "v000002").symlink_to(tmp_path / "v000001")
    assert versions(tmp_path) == ["v000001"]
    (tmp_path / "elsewhere").write_text("v000001\n")
    (tmp_path / "CURRENT").unlink()
    (tmp_path / "CURRENT").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="CURRENT must be a regular file"):
        current_version(tmp_path)


# --- what may be published


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    publish(tmp_path, 1)

    def write(folder: Path) -> None:
        for attempt in (lambda: publish(tmp_path, 9), lambda: set_current(tmp_path, "v000001"), lambda: prune(tmp_path)):
            with pytest.raises(BundleError, match=r"\.lock is held"):
                attempt()
        writer(2)(folder)

    publish_version(tmp_path, write, facts={"number": 2})
    with (tmp_path / ".lock").open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BundleError, match=r"\.lock is held"):
            publish(tmp_path, 3)
    assert number_of(publish(tmp_path, 3)) == 3


def test_strays_of_killed_writers_are_swept(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("stays")
    store = tmp_path / "store"
    (store / "tmp-1" / "deep").mkdir(parents=True)
    (store / "tmp-2").write_text("half a pointer")
    (store / "tmp-3").symlink_to(precious)
    publish(store, 1)
    assert strays(store) == [] and (precious / "file").read_text() == "stays"


def test_an_error_of_the_publisher_comes_through_and_leaves_nothing(tmp_path: Path) -> None:
    old = publish(tmp_path, 1)

    def write(folder: Path) -> NoReturn:
        writer(2)(folder)
        raise KeyError("a bug in the caller")

    with pytest.raises(KeyError, match="a bug in the caller"):
        publish_version(tmp_path, write, facts={})
    assert current_version(tmp_path) == old and strays(tmp_path) == [] and versions(tmp_path) == ["v000001"]


def make_symlink(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def make_folder_link(path: Path) -> None:
    path.symlink_to("/tmp", target_is_directory=True)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [make_symlink, make_folder_link, make_pipe])
def test_only_regular_files_are_published_or_verified(tmp_path: Path, make: Callable[[Path], None]) -> None:
    old = publish(tmp_path, 1)

    def write(folder: Path) -> None:
        writer(2)(folder)
        make(folder / "index" / "odd")

    with pytest.raises(BundleError, match="odd must be a regular file"):
        publish_version(tmp_path, write, facts={})
    assert current_version(tmp_path) == old and strays(tmp_path) == []
    make(old / "index" / "odd")
    with pytest.raises(BundleError, match="odd must be a regular file"):
        verify_version(old)
    (old / "index" / "odd").unlink()
    (old / "vectors.npy").unlink()
    make(old / "vectors.npy")
    with pytest.raises(BundleError, match=r"vectors\.npy must be a regular file"):
        verify_version(old)


@pytest.mark.parametrize("name", [MANIFEST, "back\\slash", "new\nline", os.fsdecode(b"\xff")])
def test_names_that_clash_or_do_not_travel_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="must have another name"):
        publish_version(tmp_path, lambda folder: (folder / name).write_text("x"), facts={})  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object(), b"x", Path("/"), {1: "a", "1": "b"}])
def test_facts_that_json_would_change_are_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(BundleError, match="facts must"):
        publish_version(tmp_path, writer(1), facts={"value": value})
    assert not (tmp_path / "v000001").exists()


def test_facts_come_back_as_they_were(tmp_path: Path) -> None:
    facts = {"z": [1, 2.5, None, True], "a": {"ü": "ß\n", "tiny": 5e-324, "big": 2**70, "zero": -0.0}, "empty": {}}
    assert verify_version(publish_version(tmp_path, writer(1), facts=facts)).facts == facts


def test_a_manifest_too_large_to_be_read_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json must stay below 1000000 bytes"):
        publish_version(tmp_path, writer(1), facts={"text": "x" * 1_000_000})
    assert strays(tmp_path) == []


# --- damage


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
    version = publish(tmp_path, 1)
    raw = (version / name).read_bytes()
    for damage, content in damages(raw).items():
        (version / name).write_bytes(content)
        with pytest.raises(BundleError) as caught:
            verify_version(version)
        assert str(version / name) in str(caught.value), damage
    (version / name).write_bytes(raw)
    verify_version(version)


def test_every_single_flipped_bit_of_the_manifest_is_refused(tmp_path: Path) -> None:
    version = publish(tmp_path, 1)
    raw = (version / MANIFEST).read_bytes()
    for place in range(len(raw)):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << (place % 8)
        (version / MANIFEST).write_bytes(bytes(damaged))
        with pytest.raises(BundleError, match=MANIFEST):
            verify_version(version)


def test_files_swapped_between_versions_are_refused_by_name(tmp_path: Path) -> None:
    first, second = publish(tmp_path, 1), publish(tmp_path, 2)
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
    version = publish(tmp_path, 1)
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
    version = publish(tmp_path / "store", 3)
    shutil.copytree(version, tmp_path / "copy")
    assert number_of(tmp_path / "copy") == 3
    (tmp_path / "link").symlink_to(version)
    for wrong in (tmp_path / "link", version / MANIFEST):
        with pytest.raises(BundleError, match="must be a folder"):
            verify_version(wrong)
    with pytest.raises(BundleError, match="nowhere"):
        verify_version(tmp_path / "nowhere")


# --- hostile manifests


def test_a_version_of_a_newer_program_says_upgrade(tmp_path: Path) -> None:
    version = publish(tmp_path, 1)
    reseal(version, lambda tree: tree.update(format=2, unknown_field={"x": 1}))
    with pytest.raises(BundleError, match="made by a newer shortlist: format 2, this one reads up to 1; upgrade"):
        verify_version(version)
    reseal(version, lambda tree: tree.update(format=0))
    with pytest.raises(BundleError, match="must have format 1: got 0"):
        verify_version(version)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "index/../../outside", "a//b", "./a", "", "a\\b", "a\0b", MANIFEST, "x/"])
def test_a_manifest_that_names_files_outside_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    version = publish(tmp_path, 1)
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
    version = publish(tmp_path, 1)
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
    version = publish(tmp_path, 1)
    (version / MANIFEST).write_bytes(raw)
    with pytest.raises(BundleError, match=MANIFEST):
        verify_version(version)


def test_a_huge_sparse_manifest_is_not_read_into_memory(tmp_path: Path) -> None:
    version = publish(tmp_path, 1)
    with (version / MANIFEST).open("wb") as file:
        file.truncate(1 << 36)
    with pytest.raises(BundleError, match="must stay below 1000000 bytes"):
        verify_version(version)


def test_sizes_beyond_the_limit_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    version = publish(tmp_path, 1)
    assert verify_version(version, max_bytes=5808).facts == {"number": 1}  # 5000 + 808
    with pytest.raises(BundleError, match=r"at most 5807 bytes: manifest\.json lists 5808"):
        verify_version(version, max_bytes=5807)
    reseal(version, lambda tree: tree["files"]["vectors.npy"].update(size_bytes=2**62))
    with pytest.raises(BundleError, match="at most 1099511627776 bytes"):
        verify_version(version)


# --- errors of the file system and kills

CALLS = ("fsync", "rename", "replace", "open", "mkdir")


def fail_at(monkeypatch: pytest.MonkeyPatch, place: int, act: Callable[[], None]) -> list[str]:
    """Makes the `place`-th call that touches the disk run `act` instead; the list fills with the calls made."""
    made: list[str] = []

    def patched(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*positional: Any, **named: Any) -> Any:
            made.append(name)
            if len(made) == place + 1:
                act()
            return real(*positional, **named)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, patched(name))
    return made


def raise_error(number: int) -> Callable[[], None]:
    def act() -> NoReturn:
        raise OSError(number, os.strerror(number))

    return act


def test_an_error_at_any_call_leaves_the_old_version_live_and_no_tmp(tmp_path: Path) -> None:
    publish(tmp_path, 0)
    with pytest.MonkeyPatch.context() as patch:
        made = fail_at(patch, -1, lambda: None)
        publish(tmp_path, 1)
    pointer = len(made) - made[::-1].index("replace") - 1  # the call that switches CURRENT
    assert made.count("fsync") >= 8  # two files, the manifest, two folders, LAST, CURRENT, the store
    for place in range(len(made)):
        before = number_of(current_version(tmp_path))
        number = 100 + place
        with pytest.MonkeyPatch.context() as patch:
            fail_at(patch, place, raise_error(errno.EIO if place % 2 else errno.ENOSPC))
            with pytest.raises(BundleError, match="publishing to"):
                publish(tmp_path, number)
        assert number_of(current_version(tmp_path)) == (before if place <= pointer else number)
        assert strays(tmp_path) == []
        for name in versions(tmp_path):
            number_of(tmp_path / name)
    assert number_of(publish(tmp_path, 9)) == 9


def test_a_full_disk_while_the_publisher_writes_is_reported(tmp_path: Path) -> None:
    old = publish(tmp_path, 1)

    def write(folder: Path) -> NoReturn:
        (folder / "half").write_bytes(b"x" * 100)
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "half"))

    with pytest.raises(BundleError, match=r"No space left on device: .*half"):
        publish_version(tmp_path, write, facts={})
    assert current_version(tmp_path) == old and strays(tmp_path) == []


def in_child(work: Callable[[], None]) -> int:
    """The id of a forked child that does `work` and leaves without touching pytest."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def publish_for_ever(store: Path) -> None:
    number = 1000
    while True:
        number += 1
        publish(store, number)
        if number % 5 == 0:
            prune(store, keep=2)


def check_after_kill(store: Path, at_least: int) -> int:
    """The live number after a kill: whole, and no older than what was live before it."""
    live = number_of(current_version(store))
    assert live >= at_least
    for name in versions(store):
        number_of(store / name)
    return live


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_kill_at_any_moment_leaves_a_whole_version_live(tmp_path: Path) -> None:
    moments = random.Random(7)
    publish(tmp_path, 0)
    publishing_when_killed = 0
    for kill in range(60):
        before = number_of(current_version(tmp_path))
        child = in_child(lambda: publish_for_ever(tmp_path))
        time.sleep(moments.uniform(0.001, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        check_after_kill(tmp_path, min(before, 1000))
        publishing_when_killed += bool(strays(tmp_path))
        assert number_of(publish(tmp_path, kill)) == kill == number_of(current_version(tmp_path))
        assert strays(tmp_path) == []
        prune(tmp_path, keep=1)
    assert publishing_when_killed > 5  # the kills did hit writers in the middle of their work


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_kill_at_every_call_leaves_the_old_version_or_the_new_one(tmp_path: Path) -> None:
    publish(tmp_path, 0)
    with pytest.MonkeyPatch.context() as patch:
        made = fail_at(patch, -1, lambda: None)
        publish(tmp_path, 1)
    seen = set()
    for place in range(len(made)):
        publish(tmp_path, 1)

        def work(place: int = place) -> None:
            with pytest.MonkeyPatch.context() as patch:
                fail_at(patch, place, lambda: os.kill(os.getpid(), signal.SIGKILL))
                publish(tmp_path, 2)

        _, status = os.waitpid(in_child(work), 0)
        assert os.WIFSIGNALED(status)
        live = check_after_kill(tmp_path, 1)
        seen.add(live)
        assert number_of(publish(tmp_path, 3)) == 3 and strays(tmp_path) == []
        prune(tmp_path, keep=1)
    assert seen == {1, 2}


def test_what_is_synced_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[tuple[str, str]] = []
    real_fsync, real_rename, real_replace = os.fsync, os.rename, os.replace

    def fsync(descriptor: int) -> None:
        log.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", lambda old, new: (log.append(("rename", Path(new).name)), real_rename(old, new)))
    monkeypatch.setattr(os, "replace", lambda old, new: (log.append(("rename", Path(new).name)), real_replace(old, new)))
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to name open files")
    store = tmp_path / "store"
    publish(store, 1)
    steps = [name if not name.startswith("tmp-") else "tmp" for _, name in log]
    assert steps[0] == tmp_path.name  # the new store itself
    assert sorted(steps[1:3]) == ["codes.bin", "vectors.npy"]
    # manifest, folders from the inside, then: LAST (file, rename, parent), the version (rename, parent), CURRENT likewise
    assert steps[3:] == [MANIFEST, "index", "tmp", "tmp", "LAST", "store", "v000001", "store", "tmp", "CURRENT", "store"]


def test_the_module_needs_little_memory_to_verify(tmp_path: Path) -> None:
    """A file is hashed in chunks: reading it whole would ask for more than a chunk at a time."""
    version = publish_version(tmp_path, lambda folder: (folder / "big").write_bytes(b"x" * 3_000_017) and None, facts={})
    asked: list[int] = []
    real = store_module._open_regular

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
        patch.setattr(store_module, "_open_regular", Counted)
        verify_version(version)
    assert max(asked) == 1 << 20 and len(asked) == 1 + 4  # the manifest; three chunks and the end
