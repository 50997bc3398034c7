"""Keeping a store's rows between runs: one JSON file, replaced as a whole."""

import os
import tempfile
from pathlib import Path

from sandbox.store import Store, from_json, to_json


def save(store: Store, file: Path) -> None:
    """Write to a neighbour and rename: a reader finds the old state or the new one, never a half."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.name, suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogatepass") as out:
            out.write(to_json(store.dump()))
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load(store: Store, file: Path) -> None:
    store.load(from_json(file.read_text("utf-8", errors="surrogatepass")))
