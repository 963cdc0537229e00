"""An exact index that reads a quarter of the bytes: products of 8-bit codes first, then the vectors of the rows still possible.

A row's vector is s c + e with c in -127..127, a query's is t p + f with p in -63..63. The product t s (p c), which ONNX Runtime
computes in integers, is off by at most |v| (t |p| |e|/|v| + |f|) (Cauchy-Schwarz). Rows whose upper bound falls below k lower
bounds are out; the rest are compared by the canonical score. So the answer is the exact index's, bit for bit. What follows the product is
compiled where it can be (refining.py).

ONNX Runtime is there anyway and has the fastest such kernel that plain pip installs (`benchmarks/index.py`). Queries have 7 bits:
on processors without VNNI it adds pairs of products in 16 bits, and 2 * 127 * 127 still fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import onnxruntime
import xxhash
from numpy.typing import NDArray

from shortlist.errors import BundleError, ShapeError
from shortlist.index.contract import (
    Eligible,
    Float32s,
    Index,
    Rows,
    best_of_one,
    check_exclude,
    check_queries,
    check_query,
    check_vectors,
    known_rows,
    score_rows,
)
from shortlist.index.engines import require
from shortlist.index.exact import GATHERED_SHARE, gather, reached_by
from shortlist.index.refining import Refiner
from shortlist.sections import IndexSettings

FACTS_FILE, CODES_FILE = "int8.json", "int8.onnx"
FACTS_LARGEST_BYTES = 4096
CODES_LARGEST_BYTES = 2**31 - 2**20  # protobuf's limit, less what is around the codes
ROW_LEVELS, QUERY_LEVELS = 127, 63
ZERO_POINT = 64  # codes of queries are unsigned: 1..127
ROUNDING = 2.0**-20  # relative: some float32 operations on bounds, and that of the canonical score
ROWS_AT_ONCE = 1 << 16
OPSET = 17


class _Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: str
    size: int
    dim: int
    error: float
    codes: str  # xxh3_128 of CODES_FILE


class Int8Index(Index):
    """8-bit codes of all rows, compared with every query."""

    kind = "int8"
    is_exact = True

    def __init__(self, vectors: Float32s, codes: bytes, error: float, *, saved: Path | None = None) -> None:
        """codes   the ONNX graph that `_graph` made; error   the largest |e| / |v| of a row; saved   the file that holds the codes:
        then they are not kept beside those of the session."""
        norms = check_vectors(vectors)
        self._largest_norm = float(norms.max())
        self.size, self.dim = vectors.shape
        self._vectors = vectors.view()
        self._vectors.flags.writeable = False
        self._norms = norms.astype(np.float32)  # (M,)
        self._codes, self._error, self._least = codes if saved is None else saved, error, self.dim * 1e-37
        self._refiner = Refiner(self._vectors)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(codes, options, providers=["CPUExecutionProvider"])

    @classmethod
    def build(cls, vectors: Float32s, settings: IndexSettings) -> Self:
        """An index over `vectors` (M, D) float32. Needs onnx. Raises ShapeError for more codes than one graph holds."""
        check_vectors(vectors)
        if vectors.size > CODES_LARGEST_BYTES:
            raise ShapeError(f'an index of kind "int8" holds at most {CODES_LARGEST_BYTES} codes: got {vectors.size}; use kind "scann"')
        codes, scales, error = quantised(vectors)
        return cls(vectors, _graph(codes, scales), error)

    @classmethod
    def open(cls, folder: Path, vectors: Float32s) -> Self:
        """The index that `save` wrote into `folder`. Raises BundleError naming the file that is damaged, missing or unfit."""
        path = folder / FACTS_FILE
        try:
            with path.open("rb") as file:
                facts = msgspec.json.decode(file.read(FACTS_LARGEST_BYTES), type=_Facts)
            path = folder / CODES_FILE
            codes = path.read_bytes()
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            raise BundleError(f"{path} must belong to an int8 index: {error}; publish again") from None
        size, dim = vectors.shape
        if (facts.kind, facts.size, facts.dim) != (cls.kind, size, dim) or not facts.error >= 0:
            raise BundleError(f"{folder / FACTS_FILE} must describe its vectors, int8 of {size} x {dim}: got {facts}; publish again")
        if xxhash.xxh3_128_hexdigest(codes) != facts.codes:
            raise BundleError(f"{path} must be as saved: its hash changed; publish again")
        return cls(vectors, codes, facts.error, saved=path)

    @property
    def is_compiled(self) -> bool:  # type: ignore[override]  # of the class elsewhere, here of the vectors
        """Is what follows the first pass done by compiled code?"""
        return self._refiner.is_compiled

    def save(self, folder: Path) -> None:
        """Nothing comes back. Writes codes and facts; the vectors are the caller's."""
        codes = self._codes.read_bytes() if isinstance(self._codes, Path) else self._codes
        (folder / CODES_FILE).write_bytes(codes)
        facts = _Facts(self.kind, self.size, self.dim, self._error, xxhash.xxh3_128_hexdigest(codes))
        (folder / FACTS_FILE).write_bytes(msgspec.json.encode(facts))

    def prepare(self, mask: NDArray[np.bool_]) -> Eligible:
        """The rows of `mask`, with copies of their vectors where these are at most a GATHERED_SHARE of the corpus."""
        return Eligible(self, mask, gather=lambda rows: gather(self._vectors, rows) if len(rows) <= GATHERED_SHARE * self.size else None)

    def search(
        self,
        queries: Float32s,
        k: int,
        *,
        exclude: Sequence[NDArray[Any]] | None = None,
        eligible: Eligible | NDArray[np.bool_] | None = None,
    ) -> tuple[Rows, Float32s]:
        """(rows, scores), each (B, k), as the contract says."""
        check_queries(queries, self.dim, k)
        allowed = self._prepared(eligible)
        check_exclude(exclude, len(queries), self.size)
        rows, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        for number, query in enumerate(queries):
            out = None if exclude is None else exclude[number]
            rows[number], scores[number] = self.search_one(query, k, exclude=out, eligible=allowed)
        return rows, scores

    def search_one(
        self,
        query: Float32s,
        k: int,
        *,
        exclude: NDArray[Any] | None = None,
        eligible: Eligible | NDArray[np.bool_] | None = None,
    ) -> tuple[Rows, Float32s]:
        """(rows, scores), each (k,), as the contract says."""
        norm = check_query(query, self.dim, k)
        allowed = self._prepared(eligible)
        if allowed is not None and (allowed.gathered is not None or not len(allowed)):
            return allowed.search_one(query, k, exclude=exclude)
        scaled, t, share = self._first_pass(query, norm)
        if allowed is not None and allowed.penalty is not None:
            scaled += allowed.penalty
        if exclude is not None:
            scaled[known_rows(exclude, self.size)] = -np.inf
        rows = self._refiner.in_reach(scaled, self._norms, t, share, self._least, k)
        if rows is None:
            upper, width = self._bounds(scaled, t, share)
            least = reached_by((upper - width)[None], k)[0]
            rows = np.flatnonzero(upper >= max(least, np.finfo(np.float32).min))
        largest = norm * self._largest_norm
        if len(rows) >= k:
            return self._refiner.best(query, rows, k, largest)
        return best_of_one(rows, score_rows(query, self._vectors, rows, largest), k)

    def estimates(self, query: Float32s) -> Float32s:
        """(M,) what the codes alone make of every row's score: the first pass, without its error."""
        t = float(np.abs(query).max()) / QUERY_LEVELS or 1.0
        return self._scaled(np.rint(query.astype(np.float64) / t)) * np.float32(t)

    def _first_pass(self, query: Float32s, norm: float) -> tuple[Float32s, float, float]:
        """((M,) scaled, t, share): a row's canonical score is off t * scaled by its norm times share, and `_least`, at most."""
        wide = query.astype(np.float64)
        t = float(np.abs(wide).max()) / QUERY_LEVELS or 1.0
        p = np.rint(wide / t)
        rest = wide - t * p
        share = t * float(np.linalg.norm(p)) * self._error + float(np.linalg.norm(rest)) + ROUNDING * norm
        return self._scaled(p), t, share * (1 + 2.0**-20)

    def _bounds(self, scaled: Float32s, t: float, share: float) -> tuple[Float32s, Float32s]:
        """(upper, width), each (M,), of what `_first_pass` says: a canonical score lies between upper - width and upper."""
        half = self._norms * np.float32(share) + np.float32(self._least)  # (M,)
        upper: Float32s = scaled * np.float32(t)
        upper += half
        half *= 2
        return upper, half

    def _scaled(self, p: NDArray[np.float64]) -> Float32s:
        """(M,) s (p c) for a query's codes p (D,)."""
        scaled: Float32s = self._session.run(None, {"query": (p + ZERO_POINT).astype(np.uint8)[None]})[0][0]
        return scaled


