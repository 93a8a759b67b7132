"""The application: its commands, their flags, and what ends it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, NoReturn, get_type_hints

from . import bench, doctor, ntk, prune, reproduce, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer import Typer

COMMANDS = {"run": run, "prune": prune, "ntk": ntk, "reproduce": reproduce, "bench": bench, "doctor": doctor}
_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> None:
    """Run the command line on `arguments` (None: the process's own) and exit.

    Exit status: 0, 1 (`doctor --strict` not satisfied, or a run in which nothing succeeded), 2 (bad arguments, in one
    line on stderr), 130 (interrupted).
    """
    try:
        app = build()
    except ModuleNotFoundError as error:
        _stop(f'the command line needs {error.name}: pip install "sparseprune[cli]"')
    try:
        status = app(arguments or sys.argv[1:] or ["--help"], prog_name="sparseprune", standalone_mode=False)
    except (ValueError, OSError, ImportError) as error:
        _stop(str(error))
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except Exception as error:
        # By what they can do: the parser's own errors live in click or in typer, depending on its version.
        message = getattr(error, "format_message", None)
        if type(error).__name__ != "Abort" and message is None:
            raise
        if message is not None:
            _stop(f"{message()} (see --help)")
        status = _INTERRUPTED
    if status == _INTERRUPTED:  # typer itself may have turned Ctrl-C into a status
        print("interrupted: what is done is on the disk, and the same command goes on from there", file=sys.stderr)
    sys.exit(status)


def build() -> Typer:
    """Return the typer application.

    Raises:
        ModuleNotFoundError: typer or rich is not installed.
    """
    import rich  # noqa: F401 - asked for here, so that its absence is told before anything runs
    import typer

    app = typer.Typer(
        help="Sketched masks and pruning at initialization.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",  # paragraphs that fit the terminal
    )
    for name, module in COMMANDS.items():
        app.command()(_explained(getattr(module, name), module.FLAGS, getattr(module, "ARGUMENTS", {})))
    return app


def _explained(command: Callable[..., None], flags: dict[str, str], arguments: dict[str, str]) -> Callable[..., None]:
    """Give flags and arguments of a command their help; typer, which takes it from annotations, is imported late."""
    import typer

    hints = get_type_hints(command)
    kinds = {name: typer.Option(help=text) for name, text in flags.items()}
    kinds |= {name: typer.Argument(help=text) for name, text in arguments.items()}
    for name, kind in kinds.items():
        command.__annotations__[name] = Annotated[hints[name], kind]
    return command


def _stop(message: str) -> NoReturn:
    """Print one line on stderr and exit with 2."""
    print(f"sparseprune: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
