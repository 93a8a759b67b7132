"""`sparseprune ntk`: the tangent kernel of a named model, and its spectrum."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ._shared import DATA_DIR, NET, SCORE, SELECT, load_weights

if TYPE_CHECKING:
    from torch import Tensor

ARGUMENTS = {"model": NET}
FLAGS = {
    "dataset": "digits (bundled), or mnist, fashion-mnist, cifar10, cifar100, tiny-imagenet from --data-dir",
    "data_dir": DATA_DIR,
    "examples": "of the training set, as many of each class",
    "density": "fraction of the weights to keep, in (0, 1]; default: the dense net",
    "score": SCORE,
    "select": SELECT,
    "layout": "of sparse layers: masked, csr or auto",
    "outputs": "trace: the sum over outputs; full: all pairs of them",
    "implementation": "gram, jacobian (the definition, slow) or auto",
    "weights": "a saved state_dict of the net; default: fresh weights drawn from --seed",
    "masks": "a file of masks that prune wrote, in place of --density",
    "seed": "of everything random",
    "out": "file for the kernel (numpy's .npy)",
}


def ntk(
    model: str = "small-conv",
    dataset: str = "digits",
    data_dir: Path | None = None,
    examples: int = 64,
    density: float | None = None,
    score: str = "synflow",
    select: str = "threshold",
    layout: str = "masked",
    outputs: str = "trace",
    implementation: str = "auto",
    weights: Path | None = None,
    masks: Path | None = None,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Compute the tangent kernel of a named model, pruned or dense, on examples of a data set; print its spectrum.

    --density prunes first; --masks takes masks from a file, --weights a trained net. --out writes the kernel,
    `[N, N]`, or `[N, N, O, O]` with --outputs full.
    """
    import numpy as np
    from rich.console import Console
    from rich.progress import Progress

    from .. import models
    from ..data import load
    from ..files import write_whole
    from ..masks import Masks
    from ..nn import sparsify
    from ..ntk import Choice, choose, empirical
    from ..prune import prune

    if density is not None and masks is not None:
        raise ValueError("ntk: masks must be given without density, got both")
    if examples < 1:
        raise ValueError(f"ntk: examples must be at least 1, got {examples}")
    if out is not None and not out.parent.is_dir():
        raise ValueError(f"ntk: out must be in an existing folder, got {out}")
    data = load(dataset, data_dir)
    net = models.build(model, seed=seed, classes=data.classes, input_shape=data.input_shape).eval()
    if weights is not None:
        load_weights("ntk", net, weights)
    x, y = next(iter(data.scoring_batches(examples, batch_size=examples, seed=seed)))
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"{len(x)} examples")
        kept = "dense"
        if masks is not None or density is not None:
            scoring = data.scoring_batches(seed=seed)
            found = Masks.load(masks) if masks is not None else None
            found = found or prune(net, density or 0, score=score, select=select, data=scoring, seed=seed)
            sparsify(net, found, layout=cast(Any, layout), inputs=x)
            kept = f"density {found.density:.6g} ({found.kept:,} of {found.total:,} kept)"
        taken = choose(net, x) if implementation == "auto" else Choice(implementation, "as asked for")
        kernel = empirical(
            net,
            x,
            outputs=cast(Any, outputs),
            implementation=cast(Any, taken.implementation),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(f"{model}, {kept}, on {len(x)} examples of {dataset}")
    print(f"implementation: {taken.implementation} ({taken.reason})")
    print(_summary(kernel, y, data.classes))
    if out is not None:
        write_whole(out, lambda stream: np.save(stream, kernel.numpy()))
        print(f"written to {out}")


def _summary(kernel: Tensor, targets: Tensor, classes: int) -> str:
    """Lines on the eigenvalues, and on the alignment with the labels, of a kernel of sums over outputs."""
    import torch

    from ..ntk import spectrum

    if kernel.ndim == 4:
        kernel = kernel.diagonal(dim1=2, dim2=3).sum(2)
    found = spectrum(kernel, y=torch.nn.functional.one_hot(targets, classes).double())
    return "\n".join(
        [
            f"largest eigenvalues: {', '.join(f'{value:.5g}' for value in found.eigenvalues[:5].tolist())}",
            f"condition number: {found.condition:.4g} (infinite: singular to rounding)",
            f"effective rank: {found.effective_rank:.4g} of {len(kernel)}",
            f"alignment with the labels: {found.alignment:.4g}",
        ]
    )