def quantised(vectors: Float32s) -> tuple[NDArray[np.int8], Float32s, float]:
    """(codes (M, D), scales (M,), error): vectors are scales * codes but for a remainder of at most error |v| in each row."""
    codes, scales = np.empty(vectors.shape, np.int8), np.empty(len(vectors), np.float32)
    error = 0.0
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        part = vectors[start : start + ROWS_AT_ONCE].astype(np.float64)
        scale = (np.abs(part).max(axis=1) / ROW_LEVELS).astype(np.float32)
        code = np.clip(np.rint(part / np.where(scale > 0, scale, 1).astype(np.float64)[:, None]), -ROW_LEVELS, ROW_LEVELS)
        norm = np.linalg.norm(part, axis=1)
        rest = np.linalg.norm(part - code * scale.astype(np.float64)[:, None], axis=1)
        error = max(error, float((rest[norm > 0] / norm[norm > 0]).max(initial=0)))
        codes[start : start + ROWS_AT_ONCE], scales[start : start + ROWS_AT_ONCE] = code, scale
    return codes, scales, error


def _graph(codes: NDArray[np.int8], scales: Float32s) -> bytes:
    """The ONNX graph from a query's codes (1, D) to scales * (codes @ query) (1, M)."""
    require("onnx")
    from onnx import TensorProto, helper, numpy_helper

    size, dim = codes.shape
    graph = helper.make_graph(
        [
            helper.make_node("MatMulInteger", ["query", "codes", "zero"], ["whole"]),
            helper.make_node("Cast", ["whole"], ["products"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["products", "scales"], ["scaled"]),
        ],
        "int8",
        [helper.make_tensor_value_info("query", TensorProto.UINT8, [1, dim])],
        [helper.make_tensor_value_info("scaled", TensorProto.FLOAT, [1, size])],
        [
            numpy_helper.from_array(np.ascontiguousarray(codes.T), "codes"),
            numpy_helper.from_array(np.array(ZERO_POINT, np.uint8), "zero"),
            numpy_helper.from_array(scales, "scales"),
        ],
    )
    content: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9).SerializeToString()
    return content
