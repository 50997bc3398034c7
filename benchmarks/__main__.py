"""`python -m benchmarks`: what a first load and a run without changes cost, as a table or (`--json`) as data."""

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import counts, imports, intake, latency, systems
from benchmarks.export import FORMATS, Exported
from benchmarks.export import lines as export_lines
from benchmarks.parts import Bench
from benchmarks.worker import RAW, READ, Cost, Result
from demo.parts import Parts
from demo.trouble import Stopped, Trouble

SIZES = (10_000, 100_000)
PAGES = (5_000, 100)
AIM_READ, AIM_WRITTEN = 0.6, 1.6
"""CPU seconds for 100,000 accounts on the machine for which the aims were set (docs/benchmarks.md): downloaded and
parsed, and written raw as well.
"""


@dataclass(frozen=True)
class Row:
    """One line of the table. `floor`: CPU seconds of the bare loop over the same pages and bytes, where it was run, and
    `scale` what it says of the machine.
    """

    store: str
    records: int
    page: int
    result: Result
    floor: float | None = None
    scale: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return counts.name_of(self.records, self.page)

    def cells(self) -> Sequence[str]:
        load = self.result.load
        thousands = load.records / 1000
        return (
            self.store,
            f"{self.records:,}",
            f"{self.page:,}",
            f"{load.records / load.seconds:,.0f}",
            f"{load.cpu:.2f}",
            f"{self.floor:.2f}" if self.floor else "",
            f"{load.cpu / self.floor:.1f}" if self.floor else "",
            f"{self.result.peak_kib / 1024:.0f}",
            f"{load.remote / thousands:.2f}",
            f"{load.storage / thousands:.2f}",
            str(load.slices),
            f"{self.result.nothing.remote} + {self.result.nothing.storage}" if self.result.nothing else "",
        )


HEADS = (
    "store", "accounts", "page", "records/s", "CPU s", "bare CPU s", "ratio", "peak MiB", "remote/1000",
    "storage/1000", "slices", "nothing new",
)  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures the hub's pull between a Dataverse server and a store that answer at once.",
    )
    parser.add_argument(
        "--records", type=int, nargs="+", default=list(SIZES), help="accounts (default: %(default)s)"
    )
    parser.add_argument(
        "--pages", type=int, nargs="+", default=list(PAGES), help="sizes (default: %(default)s)"
    )
    parser.add_argument(
        "--pushes", type=int, nargs="*", default=[2_000, 10_000], help="contacts (default: %(default)s)"
    )
    parser.add_argument("--latency", type=int, default=10, help="edits that are timed (default: %(default)s)")
    parser.add_argument("--webhooks", type=int, default=2_000, help="that are sent (default: %(default)s)")
    parser.add_argument("--no-azurite", action="store_true", help="only the sink")
    parser.add_argument("--json", action="store_true", help="data instead of a table")
    parser.add_argument("--save-counts", action="store_true", help="write benchmarks/counts.json anew")
    return parser.parse_args()


def rows(bench: Bench, given: argparse.Namespace, exported: list[Exported]) -> Iterator[Row]:
    """The sink's rows with the ids of the golden counts, each with its floor, and a plan of the same; then those of
    Azurite, with what it costs to export each load.
    """
    for records in given.records:
        bench.fill(records)
        for page in given.pages:
            # First: it leaves the remote system with every page at hand.
            floor = bench.run("bare", bench.sink["connection_string"], page)
            bench.empty_sink()
            result = bench.run("pull", bench.sink["connection_string"], page)
            bench.empty_sink()
            yield Row("sink", records, page, result, floor.load.cpu, floor.scale)
        page = max(given.pages)
        yield Row("plan", records, page, bench.run("plan", bench.sink["connection_string"], page))
        bench.empty_sink()
    for records in () if given.no_azurite else given.records:
        bench.fill(records)
        page = max(given.pages)
        salt = f"azurite-{records}"
        yield Row("Azurite", records, page, bench.run("pull", bench.azurite(), page, salt=salt))
        exported += [bench.export(each, records, salt) for each in FORMATS]


def pushes(bench: Bench, given: argparse.Namespace) -> Mapping[int, tuple[Cost, Cost]]:
    """By how many records: what it costs to make them at the remote system, and to change each."""
    return {records: bench.push(records) for records in given.pushes}


def push_lines(found: Mapping[int, tuple[Cost, Cost]]) -> Iterator[str]:
    for records, costs in found.items():
        for what, cost in zip(("made", "changed"), costs, strict=True):
            yield (
                f"push: {records:,} contacts {what}: {cost.remote:,} remote calls, "
                f"{cost.storage * 1000 / records:.1f} storage calls for 1,000, {cost.cpu:.1f} CPU s, {cost.seconds:.1f} s"
            )


