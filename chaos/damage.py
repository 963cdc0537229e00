"""Is a damaged version ever opened? Files cut, flipped, swapped, replaced; manifests and headers that lie; links and devices.

    python chaos/damage.py                     # 5,000 mutations: about 5 minutes
    python chaos/damage.py --seed 7 --only 4711     # one mutation again

A mutation is drawn from (seed, number) alone, so any of them can be had again. Most leave the manifest as it was published: each must be
refused with a BundleError that names the file. The rest are sealed anew, as a careless or hostile publisher would: then hashes fit, and the
version must be refused with a BundleError or answer, never end in another way. All run in a process of their own: a crash is seen.
Ends with 1 where one mutation breaks a promise; its number is printed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.errors import BundleError
from shortlist.manifest import MANIFEST, published_facts, seal
from shortlist.serve.loading import load_version
from shortlist.serve.settings import ServeSettings

SLOW_S = 1.0  # that a refusal may take, on an idle machine
SEALED_SHARE = 0.3  # of the mutations
RSS_ROOM_MB = 100  # that all mutations together may cost


def main() -> int:
    options = read_options()
    with tempfile.TemporaryDirectory() as name:
        from stores import two_versions

        store = two_versions(Path(name) / "store")
        numbers = [options.only] if options.only is not None else list(range(options.mutations))
        facts, faults = mutate_all(store, numbers, options.seed)
    print(json.dumps({"seed": options.seed, **facts}))
    for fault in faults[:20]:
        print(f"BROKEN: {fault}; again: python chaos/damage.py --seed {options.seed} --only NUMBER", file=sys.stderr)
    return 1 if faults else 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one mutation")
    return parser.parse_args()


def mutate_all(store: Path, numbers: list[int], seed: int) -> tuple[dict[str, Any], list[str]]:
    """(what happened, the promises that were broken) over the mutations of that store's two versions, in a process of its own."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("forkserver").Process(target=_work, args=(there, str(store), numbers, seed))
    process.start()
    there.close()
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    slowest, last, memory = 0.0, -1, {}
    try:
        while True:
            said = here.recv()
            if "memory_mb" in said:
                memory = said
                break
            last = said["number"]
            if "outcome" in said:
                outcomes[said["outcome"]] += 1
                slowest = max(slowest, said["seconds"])
                if said["fault"]:
                    faults.append(f"mutation {last}: {said['fault']}")
    except EOFError:
        faults.append(f"mutation {last} ended the process")
    process.join()
    if memory and memory["memory_mb"] > RSS_ROOM_MB:
        faults.append(f"memory must grow by at most {RSS_ROOM_MB} MB: got {memory['memory_mb']:.0f}")
    return {"mutations": sum(outcomes.values()), **outcomes, "slowest_s": round(slowest, 3), **memory}, faults


def _work(pipe: Connection, store: str, numbers: list[int], seed: int) -> None:
    load_version(Path(store) / "v000001", ServeSettings(), ())  # what a whole version takes is no mutation's fault
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in numbers:
        pipe.send({"number": number})
        with tempfile.TemporaryDirectory() as name:
            pipe.send({"number": number, **try_mutation(Path(store), Path(name), number, seed)})
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send({"memory_mb": (after - before) / 1024})


def try_mutation(store: Path, scratch: Path, number: int, seed: int) -> dict[str, Any]:
    """What became of one mutation: its outcome, the seconds to refuse it, and the promise that it broke."""
    rng = np.random.default_rng((seed, number))
    folder, other = Path(shutil.copytree(store / "v000001", scratch / "v000001")), store / "v000002"
    is_sealed = bool(rng.random() < SEALED_SHARE)
    kinds = SEALED_KINDS if is_sealed else KINDS
    kind = sorted(kinds)[int(rng.integers(len(kinds)))]
    facts = published_facts(folder)
    name = kinds[kind](folder, other, rng)
    if name is None:
        return {"outcome": "nothing to change", "seconds": 0.0, "fault": None}
    what = f"{kind} of {name}{', sealed anew' if is_sealed else ''}"
    if is_sealed:
        (folder / MANIFEST).unlink(missing_ok=True)
        seal(folder, facts)
    started = time.perf_counter()
    try:
        load_version(folder, ServeSettings(canary_queries=3), ())
    except BundleError as error:
        seconds = time.perf_counter() - started
        named = [*name.split(" and "), *(_files(folder) if kind == "file of the other version" and name == MANIFEST else [])]
        is_named = is_sealed or any(one in str(error) for one in named)
        fault = None if is_named else f"{what}: the refusal must name it: got {error}"
        if seconds > SLOW_S * max(1.0, os.getloadavg()[0]):
            fault = f"{what}: took {seconds:.1f} s"
        return {"outcome": "sealed, refused" if is_sealed else "refused", "seconds": seconds, "fault": fault}
    except BaseException as error:
        return {"outcome": "other end", "seconds": 0.0, "fault": f"{what}: must end in a BundleError: got {type(error).__name__}: {error}"}
    return {"outcome": "sealed, answers" if is_sealed else "OPENED", "seconds": 0.0, "fault": None if is_sealed else f"{what}: was opened"}


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)


