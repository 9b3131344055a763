"""Batches of texts -> token ids in the same order, in this process or in several, a few batches ahead."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .encoder import Encoder

_Batch = TypeVar("_Batch")
Ids = tuple[NDArray[np.integer], list[int]]
_AHEAD = 4  # batches on the way for each process
_worker: list[Encoder] = []  # the encoder of a worker process


def encode_in_order(
    batches: Iterable[_Batch], texts_of: Callable[[_Batch], Sequence[str]], encoder: Encoder, dtype: str, jobs: int
) -> Generator[tuple[_Batch, Ids]]:
    """Yield each batch with the ids of its documents, one after the other in `dtype`, and the number of each one's."""
    if jobs == 1:
        for batch in batches:
            yield batch, encode(encoder, texts_of(batch), dtype)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, _start, (encoder.arguments,))
    waiting: deque[tuple[_Batch, Future[Ids]]] = deque()
    try:
        for batch in batches:
            waiting.append((batch, pool.submit(_encode_there, texts_of(batch), dtype)))
            if len(waiting) >= jobs * _AHEAD:
                done, ids = waiting.popleft()
                yield done, ids.result()
        for done, ids in waiting:
            yield done, ids.result()
    finally:
        pool.shutdown(cancel_futures=True)


def encode(encoder: Encoder, texts: Sequence[str], dtype: str) -> Ids:
    """Ids of all texts, one after the other, and the number of each one's."""
    found = encoder(texts)
    return np.concatenate(found).astype(dtype), [len(one) for one in found]


def _start(arguments: tuple[str, tuple[int, ...], int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _worker.append(Encoder(*arguments))


def _encode_there(texts: Sequence[str], dtype: str) -> Ids:
    return encode(_worker[0], texts, dtype)
