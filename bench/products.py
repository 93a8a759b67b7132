"""Sparse products beside dense ones and other libraries' sparse ones: linear, convolution, an MLP's training step.

Ours are csr layers as users have them, and for the linear forward the operation itself. "chained": activations lie
batch-last, as between csr layers; "all paid": input, output and their gradients come and go in the dense layout. Dense
peers are given the better of their layouts.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseprune import ops
from sparseprune.measure import Row
from sparseprune.nn import sparsify
from sparseprune.speeds import forward, random_mask, sparse, step

from . import cases, peers
from .contest import Contest, close

Conv, Linear = cases.Conv, cases.Linear
DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16"}
# Memory of the calls -> what it is called in the rows.
OURS = {"batch_last": "chained", "batch_first": "all paid"}


def linear_forward(
    case: Linear,
    densities: Sequence[float],
    repeats: int,
    sparseprop: peers.SparseProp | None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> list[Row]:
    contest = Contest("linear forward", f"{case}, {DTYPES[dtype]}, {device}")
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(case.outputs, case.inputs, generator=generator).to(device, dtype)
    x = torch.randn(case.batch, case.inputs, generator=generator).to(device, dtype)
    dense = x.t().contiguous()
    contest.calls |= {"F.linear": lambda: F.linear(x, weight), "W @ X": lambda: weight @ dense}
    for density in densities:
        mask = random_mask(weight.shape, density).to(device)
        pattern, kept = ops.Pattern.from_mask(mask), weight * mask
        values, theirs = weight[mask], peers.csr(kept)
        ours = f"ours {density}"
        named = contest.offer(f"torch CSR @ X {density}", lambda theirs=theirs: theirs @ dense)
        if device == "cpu" and dtype == torch.float32:
            named += contest.offer(f"SciPy CSR @ X, one thread {density}", peers.scipy_product(kept, dense))
        if sparseprop is not None:
            named += contest.offer(f"SparseProp {density}", sparseprop.call("linear", kept, x))
        contest.calls[ours] = lambda pattern=pattern, values=values: ops.spmm(pattern, values, dense)
        agrees = close(contest.calls[ours](), kept @ dense, case.inputs)
        contest.set_beside(ours, ["F.linear", "W @ X"], agrees, peer="dense", density=density)
        for name in named:
            contest.set_beside(ours, [name], agrees, density=density)
    return contest.rows(repeats)


def linear_step(
    case: Linear, densities: Sequence[float], repeats: int, sparseprop: peers.SparseProp | None, device: str = "cpu"
) -> list[Row]:
    contest = Contest("linear forward + backward", f"{case}, fp32, {device}")
    torch.manual_seed(0)  # of the weights, which torch's layers draw from the global generator
    module, shape = nn.Linear(case.inputs, case.outputs, bias=False, device=device), (case.batch, case.inputs)
    contest.calls["nn.Linear"] = step(module, shape, "batch_first")
    for density in densities:
        mask = random_mask(module.weight.shape, density).to(device)
        kept = (module.weight * mask).detach()
        x, grad = (torch.randn(case.batch, n, device=device) for n in (case.inputs, case.outputs))
        by_hand = f"by hand: torch CSR and sampled_addmm {density}"
        contest.calls[by_hand] = peers.csr_step(kept, x.t().contiguous(), grad.t().contiguous())
        if sparseprop is not None:
            contest.calls[f"SparseProp {density}"] = sparseprop.call("linear", kept, x, grad)
        for memory, name in OURS.items():
            ours = f"{name} {density}"
            contest.calls[ours] = step(sparse(module, mask, "csr"), shape, memory)
            agrees = steps_agree(contest.calls[ours](), step(sparse(module, mask, "masked"), shape, memory)(), mask)
            about = {"detail": name, "density": density}
            contest.set_beside(ours, ["nn.Linear"], agrees, **about)
            if memory == "batch_last":  # by hand nothing is transposed
                contest.set_beside(ours, [by_hand], agrees, **about)
            if sparseprop is not None:
                contest.set_beside(ours, [f"SparseProp {density}"], agrees, **about)
    return contest.rows(repeats)


def conv(
    case: Conv, densities: Sequence[float], repeats: int, work: str, sparseprop: peers.SparseProp | None,
    device: str = "cpu",
) -> list[Row]:  # fmt: skip
    """Work "forward", or "forward + backward"."""
    contest = Contest(f"conv {work}", f"{case}, fp32, {device}")
    make = forward if work == "forward" else step
    torch.manual_seed(0)
    module = nn.Conv2d(
        case.channels, case.filters, case.kernel, case.stride, case.padding, bias=False, device=device
    )  # fmt: skip
    shape = (case.batch, case.channels, case.side, case.side)
    contest.calls["NCHW"] = make(module, shape, "batch_first")
    turned = copy.deepcopy(module).to(memory_format=torch.channels_last)
    contest.calls["channels_last"] = make(turned, shape, "channels_last")
    for density in densities:
        mask = random_mask(module.weight.shape, density).to(device)
        wanted = make(sparse(module, mask, "masked"), shape, "batch_first")()
        theirs = _sparseprop_conv(contest, case, (module.weight * mask).detach(), density, work, sparseprop)
        for memory, name in OURS.items():
            ours = f"{name} {density}"
            contest.calls[ours] = make(sparse(module, mask, "csr"), shape, memory)
            found = contest.calls[ours]()
            agrees = steps_agree(found, wanted, mask) if work != "forward" else close(found, wanted, mask[0].numel())
            about = {"detail": name, "density": density}
            contest.set_beside(ours, ["NCHW", "channels_last"], agrees, peer="dense", **about)
            if theirs:
                contest.set_beside(ours, theirs[memory], agrees, peer="SparseProp", **about)
    return contest.rows(repeats)


def _sparseprop_conv(
    contest: Contest, case: Conv, kept: Tensor, density: float, work: str, sparseprop: peers.SparseProp | None
) -> dict[str, list[str]]:
    """Both of its ways, on input in the memory that suits it: the calls to be compared with ours of each memory."""
    if sparseprop is None:
        return {}
    x = torch.randn(case.batch, case.channels, case.side, case.side)
    side = -(-case.side // case.stride)
    grad = torch.randn(case.batch, case.filters, side, side) if work != "forward" else None
    ways = {
        "over width": {"vectorizing_over_on": True},
        "over batch": {},
        "over batch, batch-last": {"batch_last": True},
    }
    for way, options in ways.items():
        contest.calls[f"{way} {density}"] = sparseprop.call(
            "conv2d", kept, x, grad, stride=case.stride, padding=case.padding, **options
        )
    names = [f"{way} {density}" for way in ways]
    return {"batch_last": names, "batch_first": names[:2]}


def steps_agree(found: list[Tensor], wanted: list[Tensor], mask: Tensor) -> bool:
    """Output, gradient of the input, gradient of the kept weights: of a csr and of a masked layer."""
    (y, dx, values), (y_, dx_, weight) = found, wanted
    sums = mask[0].numel(), len(mask) * mask[0, 0].numel(), y.numel() // y.shape[1]
    pairs = ((y, y_), (dx, dx_), (values, weight[mask]))
    return all(close(a, b, terms) for (a, b), terms in zip(pairs, sums, strict=True))


def mlp(density: float, batch: int, repeats: int, device: str = "cpu") -> list[Row]:
    """A whole training step: forward, loss, backward, SGD with momentum."""
    torch.manual_seed(0)
    sizes = cases.MLP
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    net = nn.Sequential(*layers[:-1]).to(device)
    x, target = torch.randn(batch, sizes[0], device=device), torch.randint(sizes[-1], (batch,), device=device)
    masks = {
        f"{n}.weight": random_mask(m.weight.shape, density) for n, m in net.named_modules() if hasattr(m, "weight")
    }

    def training(model: nn.Module) -> tuple[nn.Module, object]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

        def run() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), target)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return model, run

    made = {layout: sparsify(copy.deepcopy(net), masks, layout=layout) for layout in ("masked", "csr")}
    contest = Contest("MLP training step", f"{'-'.join(map(str, sizes))}, batch {batch}, fp32, {device}")
    runs = {name: training(model) for name, model in {**made, "dense": net}.items()}
    contest.calls |= {name: run for name, (_, run) in runs.items()}
    for _ in range(3):
        for name in ("masked", "csr"):
            contest.calls[name]()
    with torch.no_grad():
        agrees = torch.allclose(made["csr"](x), made["masked"](x), rtol=1e-3, atol=1e-4)
    for peer in ("dense", "masked"):
        contest.set_beside("csr", [peer], agrees, density=density)
    return contest.rows(repeats)


def rows(repeats: int = 7, device: str = "cpu", sparseprop: str | None = None) -> list[Row]:
    found: list[Row] = []
    other = peers.sparseprop(sparseprop) if device == "cpu" else None
    first, *others = cases.LINEAR
    found += linear_forward(first, cases.LINEAR_DENSITIES, repeats, other, device)
    found += linear_step(first, cases.LINEAR_DENSITIES, repeats, other, device)
    for case in others:
        found += linear_forward(case, (0.1, 0.05), repeats, other, device)
        found += linear_step(case, (0.1, 0.05), repeats, other, device)
    found += mlp(0.05, 128, 3 * repeats, device)
    few = max(3, repeats // 3)
    for case in (*cases.RESNET20, *cases.VGG19):
        for work in ("forward", "forward + backward"):
            found += conv(case, cases.CONV_DENSITIES, few, work, other, device)
    if other is not None:
        other.close()
    return found
