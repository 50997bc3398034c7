"""What a shell offers while somebody types, and the scripts that let it ask. Nothing here may take long or say a word."""

import sys
from enum import StrEnum
from shlex import quote
from typing import Annotated, Any

import typer

from crm_core.cli.client import HERE, path_of
from crm_core.cli.command import Job
from crm_core.cli.failures import Failure

NAME = "crmhub"
VARIABLE = "_CRMHUB_COMPLETE"
SECONDS = 2.0
BASH = """{name}() {{ {launch} "$@"; }}
_{name}_completion() {{
    local IFS=$'\\n'
    COMPREPLY=( $(env COMP_WORDS="${{COMP_WORDS[*]}}" COMP_CWORD=$COMP_CWORD {variable}=complete_bash {launch}) )
}}
complete -o default -F _{name}_completion {name}
"""
ZSH = """{name}() {{ {launch} "$@"; }}
(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit; }}
_{name}_completion() {{
    eval $(env _TYPER_COMPLETE_ARGS="${{words[1,$CURRENT]}}" {variable}=complete_zsh {launch})
}}
compdef _{name}_completion {name}
"""
FISH = """function {name}; {launch} $argv; end
complete --command {name} --no-files \\
    --arguments "(env {variable}=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS=(commandline -cp) {launch})" \\
    --condition "env {variable}=complete_fish _TYPER_COMPLETE_FISH_ACTION=is-args _TYPER_COMPLETE_ARGS=(commandline -cp) {launch}"
"""


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


SCRIPTS = {Shell.BASH: BASH, Shell.ZSH: ZSH, Shell.FISH: FISH}


def script(shell: Shell) -> str:
    """For a shell: the function `crmhub`, which runs this program from any folder, and what completes its words."""
    launch = f"env PYTHONPATH={quote(str(HERE))} {quote(sys.executable)} -m crm_core"
    return SCRIPTS[shell].format(name=NAME, launch=launch, variable=VARIABLE)


def connections(ctx: typer.Context, incomplete: str) -> list[str]:
    """The names of connections; none where the hub can't be asked."""
    given: dict[str, Any] = {}
    place: Any = ctx
    while place is not None:
        given = {**{name: value for name, value in place.params.items() if value is not None}, **given}
        place = place.parent
    try:
        hub = Job({**given, "timeout": SECONDS}).hub
        found = hub.get(path_of("integrations"))["value"]
    except (Failure, KeyError, TypeError):
        return []
    return [each["slug"] for each in found if each["slug"].startswith(incomplete)]


ConnectionName = Annotated[
    str, typer.Argument(metavar="CONNECTION", help="A connection, by its name.", autocompletion=connections)
]
OfConnection = Annotated[
    str,
    typer.Option(
        "--connection", "-c", help="Of this connection only.", metavar="NAME", autocompletion=connections
    ),
]
