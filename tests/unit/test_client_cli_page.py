"""docs/client.md and the options of the command line say the same."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import click

from client.cli.app import app

PAGE = Path(__file__).parents[2] / "docs" / "client.md"
ROWS = re.compile(r"^\| (`-.*?) \| (.*?) \|", re.MULTILINE)


def test_the_table_has_every_option_of_every_command() -> None:
    assert documented() == {name: options_of(command) for name, command in commands(app)}


def commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def options_of(command: click.Command) -> set[str]:
    context = click.Context(command, **app.context_settings)
    parameters = command.get_params(context)
    return {name for each in parameters for name in each.opts if name.startswith("-")}


def documented() -> dict[str, set[str]]:
    """Return the options by command."""
    found: dict[str, set[str]] = defaultdict(set)
    all_of_them = {name for name, _ in commands(app)}
    for options, whose in ROWS.findall(PAGE.read_text()):
        named = {name.removesuffix(" --all") for name in re.findall("`(.*?)`", whose)}
        match whose.split()[0]:
            case "all":
                named = all_of_them - named
            case "none:":
                continue
        for name in named:
            found[name] |= {words.split()[0] for words in re.findall("`(.*?)`", options)}
    return found
