"""Reads items on worker threads while the caller works on those before, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(
    read: Callable[[Item], Result], items: Iterable[Item], *, batch_size: int, workers: int
) -> Iterator[list[Future[Result]]]:
    """Yield lists of up to `batch_size` futures of `read(item)`, in the order of the items.

    While the caller works on one list, the next is read: never more than two lists are in memory,
    however many items there are. A reader's exception stays in its future.
    """
    source = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="capsmith-read")
    lists: deque[list[Future[Result]]] = deque()
    try:
        while True:
            lists.append([pool.submit(read, item) for item in islice(source, batch_size)])
            if len(lists) == 2 or not lists[-1]:
                batch = lists.popleft()
                if not batch:
                    return
                yield batch
    finally:
        pool.shutdown(cancel_futures=True)
