"""When to try again, as a pure function: no sleeping, no clock, no randomness of its own."""

from dataclasses import dataclass

from crm_core.errors import HubError, RateLimited, Recovery, Unavailable

MAX_BACKOFF_SECONDS = 900.0
"""A connection that does not answer is probed at least this often (DESIGN.md section 6: 15 min)."""
FIRST_BACKOFF_SECONDS = 5.0
DEFAULT_RATE_LIMIT_SECONDS = 30.0
"""For a 429 without a Retry-After."""
BAD_ANSWER_ATTEMPTS = 3
JITTER = 0.1


@dataclass(frozen=True)
class Retry:
    """Try again after `delay` seconds; `counts`: it was an attempt."""

    delay: float
    counts: bool = True


@dataclass(frozen=True)
class GiveUp:
    """Repeating can't help; what happens now is the error's `recovery`."""


DELIVERY_SECONDS = (0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""How long a delivery waits before each of its attempts (the schedule of Standard Webhooks): 75 hours in all."""
MAX_ASKED_SECONDS = 86_400.0
"""So long a receiver can ask to be left alone."""


def delivery_delay(tries: int, asked: float | None = None) -> float | None:
    """Seconds before the next attempt of a delivery after so many, None after the last one. `asked`: by the receiver; the
    longer of the two.
    """
    if tries >= len(DELIVERY_SECONDS):
        return None
    return max(DELIVERY_SECONDS[tries], min(asked or 0.0, MAX_ASKED_SECONDS))


def backoff(attempt: int, spread: float = 0.0) -> float:
    """Seconds before attempt number `attempt` + 1: 5 s doubling to 15 min, plus up to 10 % by `spread` (0-1)."""
    delay = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** max(0, min(attempt, 20) - 1))
    return delay * (1 + JITTER * spread)


def decide(error: HubError, attempt: int, spread: float = 0.0) -> Retry | GiveUp:
    """What to do after `attempt` (1 = the first) failed with `error`. `spread` in 0-1 adds jitter.

    A rate limit waits at least what the vendor asked for and is not an attempt.
    """
    if isinstance(error, RateLimited):
        asked = DEFAULT_RATE_LIMIT_SECONDS if error.retry_after is None else error.retry_after
        return Retry(max(0.0, asked) * (1 + JITTER * spread), counts=False)
    if error.recovery is Recovery.RETRY:
        asked = error.retry_after or 0.0 if isinstance(error, Unavailable) else 0.0
        return Retry(max(asked, backoff(attempt, spread)))
    if error.recovery is Recovery.PARK and attempt < BAD_ANSWER_ATTEMPTS:
        return Retry(backoff(attempt, spread))
    return GiveUp()
