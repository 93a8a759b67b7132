"""`sparseprune bench`: layers timed on this machine."""

from __future__ import annotations

from pathlib import Path

from ._shared import print_whole

FLAGS = {
    "calibrate": "measure from which density csr layers win, and write the table that layout auto reads",
    "out": "file for the table; default crossover.json",
    "quick": "a coarse table: seconds in place of minutes",
    "threads": "of torch on the CPU; default torch's own number",
}


def bench(calibrate: bool = False, out: Path | None = None, quick: bool = False, threads: int | None = None) -> None:
    """Time dense, masked and csr layers on this machine; --calibrate writes the table from which layout auto chooses.

    Set SPARSEPRUNE_CROSSOVER to the file written to have it used in place of the table that comes with the package.
    """
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from .. import ops
    from ..calibrate import calibrate as measure
    from ..calibrate import save
    from ..speeds import speeds, table

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
        print_whole(shown, Console())
    else:
        print(f"written to {path}; to have it used: export SPARSEPRUNE_CROSSOVER={path.resolve()}")
