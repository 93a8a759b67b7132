"""SynFlow-L2: its definition on a frozen tiny network, its identities, and the divergence of its two versions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseprune.scores.synflow import SynFlow
from sparseprune.scores.synflow_l2 import SynFlowL2


def net() -> nn.Sequential:
    g = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.GELU(), nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2))
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=g) * 0.5
    return model.double()


X = torch.ones(1, 2, 4, 4, dtype=torch.float64)


def definition(model: nn.Sequential, masks: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The flow of squares, written out: dR/d(w^2)."""
    state = {n: t.detach() * (masks or {}).get(n, 1.0) for n, t in model.state_dict().items()}
    squares = {n: t.square().requires_grad_() for n, t in state.items() if n.endswith("weight")}
    h = F.conv2d(X, squares["0.weight"], state["0.bias"].abs())
    h = F.linear(h.flatten(1), squares["3.weight"], state["3.bias"].abs())
    flow = F.linear(h, squares["5.weight"], state["5.bias"].abs()).sum()
    return dict(zip(squares, torch.autograd.grad(flow, list(squares.values())), strict=True))


@pytest.mark.parametrize("masked", [False, True])
def test_scores_are_the_definition(masked):
    model = net()
    names = ["0.weight", "3.weight", "5.weight"]
    masks = {n: torch.arange(model.get_parameter(n).numel()).view_as(model.get_parameter(n)) % 3 > 0 for n in names}
    masks["5.weight"] = masks["5.weight"].double() * 0.5  # rescaled masks are squared with the weight
    chosen = masks if masked else None
    found = SynFlowL2().score(model, [(X, None)], masks=chosen)
    px = SynFlowL2(reference="px").score(model, [(X, None)], masks=chosen)
    for name, g in definition(model, chosen).items():
        w = model.get_parameter(name).detach() * (masks[name] if masked else 1.0)
        torch.testing.assert_close(found[name], g * w.square(), rtol=1e-12, atol=0.0)
        torch.testing.assert_close(px[name], g * w.abs(), rtol=1e-12, atol=0.0)


def test_divergence_px_ranks_by_the_weight_where_phew_does_by_its_square():
    model = nn.Linear(3, 1, bias=False)
    model.weight.data = torch.tensor([[3.0, -2.0, 0.5]])
    x = torch.tensor([[1.0, 2.0, 20.0]])
    assert SynFlowL2().score(model, [(x, None)])["weight"].tolist() == [[9.0, 8.0, 5.0]]
    assert SynFlowL2(reference="px").score(model, [(x, None)])["weight"].tolist() == [[3.0, 4.0, 10.0]]


def test_it_is_synflow_of_the_squared_weights():
    model, squared = net(), net()
    for name in ("0.weight", "3.weight", "5.weight"):
        squared.get_parameter(name).data.square_()
    expected = SynFlow(linear=True).score(squared, [(X, None)])
    found = SynFlowL2().score(model, [(X, None)])
    assert all(torch.equal(s, expected[n]) for n, s in found.items())


def test_deep_squares_stay_finite():
    model = nn.Sequential(*[nn.Linear(8, 8, bias=False) for _ in range(200)])
    for layer in model:
        layer.weight.data.mul_(10)
    scores = SynFlowL2().score(model, [(torch.ones(1, 8), None)])
    sums = torch.stack([s.double().sum() for s in scores.values()])
    torch.testing.assert_close(sums, sums[:1].expand(200), rtol=1e-4, atol=0.0)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="SynFlowL2: reference must be 'phew' or 'px', got 'else'"):
        SynFlowL2(reference="else")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"synflow_l2: model must hold an nn\.Linear or nn\.Conv2d, got ReLU"):
        SynFlowL2().score(nn.ReLU(), [(X, None)])
