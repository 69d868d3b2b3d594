"""How long a call takes, as far as a test may judge that on a busy machine."""

import time
from collections.abc import Callable

__all__ = ["cpu_seconds"]


def cpu_seconds(call: Callable[[], object], tries: int = 3) -> float:
    """The least of several tries, in CPU seconds of this thread: a collection of garbage is not the call's own."""
    times = []
    for _ in range(tries):
        began = time.thread_time()
        call()
        times.append(time.thread_time() - began)
    return min(times)
