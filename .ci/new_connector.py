"""Writes the skeleton of a connector: `new_connector.py NAME` (or `make new-connector NAME=x`).

What it writes stands in new_connector/ as text, with `$name` for the name and `$class` for the class. It overwrites
nothing. docs/adding-a-connector.md says what comes after it.
"""

# ruff: noqa: INP001, T201 - a script, no package
import argparse
import builtins
import keyword
import re
import sys
from pathlib import Path
from string import Template

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = Path(__file__).resolve().with_suffix("")
NAME = re.compile(r"[a-z][a-z0-9]{1,39}")
FILES = {
    "crm_core/connectors/{}/__init__.py": "connector.py.txt",
    "sandbox/{}/__init__.py": "sandbox.py.txt",
    "sandbox/{}/system.py": "system.py.txt",
    "tests/contract/connectors/{}.py": "remote.py.txt",
    "docs/connectors/{}.md": "page.md.txt",
}
"""What is written -> of which template."""
OCCUPIED = (
    "crm_core/connectors/{}",
    "crm_core/connectors/{}.py",
    "sandbox/{}",
    "sandbox/{}.py",
    "tests/contract/connectors/{}.py",
    "docs/connectors/{}.md",
)
"""Where something else of that name may stand already: a connector, or a part of the frame."""

NEXT = """\
Next:
  make docs                                              the support matrix tells of it
  make lint                                              passes, and has to go on doing so
  make test ARGS="tests/contract/connectors -k {name}-"  is red: what is left to do
docs/adding-a-connector.md says in which order."""


class Refused(Exception):
    """A name that can't be a connector's, with the reason."""


def check(name: str, root: Path) -> None:
    """Raises Refused, which names the name."""
    if not NAME.fullmatch(name):
        raise Refused(
            f"'{name}' can't be the name of a connector: it has 2 to 40 small letters and digits, a letter first."
        )
    kind = class_of(name)
    if keyword.iskeyword(name) or keyword.iskeyword(kind) or hasattr(builtins, kind):
        raise Refused(f"'{name}' can't be the name of a connector: it is a word of Python.")
    for place in OCCUPIED:
        path = place.format(name)
        if (root / path).exists():
            raise Refused(f"'{name}' is taken: there is {path}.")
    for file in TEMPLATES.glob("*.py.txt"):
        if re.search(rf"\b{kind}\b", file.read_text("utf-8")):
            raise Refused(f"'{name}' can't be the name of a connector: {kind} means something else in it.")


def class_of(name: str) -> str:
    return name.capitalize()


def write(name: str, root: Path) -> list[str]:
    """Checks the name and writes the skeleton below `root`; gives the paths of what it wrote."""
    check(name, root)
    words = {"name": name, "class": class_of(name)}
    texts = {
        place.format(name): Template((TEMPLATES / file).read_text("utf-8")).substitute(words)
        for place, file in FILES.items()
    }
    for path, text in texts.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, "utf-8")
    return list(texts)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Writes the skeleton of a connector, its sandbox and its tests."
    )
    parser.add_argument("name", help="such as hubspot; the module, the sandbox and the page are called so")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository (default: this one)")
    arguments = parser.parse_args()
    try:
        written = write(arguments.name, arguments.root)
    except Refused as refused:
        print(f"new-connector: {refused}", file=sys.stderr)
        return 1
    print("\n".join(f"{path}: written" for path in written))
    print(NEXT.format(name=arguments.name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
