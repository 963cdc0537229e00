"""The query tower for one query at a time, over arrays of its own: nothing is allocated, looked up or converted for a call.

Half of what ONNX Runtime takes for a small tower is its dealing with the arguments. Here they are bound once, and filled in place.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from shortlist.bundle import QUERY_INPUTS, QUERY_OUTPUTS

Floats = NDArray[np.float32]


class QueryTower:
    """Query -> vector. Safe to call from several threads: each has arrays of its own."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        """session   the tower whose inputs have one row."""
        self._session = session
        self._threads = threading.local()

    def vector(self, seed: Floats | None, history: Floats, pieces: Sequence[Floats]) -> Floats:
        """(1, S) the query's vector.

        seed      (D,) embedding of the seed, None = none
        history   (n <= L, D) embeddings of the history, newest first
        pieces    the features of user and context, one after the other
        """
        try:
            bound: _Bound = self._threads.bound
        except AttributeError:
            bound = self._threads.bound = _Bound(self._session)
        bound.fill(seed, history, pieces)
        self._session.run_with_iobinding(bound.binding)
        return bound.vector.copy()


class _Bound:
    """Inputs and output of one thread, and ONNX Runtime's knowledge of where they are."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        shapes = {given.name: tuple(given.shape) for given in (*session.get_inputs(), *session.get_outputs())}
        arrays = {name: np.zeros(shapes[name], np.float32) for name in (*QUERY_INPUTS, *QUERY_OUTPUTS)}
        self.binding = session.io_binding()
        for name in QUERY_INPUTS:
            self.binding.bind_input(name, "cpu", 0, np.float32, arrays[name].shape, arrays[name].ctypes.data)
        for name in QUERY_OUTPUTS:
            self.binding.bind_output(name, "cpu", 0, np.float32, arrays[name].shape, arrays[name].ctypes.data)
        self._seed, self._has_seed, self._history, self._present, self._features = (arrays[name][0] for name in QUERY_INPUTS)
        self.vector = arrays[QUERY_OUTPUTS[0]]
        self._count = 0  # items of the history that the inputs say

    def fill(self, seed: Floats | None, history: Floats, pieces: Sequence[Floats]) -> None:
        """Nothing comes back: the inputs say this query, and nothing of the one before."""
        self._seed[:] = 0 if seed is None else seed
        self._has_seed[0] = seed is not None
        count = len(history)
        self._history[:count] = history
        if count != self._count:
            self._history[count:], self._present[:count], self._present[count:] = 0, 1, 0
            self._count = count
        if pieces:
            np.concatenate(pieces, out=self._features)
