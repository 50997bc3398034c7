"""Fails if a test was skipped for a reason that nobody expected: `check_skips.py REPORT.xml EXPECTED.txt`.

REPORT is pytest's JUnit report; EXPECTED has part of a reason in each line, "#" begins a comment.
"""

# ruff: noqa: INP001 - a script, no package
import sys
from pathlib import Path
from xml.etree import ElementTree as ET


def skips(report: Path) -> list[tuple[str, str]]:
    """(test, reason) of every skipped test. An expected failure is no skip."""
    found = []
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 - written by our own pytest
        for skip in case.findall("skipped"):
            if skip.get("type") != "pytest.xfail":
                test = f"{case.get('classname', '')}::{case.get('name', '')}"
                found.append((test, f"{skip.get('message', '')} {skip.text or ''}".strip()))
    return found


def expectations(file: Path) -> list[str]:
    lines = (line.strip() for line in file.read_text("utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def main() -> int:
    report, expected = Path(sys.argv[1]), expectations(Path(sys.argv[2]))
    skipped = skips(report)
    surprises = [(test, why) for test, why in skipped if not any(each in why for each in expected)]
    for test, why in surprises:
        sys.stderr.write(f"skipped without being expected: {test}: {why}\n")
    sys.stdout.write(f"{len(skipped)} skipped, {len(surprises)} of them for an unexpected reason\n")
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