def _any_file(folder: Path, rng: np.random.Generator) -> str:
    names = [*_files(folder), MANIFEST]
    return names[int(rng.integers(len(names)))]


def _cut(folder: Path, other: Path, rng: np.random.Generator) -> str | None:
    name = _any_file(folder, rng)
    size = (folder / name).stat().st_size
    left = [0, size // 100, size // 2, size * 999 // 1000, size - 1][int(rng.integers(5))]
    if left == size:
        return None
    os.truncate(folder / name, left)
    return name


def _grow(folder: Path, other: Path, rng: np.random.Generator) -> str:
    name = _any_file(folder, rng)
    with (folder / name).open("ab") as file:
        file.write(rng.bytes(int(rng.integers(1, 9))))
    return name


def _flip(folder: Path, other: Path, rng: np.random.Generator) -> str | None:
    name = _any_file(folder, rng)
    raw = bytearray((folder / name).read_bytes())
    if not raw:
        return None
    for _ in range(int(rng.integers(1, 4))):
        raw[int(rng.integers(len(raw)))] ^= 1 << int(rng.integers(8))
    if bytes(raw) == (folder / name).read_bytes():
        return None
    (folder / name).write_bytes(raw)
    return name


def _flip_header(folder: Path, other: Path, rng: np.random.Generator) -> str | None:
    """Bits of the first 200 bytes of an array or a graph: shapes, types, lengths."""
    names = [
        name for name in _files(folder) if name.endswith((".npy", ".onnx", ".safetensors", ".parquet")) and (folder / name).stat().st_size
    ]
    name = names[int(rng.integers(len(names)))]
    raw = bytearray((folder / name).read_bytes())
    raw[int(rng.integers(min(200, len(raw))))] ^= 1 << int(rng.integers(8))
    (folder / name).write_bytes(raw)
    return name


def _of_the_other_version(folder: Path, other: Path, rng: np.random.Generator) -> str | None:
    name = _any_file(folder, rng)
    if not (other / name).exists() or (other / name).read_bytes() == (folder / name).read_bytes():
        return None
    shutil.copyfile(other / name, folder / name)
    return name


def _exchange(folder: Path, other: Path, rng: np.random.Generator) -> str | None:
    names = _files(folder)
    one, two = rng.choice(len(names), 2, replace=False)
    first, second = folder / names[one], folder / names[two]
    if first.read_bytes() == second.read_bytes():
        return None
    spare = folder.parent / "spare"
    first.rename(spare)
    second.rename(first)
    spare.rename(second)
    return f"{names[one]} and {names[two]}"


def _random_bytes(folder: Path, other: Path, rng: np.random.Generator) -> str:
    name = _any_file(folder, rng)
    (folder / name).write_bytes(rng.bytes(int(rng.integers(0, 5000))))
    return name


def _hostile_npy(folder: Path, other: Path, rng: np.random.Generator) -> str:
    names = [name for name in _files(folder) if name.endswith(".npy")]
    name = names[int(rng.integers(len(names)))]
    header = [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 128), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '<f4', 'fortran_order': True, 'shape': (4, 4), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 2), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (), }",
        "__import__('os').abort()",
        "(" * 5000,
    ][int(rng.integers(8))].encode("latin1")
    padded = header + b" " * (-(len(header) + 11) % 64) + b"\n"
    (folder / name).write_bytes(b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + b"cos\nsystem\n" + bytes(64))
    return name


