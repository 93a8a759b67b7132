"""The command line: run (the main job), prune, bench, doctor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.table import Table
    from torch import nn
    from typer import Typer

    from .harness import Plan

_INTERRUPTED = 130
_WIDEST = 400
_NET = "the net: mlp, lenet-300-100, small-conv, vgg19, resnet20, wide-resnet or resnet18"
_DATA_DIR = "folder of the data set's files in their standard format; not needed for digits"
# What --help says of each flag.
_FLAGS = {
    "run": {
        "model": _NET,
        "dataset": "digits (bundled), or mnist, fashion-mnist, cifar10, cifar100, tiny-imagenet from --data-dir",
        "data_dir": _DATA_DIR,
        "density": "fractions of the weights to keep, in (0, 1]; default .5,.2,.1,.05",
        "method": "score or score/selector; default magnitude,snip,grasp,synflow",
        "seeds": "repetitions, with seeds 0, 1, ...: weights, scoring batch and data order are those of the seed",
        "epochs": "of each training; default: the data set's recipe",
        "batch_size": "of the training; default: the data set's recipe",
        "lr": "learning rate at the start; default: the data set's recipe",
        "device": "cpu, cuda or cuda:N",
        "layout": "of sparse layers: masked (default), csr or auto (the faster for each layer); several are compared",
        "threads": "of torch on the CPU; default 1 for digits, else torch's own number",
        "out": "folder of results.jsonl and accuracy.png; default runs/DATASET-MODEL",
    },
    "prune": {
        "density": "fraction of the weights to keep, in (0, 1]; required",
        "model": _NET,
        "score": "magnitude, random, snip, grasp, synflow or sketch",
        "select": "threshold, multinomial, poisson, systematic, bernoulli, priority or without_replacement",
        "scope": "global: one ranking over all layers; layer: the same density in every layer",
        "distribution": "densities of layers, in place of --scope: uniform, erk or balanced",
        "iterations": "steps to the density; default: the score's own (synflow 100, others 1)",
        "inputs": "ones, normal, chi or sparse: score on these in place of data",
        "dataset": "digits, mnist, fashion-mnist, cifar10, cifar100 or tiny-imagenet: 256 examples to score on",
        "data_dir": _DATA_DIR,
        "classes": "outputs of the net where no --dataset says; default: the model's own",
        "weights": "a saved state_dict of the net to score; default: fresh weights drawn from --seed",
        "seed": "of everything random",
        "out": "file for the mask (safetensors)",
    },
    "bench": {
        "calibrate": "measure from which density csr layers win, and write the table that layout auto reads",
        "out": "file for the table; default crossover.json",
        "quick": "a coarse table: seconds in place of minutes",
        "threads": "of torch on the CPU; default torch's own number",
    },
    "doctor": {"strict": "exit with 1 unless the compiled extension is loaded and triton imports"},
}


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
    for command in (run, prune, bench, doctor):
        app.command()(_explained(command))
    return app


def _explained(command: Callable[..., None]) -> Callable[..., None]:
    """Give the flags of a command their help; typer, which takes it from annotations, is not imported before."""
    import typer

    hints = get_type_hints(command)
    for name, text in _FLAGS[command.__name__].items():
        command.__annotations__[name] = Annotated[hints[name], typer.Option(help=text)]
    return command


def run(
    model: str = "small-conv",
    dataset: str = "digits",
    data_dir: Path | None = None,
    density: list[str] | None = None,
    method: list[str] | None = None,
    seeds: int = 3,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    device: str = "cpu",
    layout: list[str] | None = None,
    threads: int | None = None,
    out: Path | None = None,
) -> None:
    """Prune at initialization, train, compare: methods x densities x seeds, beside the dense net.

    Lists are repeated flags or comma separated: --density .5,.1 --method synflow --method snip/threshold. A method
    without /selector runs with threshold and with both kinds of sketched masks: multinomial (Algorithm 1, rescaled)
    and without_replacement (binary). Results go to OUT/results.jsonl as they come and OUT/accuracy.png
    (OUT: runs/DATASET-MODEL); the same command again resumes.
    """
    import torch
    from rich.console import Console

    from . import harness, ops
    from .live import Live

    chosen: dict[str, Any] = {}
    if density:
        chosen["densities"] = [_number("density", text) for text in _split(density)]
    if method:
        chosen["methods"] = _split(method)
    if layout:
        chosen["layouts"] = _split(layout)
    plan = harness.Plan(
        dataset, model, seeds=seeds, epochs=epochs, batch_size=batch_size, lr=lr, device=device, **chosen
    )
    if threads is not None and threads < 1:
        raise ValueError(f"run: threads must be at least 1, got {threads}")
    # One thread is the fastest for nets this small: a second spends its time waiting for the first.
    torch.set_num_threads(threads or (1 if dataset == "digits" else torch.get_num_threads()))
    folder = out if out is not None else Path("runs") / f"{dataset}-{model}"
    console = Console()
    if (missing := ops.extension_error()) is not None:
        console.print(f"the compiled extension is not in use, so this is slower: {missing} (sparseprune doctor)")
    with Live(console) as live:
        rows = harness.run(plan, out=folder, data_dir=data_dir, watcher=live)
    _conclude(plan, rows, folder, console)


def _conclude(plan: Plan, rows: list[dict[str, Any]], folder: Path, console: Console) -> None:
    """Print the table, write the picture, and fail if nothing succeeded."""
    from .plots import accuracy_against_density
    from .summary import summarise, table

    title = f"{plan.dataset}, {plan.model}, {plan.recipe.epochs} epochs, {plan.seeds} paired seed(s)"
    lines = summarise(rows)
    shown = table(lines, f"{title}: mean ± std")
    _print_whole(shown, console)
    accuracy_against_density(lines, folder / "accuracy.png", title)
    console.print(
        f"results: {folder / 'results.jsonl'}\npicture: {folder / 'accuracy.png'}", highlight=False, soft_wrap=True
    )
    if all("error" in row for row in rows):
        sys.exit(1)


def _print_whole(shown: Table, console: Console) -> None:
    """Print a table wider than the console rather than cut: a log has no edge, and a terminal wraps."""
    from rich.console import Console

    Console(width=max(console.width, Console(width=_WIDEST).measure(shown).maximum)).print(shown)


def prune(
    density: float | None = None,
    model: str = "small-conv",
    score: str = "magnitude",
    select: str = "threshold",
    scope: str = "global",
    distribution: str | None = None,
    iterations: int | None = None,
    inputs: str | None = None,
    dataset: str | None = None,
    data_dir: Path | None = None,
    classes: int | None = None,
    weights: Path | None = None,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Make a mask for a named model at initialization, or for its --weights (a saved state_dict); print its report.

    --dataset gives scores that need data their batch, and the model its shape; --inputs ones, normal, chi or sparse
    does without data. --out writes the mask as safetensors.
    """
    from rich.console import Console
    from rich.progress import Progress

    from . import models
    from .data import load
    from .prune import prune as prune_model

    if density is None:
        raise ValueError("prune: density must be given, e.g. --density 0.05")
    data = load(dataset, data_dir) if dataset is not None else None
    if data is not None:
        net = models.build(model, seed=seed, classes=data.classes, input_shape=data.input_shape)
    else:
        net = models.build(model, seed=seed, classes=classes)
    if weights is not None:
        _load_weights(net, weights)
    if out is not None and not out.parent.is_dir():
        raise ValueError(f"prune: out must be in an existing folder, got {out}")
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"{score}/{select}")
        masks = prune_model(
            net,
            density,
            score=score,
            select=select,
            scope=scope,
            distribution=distribution,
            iterations=iterations,
            inputs=inputs,
            data=data.scoring_batches(seed=seed) if data is not None else None,
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(masks.report())
    if out is not None:
        masks.save(out)
        print(f"written to {out}")


def _load_weights(net: nn.Module, path: Path) -> None:
    import torch

    try:
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise
    except Exception as error:  # a foreign file fails in as many ways as there are formats
        raise ValueError(f"prune: weights must be a saved state_dict of the model, got {path}: {error}") from None


def bench(calibrate: bool = False, out: Path | None = None, quick: bool = False, threads: int | None = None) -> None:
    """Time dense, masked and csr layers on this machine; --calibrate writes the table from which layout auto chooses.

    Set SPARSEPRUNE_CROSSOVER to the file written to have it used in place of the table that comes with the package.
    """
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from . import ops
    from .calibrate import calibrate as measure
    from .calibrate import save
    from .speeds import speeds, table

    path = out if out is not None else Path("crossover.json")
    if not calibrate and (out is not None or quick):
        raise ValueError("bench: out and quick need --calibrate")
    if threads is not None and threads < 1:
        raise ValueError(f"bench: threads must be at least 1, got {threads}")
    if not path.parent.is_dir():
        raise ValueError(f"bench: out must be in an existing folder, got {out}")
    if (missing := ops.extension_error()) is not None:
        raise ValueError(f"bench: needs the compiled extension, without which csr never wins: {missing}")
    torch.set_num_threads(threads or torch.get_num_threads())
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("calibrate" if calibrate else "bench")

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        shown = None if calibrate else table(speeds(progress=progress))
        if calibrate:
            save(measure(quick=quick, progress=progress), path)
    if shown is not None:
        _print_whole(shown, Console())
    else:
        print(f"written to {path}; to have it used: export SPARSEPRUNE_CROSSOVER={path.resolve()}")


def doctor(strict: bool = False) -> None:
    """Say what is installed, which backend serves each operation, and how to get what is missing.

    --strict exits with 1 unless the compiled extension is loaded and triton imports.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from .doctor import examine, healthy

    checks = examine()
    table = Table("", "what", "found", "how to get it")
    for check in checks:
        sign = Text("ok", "green") if check.ok else Text("missing", "red" if check.required else "yellow")
        table.add_row(sign, check.name, Text(check.found), Text(check.remedy))
    Console().print(table)
    if strict and not healthy(checks):
        missing = ", ".join(check.name for check in checks if check.required and not check.ok)
        print(f"sparseprune doctor: --strict needs {missing}", file=sys.stderr)
        sys.exit(1)


def _split(values: list[str]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"run: {name} must be a number in (0, 1], got {text!r}") from None


def _stop(message: str) -> NoReturn:
    """Print one line on stderr and exit with 2."""
    print(f"sparseprune: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
