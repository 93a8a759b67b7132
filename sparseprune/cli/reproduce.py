"""`sparseprune reproduce`: a paper's experiments, run again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._shared import DATA_DIR, print_whole

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..papers import Experiment

ARGUMENTS = {
    "paper": "the paper's number: 000 to 004",
    "item": "one experiment of it, e.g. E1 or table1; default: all",
}
FLAGS = {
    "quick": "smaller sizes: seconds in place of minutes",
    "data_dir": DATA_DIR,
    "out": "folder of ITEM.jsonl and ITEM.png; default runs/PAPER",
    "seed": "of everything random",
}
_LOG_LINES = 10  # of an experiment, where there is no terminal to draw a bar on
_VERDICTS = {True: "holds", False: "does not hold", None: "these rows cannot tell"}


def reproduce(
    paper: str | None = None,
    item: str | None = None,
    quick: bool = False,
    data_dir: Path | None = None,
    out: Path | None = None,
    seed: int = 0,
) -> None:
    """Run a paper's experiments again: rows, a picture beside the paper's numbers, and a verdict for each claim.

    Rows go to OUT/ITEM.jsonl as they come, the picture to OUT/ITEM.png; the same command again resumes. Intervals are
    3.5 standard errors to either side, or 95 % ones where a verdict says so.
    """
    from rich.console import Console

    from ..papers import PAPERS

    experiments = PAPERS[_one_of("paper", paper, list(PAPERS))]
    chosen = experiments if item is None else [_one_of("item", item, list(experiments))]
    folder = out if out is not None else Path("runs") / str(paper)
    for name in chosen:
        _perform(experiments[name], folder, Console(), quick=quick, data_dir=data_dir, seed=seed)


def _perform(experiment: Experiment, folder: Path, console: Console, **options: Any) -> None:
    from rich.progress import Progress

    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(experiment.name, total=None)
        told = 0

        def show(done: int, total: int, what: str) -> None:
            nonlocal told
            bar.update(task, completed=done, total=total, description=what)
            if not console.is_terminal and done * _LOG_LINES // total > told:
                told = done * _LOG_LINES // total
                console.print(f"{100 * done // total} % done: {what}", highlight=False, markup=False)

        rows = experiment.rows(out=folder, progress=show, **options)
    picture = folder / f"{experiment.name}.png"
    experiment.picture(rows, picture)
    print_whole(_table(experiment.shown(rows), f"{experiment.name}: {experiment.title}"), console)
    for claim in experiment.claims(rows):
        line = f"{_VERDICTS[claim.holds]}: {claim.text}\n    {claim.found}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    paths = f"rows: {folder / f'{experiment.name}.jsonl'}\npicture: {picture}"
    console.print(paths, highlight=False, markup=False, soft_wrap=True)


def _table(rows: list[dict[str, Any]], title: str) -> Table:
    """Return the rows: the parts of the key that differ between them, and every single number or word."""
    from rich.table import Table

    keys = [name for name in rows[0]["key"] if len({str(row["key"].get(name)) for row in rows}) > 1]
    same = ", ".join(f"{name} {value}" for name, value in rows[0]["key"].items() if name not in keys)
    table = Table(title=title, caption=f"all with {same}".replace("_", " ") if same else None)
    fields = [name for name, value in rows[0].items() if name != "key" and not isinstance(value, list | dict)]
    for name in (*keys, *fields):
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        values = [*(row["key"].get(name) for name in keys), *(row.get(name) for name in fields)]
        table.add_row(*map(_cell, values))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _one_of(name: str, value: str | None, names: list[str]) -> str:
    if value not in names:
        raise ValueError(f"reproduce: {name} must be one of {', '.join(names)}, got {value!r}")
    return value
