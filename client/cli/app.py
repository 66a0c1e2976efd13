"""The commands by name. Each is in a file of its own, which is loaded when it is needed."""

import importlib
import io
import os
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from .. import __version__
from .options import EPILOG

EXIT_OUTPUT_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


class Home(NamedTuple):
    """Where a command is."""

    module: str

    function: str

    summary: str
    """For the list of commands: `--help` loads none of them."""


COMMANDS: Final = {
    "predict": Home("predict", "predict", "Label images."),
    "submit": Home("submit", "submit", "Have images accepted now, to be labelled later."),
    "wait": Home("wait", "wait", "Wait for submitted images and print their labels."),
    "operations": Home("operations", "operations", "List what was submitted, or show one."),
    "cancel": Home("operations", "cancel", "Cancel what was submitted."),
    "delete": Home("operations", "delete", "Forget what was submitted, and its labels."),
    "models": Home("inspect", "models", "List the models that are served, or describe one."),
    "health": Home("inspect", "health", "Say whether a service is serving."),
    "top": Home("top", "top", "Show what the whole system does, live."),
    "dead-letters": Home("dead_letters", "dead_letters", "Look after images whose workers died."),
    "tune": Home("tune", "tune", "Find the fastest engine of a model on this machine."),
    "forget-model": Home("inspect", "forget_model", "Forget a model that is no longer served."),
}
"""In the order in which one needs them."""


class Commands(click.Group):
    """Loads a command when it runs; ends as a good citizen of a pipeline does."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command, with all that it needs."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        home = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(f".{home.module}", __package__), home.function)
        assert isinstance(command, click.Command)  # noqa: S101 - a wrong row above
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without loading them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, home.summary) for name, home in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; flush here, where a broken pipe can still be caught."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except KeyboardInterrupt:
            ctx.exit(EXIT_INTERRUPTED)
        except click.Abort as abort:
            # A prompt makes this of Ctrl-C, and of a no and an input that has ended, too.
            if isinstance(abort.__context__, KeyboardInterrupt):
                ctx.exit(EXIT_INTERRUPTED)
            raise
        except BrokenPipeError:
            _drop_output()
            ctx.exit(EXIT_BROKEN_PIPE)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@click.version_option(__version__, prog_name="despacho")
def app() -> None:
    """Label images through a Despacho server."""


def main() -> None:
    """Run the command line; never returns."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        # Whoever closed it has nothing to say, or wants to hear nothing.
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - until the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A label that the terminal cannot show is no reason to stop.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="despacho")
    except OSError as error:
        if error.filename is not None:
            raise  # of a file that somebody forgot to look after
        _drop_output()
        click.echo(f"Error: {error.strerror}", err=True)
        sys.exit(EXIT_OUTPUT_FAILED)


def _drop_output() -> None:
    # Python flushes again when it exits, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