def table(found: Sequence[Row]) -> str:
    lines = [HEADS, *(row.cells() for row in found)]
    widths = [max(len(line[number]) for line in lines) for number in range(len(HEADS))]
    return "\n".join(
        "  ".join(cell.rjust(width) if number else cell.ljust(width) for number, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    )  # fmt: skip


def scale_line(found: Sequence[Row]) -> str:
    """How fast this machine is beside the one of the aims, by the largest load; "" without one that was compared."""
    compared = [row for row in found if row.scale]
    if not compared:
        return ""
    row = max(compared, key=lambda row: (row.records, row.page))
    read, written = row.scale[READ], row.scale[READ] + row.scale[RAW]
    aimed = [seconds * row.records / 100_000 for seconds in (AIM_READ, AIM_WRITTEN)]
    return (
        f"scale, {row.name}: downloaded and parsed in {read:.2f} CPU s, {read / aimed[0]:.1f} times those of the aims' "
        f"machine; with raw table writes {written:.2f}, {written / aimed[1]:.1f} times"
    )


def differences(
    found: Sequence[Row],
    pushed: Mapping[int, tuple[Cost, Cost]],
    synced: Mapping[str, systems.SyncResult],
) -> list[str]:
    """Where calls are not the golden ones. A load that took more than a slice has more of them: that is no fault."""
    golden = counts.golden()
    named = {counts.push_name_of(records): counts.push_calls_of(*costs) for records, costs in pushed.items()}
    named |= {counts.sync_name_of(system): counts.sync_calls_of(each) for system, each in synced.items()}
    wrong = [
        f"{name}: {calls}, not {golden[name]}"
        for name, calls in named.items()
        if name in golden and calls != golden[name]
    ]
    return wrong + [
        f"{row.name}: {counts.calls_of(row.result)}, not {golden[row.name]}"
        for row in found
        if row.store == "sink" and row.name in golden and row.result.load.slices == 1
        if counts.calls_of(row.result) != golden[row.name]
    ]


def _imports() -> Mapping[str, imports.Import]:
    return {name: imports.measure(name) for name in ("azure.functions", "function_app")}


def _import_line(found: Mapping[str, imports.Import]) -> str:
    base, app = found.values()
    return (
        f"Importing the app takes {app.seconds:.3f} CPU s, azure.functions alone {base.seconds:.3f}: "
        f"{app.seconds / base.seconds:.2f} times ({len(app.modules)} modules against {len(base.modules)})."
    )


def _run(given: argparse.Namespace, parts: Parts, folder: Path) -> int:
    imported = _imports()
    bench = Bench(parts, folder)
    found: list[Row] = []
    exported: list[Exported] = []
    for row in rows(bench, given, exported):
        found.append(row)
        if not given.json:
            print(f"{row.store}, {row.name}: {row.result.load.seconds:.1f} s", file=sys.stderr)
    pushed = pushes(bench, given)
    synced = {system: bench.sync(system, systems.CHANGED) for system in systems.REMOTES}
    waited = latency.measure(parts, folder / "latency", given.latency) if given.latency else ()
    taken = intake.measure(parts, folder / "webhooks", given.webhooks) if given.webhooks else None
    if given.save_counts:
        loads = {row.name: counts.calls_of(row.result) for row in found if row.store == "sink"}
        counts.save(
            loads
            | {counts.push_name_of(each): counts.push_calls_of(*pushed[each]) for each in pushed}
            | {counts.sync_name_of(each): counts.sync_calls_of(synced[each]) for each in synced}
        )
    wrong = differences(found, pushed, synced)
    if given.json:
        rows_ = [asdict(row) for row in found]
        told = {
            str(each): {"create": asdict(one), "update": asdict(two)} for each, (one, two) in pushed.items()
        }
        seconds = {name: each.seconds for name, each in imported.items()}
        data = {
            "loads": rows_,
            "pushes": told,
            "exports": [asdict(each) for each in exported],
            "systems": {system: asdict(each) for system, each in synced.items()},
            "latency_ms": waited,
            "webhooks": asdict(taken) if taken else None,
            "imports": seconds,
            "differences": wrong,
        }
        print(json.dumps(data, indent=2))
    else:
        print(table(found))
        print("nothing new: remote + storage calls of a pull for which nothing had changed")
        print(scale_line(found))
        print(
            "\n".join(
                [
                    *push_lines(pushed),
                    *export_lines(exported),
                    *systems.lines(synced),
                    *latency.lines(waited),
                    *intake.lines(taken),
                ]
            )
        )
        print(_import_line(imported))
        print("\n".join(wrong) or "Calls are those of benchmarks/counts.json.")
    return 1 if wrong else 0


def main() -> int:
    given = _arguments()
    parts = Parts()
    parts.catch_signals()
    folder = Path(tempfile.mkdtemp(prefix="crm-hub-benchmark-"))
    try:
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.callback(parts.stop)
            return _run(given, parts, folder)
    except Stopped:
        return 130
    except Trouble as trouble:
        print(f"make bench: {trouble}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
