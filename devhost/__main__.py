"""The command: `python -m devhost [--app DIR] [--port 7071] [...]`."""

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

from devhost.host import Options, serve
from devhost.queues import Tuning
from devhost.refusal import Refusal


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="devhost", description="Runs an Azure Functions app (Python v2) locally."
    )
    parser.add_argument("--app", type=Path, default=Path(), help="the app's folder (default: this one)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7071, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--settings", type=Path, help="another file than the app's local.settings.json")
    parser.add_argument(
        "--functions-key", help="the key of functions that aren't anonymous (default: random)"
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=30,
        metavar="SECONDS",
        help="for running functions to finish at the end",
    )
    parser.add_argument(
        "--queue-invisibility", type=int, default=600, metavar="SECONDS", help="of a message while it runs"
    )
    parser.add_argument(
        "--poll-min", type=float, default=0.1, metavar="SECONDS", help="between two looks at a queue"
    )
    parser.add_argument(
        "--poll-max", type=float, metavar="SECONDS", help="instead of host.json's maxPollingInterval"
    )
    return parser.parse_args()


class _Lines(logging.Formatter):
    """One line with time, level and logger; what is a JSON object has its own and stands alone, for tools to read."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        return message if message.startswith('{"') and not record.exc_info else super().format(record)


def main() -> int:
    """Run the host; gives the exit code."""
    given = _arguments()
    # An app logs at INFO as on the platform, with the platform's switch at DEBUG; the SDK's log of every storage call
    # would drown it.
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    debug = os.environ.get("PYTHON_ENABLE_DEBUG_LOGGING", "").lower() in ("1", "true")
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])
    logging.getLogger("azure.core.pipeline.policies.http_logging_policy").setLevel(logging.WARNING)
    # A client that sends garbage gets its 400; aiohttp's traceback of it helps nobody.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    options = Options(
        app=given.app.resolve(),
        host=given.host,
        port=given.port,
        settings=given.settings,
        functions_key=given.functions_key,
        grace=given.grace,
        tuning=Tuning(given.queue_invisibility, given.poll_min, given.poll_max),
    )
    try:
        return asyncio.run(serve(options))
    except Refusal as refusal:
        for reason in refusal.reasons:
            print(f"devhost: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
