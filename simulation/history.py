"""What happened, as lines that a person can read; formatted only when they are shown."""

import re
from collections import deque
from collections.abc import Callable
from typing import Any

from simulation.scheduler import SECOND, Scheduler

LONG = re.compile(r"\b(?:\d{14}-)?([0-9a-f]{8})-[0-9a-f]{3}[0-9a-f-]*")


def short(text: Any) -> str:
    """Ids by their first eight characters."""
    return LONG.sub(r"\1", str(text))


class History:
    """Keeps the last lines; `sink` gets each as it comes. Port calls are kept only if `verbose`."""

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        verbose: bool = False,
        sink: Callable[[str], None] | None = None,
        keep: int = 400,
    ) -> None:
        self.verbose = verbose
        self._scheduler = scheduler
        self._sink = sink
        self._lines: deque[tuple[int, str, str, tuple[Any, ...]]] = deque(maxlen=keep)

    def note(self, who: str, text: str, *parts: Any) -> None:
        """`text` with `{}` for the parts."""
        line = (self._scheduler.now, who, text, parts)
        if self._sink is None:
            self._lines.append(line)
        else:
            self._sink(_shown(*line))

    def lines(self) -> list[str]:
        return [_shown(*line) for line in self._lines]


def _shown(now: int, who: str, text: str, parts: tuple[Any, ...]) -> str:
    minutes, micros = divmod(now, 60 * SECOND)
    hours, minutes = divmod(minutes, 60)
    told = text.format(*(short(part) for part in parts))
    return f"{hours:02}:{minutes:02}:{micros / SECOND:06.3f}  {who:<16} {told}"
