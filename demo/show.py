"""How progress looks: a bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SECONDS_BETWEEN_LINES = 2.0

Advance = Callable[[int], None]


@contextmanager
def progress(title: str, total: int) -> Iterator[Advance]:
    """Gives a function that takes how many are done."""
    with (_bar if sys.stdout.isatty() else _lines)(title, total) as advance:
        yield advance


@contextmanager
def _bar(title: str, total: int) -> Iterator[Advance]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done, total=max(total, done))


@contextmanager
def _lines(title: str, total: int) -> Iterator[Advance]:
    last, shown = time.monotonic(), -1

    def advance(done: int) -> None:
        nonlocal last, shown
        if done != shown and (done >= total or time.monotonic() - last >= _SECONDS_BETWEEN_LINES):
            print(f"{title}: {done:,} of {total:,}")
            last, shown = time.monotonic(), done

    yield advance
