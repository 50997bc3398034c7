"""The measured process of a plan: everything that a first load would do is decided and told, and nothing is done.

What it tells goes to files, as it goes to Blob Storage elsewhere: kept in memory it would hide what the plan itself takes.
"""

import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, unquote

from benchmarks.worker import Bench, Result, Task, peak_kib
from crm_core.model.connection import DEFAULT_TENANT


class Files:
    """`Blob`, a file for each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _file(self, name: str) -> Path:
        return self._folder / quote(name, safe="")

    def put(self, name: str, data: bytes) -> None:
        self._file(name).write_bytes(data)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes | None:
        if not self._file(name).exists():
            return None
        with self._file(name).open("rb") as file:
            file.seek(offset)
            return file.read(-1 if length is None else length)

    def delete(self, name: str) -> None:
        self._file(name).unlink(missing_ok=True)

    def names(self, prefix: str, top: int = 1000) -> list[str]:
        return sorted(
            name for each in self._folder.iterdir() if (name := unquote(each.name)).startswith(prefix)
        )[:top]


def plan(task: Task) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(task, blob=Files(Path(folder)))
        with closing(bench.hub):
            run = bench.hub.start_run(
                DEFAULT_TENANT,
                bench.connection.uid,
                [bench.entity],
                "plan",
                "key:benchmark",
                of="incremental",
            )
            cost = bench.worked()
            ended = bench.hub.runs.get(DEFAULT_TENANT, run.id)
            assert ended is not None
            if ended.status != "succeeded" or ended.plan["decisions"] != ended.read:
                raise RuntimeError(f"the plan {ended.status} with {ended.plan}: {ended.problem}")
            return Result(replace(cost, records=ended.read), None, peak_kib(), ended.counts)
