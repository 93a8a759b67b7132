"""`sparseprune run`: the main job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._shared import DATA_DIR, NET, print_whole, split

if TYPE_CHECKING:
    from rich.console import Console

    from ..harness import Plan

# What --help says of each flag.
FLAGS = {
    "model": NET,
    "dataset": "digits (bundled), or mnist, fashion-mnist, cifar10, cifar100, tiny-imagenet from --data-dir",
    "data_dir": DATA_DIR,
    "density": "fractions of the weights to keep, in (0, 1]; default .5,.2,.1,.05",
    "method": "score or score/selector, with options in parentheses; default magnitude,snip,grasp,synflow",
    "seeds": "repetitions, with seeds 0, 1, ...: weights, scoring batch and data order are those of the seed",
    "epochs": "of each training; default: the data set's recipe",
    "batch_size": "of the training; default: the data set's recipe",
    "lr": "learning rate at the start; default: the data set's recipe",
    "device": "cpu, cuda or cuda:N",
    "layout": "of sparse layers: masked (default), csr or auto (the faster for each layer); several are compared",
    "threads": "of torch on the CPU; default 1 for digits, else torch's own number",
    "stack": "seeds of a method to train at once: a number (default 1), or auto: all if that is timed to be faster",
    "executor": "local (default: this process) or ray: tasks on the cluster of RAY_ADDRESS, or on this machine's cores",
    "out": "folder of results.jsonl and the pictures; default runs/DATASET-MODEL",
}


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
    stack: str = "1",
    executor: str = "local",
    out: Path | None = None,
) -> None:
    """Prune at initialization, train, compare: methods x densities x seeds, beside the dense net.

    Lists are repeated flags or comma separated: --density .5,.1 --method synflow --method snip/threshold. A method
    without /selector runs with threshold and with both kinds of sketched masks: multinomial (Algorithm 1, rescaled)
    and without_replacement (binary). Options: --method "synflow(inputs=chi,redraw=False)/multinomial(rescale=False,
    at=each,scale=keep)", those of the score, of the selector and of prune. Differences are paired by seed, with their
    95 % bootstrap interval and wins-ties-losses. Results go to OUT/results.jsonl as they come, pictures to OUT:
    accuracy.png, layers.png (density by layer) and weights.png (sizes of the weights kept); OUT is
    runs/DATASET-MODEL. The same command again resumes.
    """
    import torch
    from rich.console import Console

    from .. import harness, ops
    from ..live import Live

    chosen: dict[str, Any] = {}
    if density:
        chosen["densities"] = [_number("density", text) for text in split(density)]
    if method:
        chosen["methods"] = split(method)
    if layout:
        chosen["layouts"] = split(layout)
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
        rows = harness.run(
            plan,
            out=folder,
            data_dir=data_dir,
            watcher=live,
            stack=int(stack) if stack.isdecimal() else stack,
            executor=executor,
        )
    _conclude(plan, rows, folder, console)


def _conclude(plan: Plan, rows: list[dict[str, Any]], folder: Path, console: Console) -> None:
    """Print the table, write the pictures, and fail if nothing succeeded."""
    from ..plots import accuracy_against_density, layer_densities, weight_histograms
    from ..summary import summarise, table

    title = f"{plan.dataset}, {plan.model}, {plan.recipe.epochs} epochs, {plan.seeds} paired seed(s)"
    lines = summarise(rows)
    shown = table(lines, f"{title}: mean ± std; paired differences")
    print_whole(shown, console)
    accuracy_against_density(lines, folder / "accuracy.png", title)
    drawn = [folder / "accuracy.png"]
    for name, draw in (("layers", layer_densities), ("weights", weight_histograms)):
        if draw(rows, folder / f"{name}.png", title):
            drawn.append(folder / f"{name}.png")
    ends = [f"results: {folder / 'results.jsonl'}", *(f"picture: {path}" for path in drawn)]
    console.print("\n".join(ends), highlight=False, soft_wrap=True)
    if all("error" in row for row in rows):
        sys.exit(1)


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"run: {name} must be a number in (0, 1], got {text!r}") from None
