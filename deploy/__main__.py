"""Start, stop and look at the services: what `make up` and its like call."""

import argparse
import errno
import os
import signal
import sys
from pathlib import Path

from deploy.errors import StackError
from deploy.mode import Mode, choose
from deploy.stack import Stack
from deploy.state import State

EXIT_INTERRUPTED = 130


def main() -> int:
    """Run the command line; return the exit code."""
    arguments = parsed()
    state = State.of_environment()
    # Ended by a signal, it cleans up as after Ctrl-C; but `nohup` wants one to be ignored.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        choice = choose(
            arguments.mode or os.environ.get("DESPACHO_MODE", ""), state.recorded_mode()
        )
        if arguments.command == "mode":
            # The reason is for the person, the mode for the caller.
            print(f"Mode: {choice.mode} ({choice.reason})", file=sys.stderr)
            print(choice.mode)
            return 0
        code = run(arguments, stack_of(choice.mode, state))
        sys.stdout.flush()
        return code
    except StackError as error:
        if error.log:
            print(error.log, file=sys.stderr)
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read has seen enough; Python would complain when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        full = f"no room is left on the disk of {state.folder}"
        print(f"error: {full if error.errno == errno.ENOSPC else error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m deploy", description=__doc__)
    parser.set_defaults(mode="")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("mode", "down", "status"):
        commands.add_parser(name)
    up = commands.add_parser("up")
    up.add_argument("--mode")
    up.add_argument("--workers", type=int)
    commands.add_parser("logs").add_argument("service", nargs="?")
    commands.add_parser("scale").add_argument("workers")
    commands.add_parser("predict").add_argument("image")
    commands.add_parser("worker").add_argument("model")
    return parser.parse_args()


def stack_of(mode: Mode, state: State) -> Stack:
    """Return the services in that mode; what the other mode needs is not loaded."""
    if mode == "docker":
        from deploy.docker.stack import DockerStack

        return DockerStack(state)
    from deploy.local.stack import LocalStack

    return LocalStack(state)


def run(arguments: argparse.Namespace, stack: Stack) -> int:
    """Do what the command says; return the exit code."""
    match arguments.command:
        case "up":
            stack.up(_wanted(arguments.workers))
        case "down":
            stack.down()
        case "status":
            return 0 if stack.status() else 1
        case "logs":
            stack.logs(arguments.service)
        case "scale":
            if not arguments.workers.isdecimal():
                raise StackError("say how many: make scale WORKERS=2")
            stack.scale(int(arguments.workers))
        case "worker":
            if not arguments.model:
                raise StackError("say which model: make worker MODEL=path/of/a/model/directory")
            sys.stdout.flush()
            stack.worker(arguments.model)
        case "predict":
            predict(arguments.image, stack.address())
    return 0


def _wanted(workers: int | None) -> int | None:
    if workers is not None and workers < 1:
        raise StackError("WORKERS must be at least 1, to see a prediction")
    return workers


def predict(image: str, target: str) -> None:
    """Become the command line that labels one image."""
    command = Path(sys.executable).parent / "despacho"
    sys.stdout.flush()
    words = ["despacho", "predict", "--server", target, "--", image]
    os.execv(command, words)  # noqa: S606 - our own command line


if __name__ == "__main__":
    sys.exit(main())
