"""What all commands share: how one is declared, its common options, and what it works with."""

import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer

from crm_core.cli.client import LOCAL, Client, Pages, find_key
from crm_core.cli.failures import Exit, Failure
from crm_core.cli.output import Format, Item, Output, on_terminal, peek, plain

PROGRAM = "python -m crm_core"
Handler = Callable[..., Exit | None]

UrlOption = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help=f"The hub's address; else CRMHUB_URL, else {LOCAL}."),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key", metavar="KEY", help="An API key; better in CRMHUB_KEY or a file: others see options."
    ),
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        metavar="FILE",
        help="A file with the API key; for the local hub .data/api-key if missing.",
    ),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", min=1, help="How long the hub has for an answer; else 120."),
]
OutputOption = Annotated[
    Format | None,
    typer.Option("--output", "-o", help="The form of the data; a table if missing.", case_sensitive=False),
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(
        "--columns", metavar="NAMES", help="Columns of a table or CSV, with commas: id,status,counts.created."
    ),
]
SHARED = {
    "url": UrlOption, "key": KeyOption, "key_file": KeyFileOption, "timeout": TimeoutOption, "output": OutputOption,
    "columns": ColumnsOption,
}  # fmt: skip

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="So many items at most.")]
All = Annotated[bool, typer.Option("--all", help="All items, however many.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Asks nothing; needed where nobody can be asked.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Ends as soon as the hub has taken it on.")]


@dataclass
class Job:
    """One command at work: what was said by the common options, the hub and the output."""

    given: dict[str, Any]

    @cached_property
    def hub(self) -> Client:
        import os

        url = self.given.get("url") or os.environ.get("CRMHUB_URL") or LOCAL
        key = self.given.get("key") or os.environ.get("CRMHUB_KEY") or ""
        client = Client(
            url, find_key(url, key, self.given.get("key_file")), self.given.get("timeout") or 120.0
        )
        if client.in_the_clear:
            self.say(f"Note: {client.url} is not https: whoever is on the way can read the key.")
        return client

    @cached_property
    def out(self) -> Output:
        columns = [each.strip() for each in (self.given.get("columns") or "").split(",") if each.strip()]
        return Output(self.given.get("output") or Format.TABLE, columns)

    def say(self, text: str) -> None:
        """For people, on standard error."""
        sys.stderr.write("".join(f"{plain(line)}\n" for line in text.split("\n")))
        sys.stderr.flush()

    def hint(self, text: str) -> None:
        """What somebody who waits at a terminal may want to know, and nobody else."""
        if on_terminal(sys.stderr):
            self.say(text)

    def list(
        self,
        path: str,
        columns: Sequence[str],
        query: dict[str, Any],
        *,
        limit: int,
        everything: bool,
        none: str,
    ) -> None:
        """Shows the items of a list of the hub's. `none`: what to say if there are none."""
        pages = self.hub.items(path, query, limit=None if everything else limit)
        self.show(pages, columns, none)
        self.more(pages, limit)

    def more(self, pages: Pages, limit: int) -> None:
        """Says so if there are more than were shown."""
        if pages.more:
            self.say(f"These are the first {limit}; --limit and --all show more.")

    def show(self, items: Iterable[Item], columns: Sequence[str], none: str = "Nothing.") -> None:
        any_of_them, items = peek(items)
        if any_of_them or self.out.form is not Format.TABLE:
            self.out.rows(items, columns)
        if not any_of_them:
            self.say(none)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Raises Failure unless a person says yes, or has by --yes."""
        if yes:
            return
        if not (on_terminal(sys.stdin) and on_terminal(sys.stderr)):
            raise Failure(Exit.USAGE, "Nobody can be asked here.", "Say --yes if it is to be done.")
        sys.stderr.write(f"{plain(question)} [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Failure(Exit.FAILED, "Nothing was done.")


def group(name: str, about: str, examples: Sequence[str] = ()) -> typer.Typer:
    """A group of commands."""
    return typer.Typer(
        name=name,
        help=about,
        epilog=_epilog(examples),
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
    )


def _epilog(examples: Sequence[str]) -> str | None:
    lines = "\n".join(f"  {PROGRAM} {each}" for each in examples)
    return f"\b\nExamples:\n{lines}" if examples else None


def command(
    app: typer.Typer, name: str, *, examples: Sequence[str] = (), listing: bool = False
) -> Callable[[Handler], Handler]:
    """Declares a handler as a command. It gets a Job, then its own options; what it gives is the exit code.

    `listing`: it is also what the group does if no command is named.
    """

    def declare(handler: Handler) -> Handler:
        if listing:
            app.callback(invoke_without_command=True, help=app.info.help, epilog=app.info.epilog)(
                _plain(handler, whole=False)
            )
            app.info.no_args_is_help = False
        app.command(name, epilog=_epilog(examples), help=inspect.getdoc(handler))(_plain(handler))
        return handler

    return declare


def entry(app: typer.Typer, handler: Handler) -> None:
    """Declares what goes before all commands: its options, and the shared ones once more."""
    app.callback(help=app.info.help, epilog=app.info.epilog)(_plain(handler, whole=False))


def _plain(handler: Handler, *, whole: bool = True) -> Callable[..., None]:
    """The function that typer calls: the handler's own parameters, and the shared ones.

    `whole`: it is the command. Else it is the group, which does its work only if no command is named, and takes no argument.
    """
    own = list(inspect.signature(handler, eval_str=True).parameters.values())[1:]

    def called(ctx: typer.Context, **given: Any) -> None:
        shared = {name: given.pop(name) for name in SHARED}
        before = ctx.obj if isinstance(ctx.obj, dict) else {}
        said = {**before, **{name: value for name, value in shared.items() if value is not None}}
        ctx.obj = said
        if whole or ctx.invoked_subcommand is None:
            try:
                code = handler(Job(said), **given)
            except BrokenPipeError:
                # typer has a code of its own for it.
                raise Failure(Exit.PIPE, "") from None
            raise typer.Exit(code or Exit.OK)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("ctx", keyword, annotation=typer.Context)]
    parameters += [each.replace(kind=keyword) for each in own]
    parameters += [
        inspect.Parameter(name, keyword, default=None, annotation=kind) for name, kind in SHARED.items()
    ]
    called.__name__ = getattr(handler, "__name__", "called")
    called.__annotations__ = {}
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called
