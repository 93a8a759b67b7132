"""Tangent kernels of pruned networks beside Jacobians: time, and the peak of memory in a process of its own.

Weights only (no biases, no norms), the trace over outputs. A Jacobian that would not fit is left out, and the rows that
stay say so.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sparseprune.measure import Row, peak_extra_bytes
from sparseprune.models import build
from sparseprune.nn import sparsify
from sparseprune.ntk import empirical
from sparseprune.prunable import prunable
from sparseprune.speeds import random_mask

from . import cases, peers
from .contest import Contest, close

OURS, WHOLE, BY_HAND = "gram", "torch.func jacrev + vmap, contraction", "by hand: kept Jacobian columns, GEMM"
CHUNKS = "implementation='jacobian', by chunks"
EXACT = "by hand in fp64"  # what results are held against: sums of so many terms in fp32 differ by more than ours does
LIMIT = 3 << 30  # bytes of a whole Jacobian; what torch.func holds at its peak is some times that
MOST = 12 << 30  # bytes of a Jacobian made chunk by chunk: minutes


def calls(case: cases.Ntk, density: float) -> dict[str, Callable[[Tensor], Tensor]]:
    """The kernel of inputs, by each implementation, on one network and its masks."""
    dense = build(case.model, seed=0, **case.options).eval()
    masks = {name: random_mask(weight.shape, density) for name, weight in prunable(dense).items()}
    with torch.no_grad():
        for name, weight in prunable(dense).items():
            weight.mul_(masks[name])
    csr, masked = (sparsify(copy.deepcopy(dense), masks, layout=layout) for layout in ("csr", "masked"))
    ours = partial(empirical, biases=False, norms=False)
    return {
        OURS: lambda x: ours(csr, x, implementation="gram"),
        CHUNKS: lambda x: ours(masked, x, implementation="jacobian"),
        BY_HAND: partial(peers.kept_columns, dense, masks),
        EXACT: lambda x: peers.kept_columns(copy.deepcopy(dense).double(), masks, x.double()),
        WHOLE: partial(peers.jacobian_contraction, masked, list(masks)),
    }


def jacobian_bytes(case: cases.Ntk) -> int:
    weights = sum(weight.numel() for weight in prunable(build(case.model, seed=0, **case.options)).values())
    return 4 * case.examples * case.options["classes"] * weights


def inputs(case: cases.Ntk) -> Tensor:
    return torch.randn(case.examples, *case.options["input_shape"], generator=torch.Generator().manual_seed(0))


def peak(case: cases.Ntk, density: float, name: str) -> int | None:
    """Extra memory of a call that is the first of its size in a process."""
    asked = json.dumps([*case, density, name])
    command, root = [sys.executable, "-m", "bench.ntk", asked], Path(__file__).parent.parent
    # Freed memory goes back to the system there: what the process kept from before would hide what the call takes.
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    own["MALLOC_MMAP_THRESHOLD_"] = "65536"
    return json.loads(subprocess.run(command, cwd=root, env=own, check=True, capture_output=True, text=True).stdout)


def kernel(case: cases.Ntk, densities: Sequence[float], repeats: int) -> list[Row]:
    """Ours beside each Jacobian that fits.

    What torch.func does depends on no mask: it is timed once, at the middle density, and so are the peaks of memory.
    """
    contest, x, whole = Contest("ntk, trace", f"{case}, fp32"), inputs(case), jacobian_bytes(case)
    middle, note, peaks = sorted(densities)[len(densities) // 2], {}, {}
    for density in (middle, *(d for d in densities if d != middle)):
        made = calls(case, density)
        if whole > LIMIT:
            del made[WHOLE]
            note = {"left_out": f"{WHOLE}: a Jacobian of {whole / 1e9:.1f} GB"}
        if whole > MOST:
            del made[CHUNKS]
        agrees = close(made[OURS](x), made.pop(EXACT)(x), int(density * whole / 4 / case.examples))
        for name, call in made.items():
            ours = name in (OURS, BY_HAND)
            label = f"{name} {density}" if ours else name
            if ours or density == middle:
                contest.calls[label] = partial(call, x)
            memory = {}
            if density == middle:
                peaks[name] = peak(case, density, name)
                memory = {"peak_extra_bytes": peaks[OURS], "peer_peak_extra_bytes": peaks[name]}
            if name != OURS:
                contest.set_beside(f"{OURS} {density}", [label], agrees, density=density, **memory, **note)
    return contest.rows(repeats)


def rows(repeats: int = 5) -> list[Row]:
    return [row for case in cases.NTK for row in kernel(case, cases.NTK_DENSITIES, max(1, repeats // 3))]


if __name__ == "__main__":
    *fields, density, name = json.loads(sys.argv[1])
    case = cases.Ntk(*fields)
    call, x = calls(case, density)[name], inputs(case)
    call(x[:2])  # starts threads
    print(json.dumps(peak_extra_bytes(lambda: call(x))))
