"""Our kernels of dense ReLU nets beside those of the package neural-tangents: the largest relative differences.

python -m bench.tangents [--python PATH]

Release 0.6.5 of the package runs with these, in a venv of its own, whose interpreter is PATH:
pip install neural-tangents, then pip install jax==0.4.23 jaxlib==0.4.23 numpy==1.26.4 scipy==1.12.0, then
pip install --no-deps tf2jax==0.3.6.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

DEPTHS = (1, 2, 3, 4)
WIDTH, INPUTS, OUTPUTS, EXAMPLES = 64, 10, 3, 12


def weights(depth: int) -> dict[str, np.ndarray]:
    """Inputs x `[N, d0]`, of norm 1, and W_1 ... W_{L+1} `[in, out]` ~ N(0, 1)."""
    random = np.random.default_rng(depth)
    x = random.standard_normal((EXAMPLES, INPUTS))
    sizes = [INPUTS, *[WIDTH] * depth, OUTPUTS]
    drawn = {f"W{h}": random.standard_normal(sizes[h - 1 : h + 1]) for h in range(1, depth + 2)}
    return {"x": x / np.linalg.norm(x, axis=1, keepdims=True), **drawn}


def theirs(folder: Path) -> None:
    """Write the package's kernels; runs in its interpreter, which needs nothing of ours."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import neural_tangents as nt
    from neural_tangents import stax

    for depth in DEPTHS:
        given = weights(depth)
        layers = [stax.Dense(WIDTH, W_std=math.sqrt(INPUTS), b_std=None)]
        for _ in range(depth - 1):
            layers += [stax.Relu(), stax.Dense(WIDTH, W_std=math.sqrt(2), b_std=None)]
        _, apply, kernel = stax.serial(*layers, stax.Relu(), stax.Dense(OUTPUTS, W_std=math.sqrt(2), b_std=None))
        dense = [(given[f"W{h}"], None) for h in range(1, depth + 2)]  # W, b of each; () between, for each Relu
        parameters = [p for pair in zip(dense, [()] * len(dense), strict=True) for p in pair][:-1]
        full = nt.empirical_ntk_fn(apply, trace_axes=())(given["x"], None, parameters)
        infinite = kernel(given["x"], None, "ntk")
        np.savez(folder / f"{depth}.npz", infinite=np.asarray(infinite), full=np.asarray(full))
    print(f"neural-tangents {nt.__version__}, jax {jax.__version__}")


def ours(depth: int) -> dict[str, np.ndarray]:
    import torch
    from torch import nn

    from sparseprune import ntk

    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.relu() * math.sqrt(2 / WIDTH)

    given = {name: torch.from_numpy(value) for name, value in weights(depth).items()}
    layers: list[nn.Module] = []
    for h in range(1, depth + 2):
        linear = nn.Linear(*given[f"W{h}"].shape, bias=False, dtype=torch.float64)
        linear.weight.data = given[f"W{h}"].T.contiguous()
        layers += [linear, Scaled()]
    model, x = nn.Sequential(*layers[:-1]), given["x"]
    found = {name: ntk.empirical(model, x, outputs="full", implementation=name) for name in ("jacobian", "gram")}
    return {name: kernel.numpy() for name, kernel in {**found, "infinite": ntk.infinite(x, depth=depth)}.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has neural-tangents")
    parser.add_argument("--theirs", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.theirs is not None:
        return theirs(arguments.theirs)
    with tempfile.TemporaryDirectory() as name:
        command = [arguments.python, "-W", "ignore", __file__, "--theirs", name]
        quiet = {**os.environ, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
        peer = subprocess.run(command, capture_output=True, text=True, env=quiet)
        if peer.returncode:
            reason = ([line for line in peer.stderr.splitlines() if "Error" in line] or ["no message"])[-1]
            sys.exit(f"neural-tangents does not run in {arguments.python}: {reason}\n{__doc__}")
        print(peer.stdout, end="")
        for depth in DEPTHS:
            peers, mine = np.load(Path(name) / f"{depth}.npz"), ours(depth)
            for kind, of in (("infinite", "infinite"), ("jacobian", "full"), ("gram", "full")):
                apart = np.abs(mine[kind] - peers[of]) / np.abs(peers[of]).max()
                if kind == "infinite":  # Theta(x, x) = L + 1, which the package has to some 1e-8
                    exact = [np.abs(np.diag(k) - depth - 1).max() for k in (mine[kind], peers[of])]
                    np.fill_diagonal(apart, 0)
                    print(f"depth {depth}, diagonal - (L + 1): ours {exact[0]:.1e}, theirs {exact[1]:.1e}")
                print(f"depth {depth}, {kind:8} largest difference {apart.max():.1e} of the largest entry")


if __name__ == "__main__":
    main()