def _hostile_safetensors(folder: Path, other: Path, rng: np.random.Generator) -> str:
    names = [name for name in _files(folder) if name.endswith(".safetensors")]
    name = names[int(rng.integers(len(names)))]
    header = [
        b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}',
        b'{"a":{"dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[0,0]}}',
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}',
        b"[" * 2000,
        json.dumps({f"t{n}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(20_000)}).encode(),
    ][int(rng.integers(5))]
    length = len(header) if rng.random() < 0.8 else 1 << 62
    (folder / name).write_bytes(length.to_bytes(8, "little") + header)
    return name


def _external_onnx(folder: Path, other: Path, rng: np.random.Generator) -> str:
    """A graph with a weight that is said to be in another file: TensorProto.external_data, key `location`."""
    name = ("query_tower.onnx", "item_tower.onnx")[int(rng.integers(2))]
    value = [b"/etc/passwd", b"../v000002/vectors.npy", b"tables/0.npy"][int(rng.integers(3))]
    entry = b"\x0a\x08location\x12" + bytes([len(value)]) + value
    tensor = b"\x08\x04\x10\x01\x42\x01w\x6a" + bytes([len(entry)]) + entry + b"\x70\x01"
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    (folder / name).write_bytes((folder / name).read_bytes() + b"\x3a" + bytes([len(graph)]) + graph)
    return name


def _link(folder: Path, other: Path, rng: np.random.Generator) -> str:
    name = _any_file(folder, rng)
    target = [other / name, folder.parent / "kept", Path("/etc/hostname"), Path("..")][int(rng.integers(4))]
    (folder / name).rename(folder.parent / "kept")
    (folder / name).symlink_to(target)
    return name


def _pipe(folder: Path, other: Path, rng: np.random.Generator) -> str:
    name = _any_file(folder, rng)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    return name


def _folder(folder: Path, other: Path, rng: np.random.Generator) -> str:
    name = _any_file(folder, rng)
    (folder / name).unlink()
    (folder / name).mkdir()
    return name


def _linked_folder(folder: Path, other: Path, rng: np.random.Generator) -> str:
    name = ("tables", "index", "user_features")[int(rng.integers(3))]
    if (folder / name).exists():
        shutil.rmtree(folder / name)
    (folder / name).symlink_to(other / name)
    return name


def _lost(folder: Path, other: Path, rng: np.random.Generator) -> str:
    name = _any_file(folder, rng)
    (folder / name).unlink()
    return name


def _extra(folder: Path, other: Path, rng: np.random.Generator) -> str:
    name = ["extra.npy", "tables/9.npy", "index/scann_docids.pkl", "model.pt"][int(rng.integers(4))]
    (folder / name).write_bytes(rng.bytes(17))
    return name


def _manifest(folder: Path, other: Path, rng: np.random.Generator) -> str:
    tree = json.loads((folder / MANIFEST).read_bytes())
    names = sorted(tree["files"])
    name = names[int(rng.integers(len(names)))]
    hostile: list[Callable[[], Any]] = [
        lambda: tree["files"].update({"../v000002/vectors.npy": tree["files"].pop(name)}),
        lambda: tree["files"].update({"/etc/passwd": tree["files"].pop(name)}),
        lambda: tree["files"].update({"a\u0000b": tree["files"].pop(name)}),
        lambda: tree["files"].update({name: {"size_bytes": 2**63, "sha256": "0" * 64}}),
        lambda: tree["files"].update({name: {"size_bytes": -1, "sha256": "0" * 64}}),
        lambda: tree["files"].pop(name),
        lambda: tree["files"].update({f"more{n}": {"size_bytes": 0, "sha256": "0" * 64} for n in range(2000)}),
        lambda: tree.update(format=2),
        lambda: tree.update(format="1"),
        lambda: tree.update(sha256="0" * 64),
        lambda: tree["facts"].update(bundle=99),
        lambda: tree["facts"].update(item_id="another"),
        lambda: tree.update(extra=1),
        lambda: tree.update(facts=[]),
        lambda: tree.pop("files"),
    ]
    choice = int(rng.integers(len(hostile) + 5))
    if choice < len(hostile):
        hostile[choice]()
        raw = json.dumps(tree).encode()
    else:
        raw = [b"[" * 100_000, b"\xff\xfe{}", b'{"format":1,"format":1}', b" " * 2_000_000, b'{"format":' + b"9" * 5000 + b"}"][
            choice - len(hostile)
        ]
    (folder / MANIFEST).write_bytes(raw)
    return MANIFEST


Kind = Callable[[Path, Path, np.random.Generator], str | None]
KINDS: dict[str, Kind] = {
    "cut": _cut,
    "growth": _grow,
    "flip": _flip,
    "flip in the header": _flip_header,
    "file of the other version": _of_the_other_version,
    "exchange": _exchange,
    "random bytes": _random_bytes,
    "hostile npy": _hostile_npy,
    "hostile safetensors": _hostile_safetensors,
    "external data": _external_onnx,
    "link": _link,
    "pipe": _pipe,
    "folder": _folder,
    "linked folder": _linked_folder,
    "loss": _lost,
    "extra": _extra,
    "hostile manifest": _manifest,
}
_NOT_SEALED = ("link", "pipe", "folder", "linked folder", "hostile manifest")  # `seal` itself refuses these
SEALED_KINDS = {name: kind for name, kind in KINDS.items() if name not in _NOT_SEALED}


if __name__ == "__main__":
    sys.exit(main())
