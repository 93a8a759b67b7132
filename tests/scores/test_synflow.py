"""SynFlow: its definition, its identities, and its order at depths where float32 alone overflows or vanishes."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseprune.prunable import prunable
from sparseprune.scores.synflow import SynFlow


def draw(model: nn.Module, seed: int = 0) -> nn.Module:
    """Fill every parameter and running statistic with signed, non-trivial numbers."""
    g = torch.Generator().manual_seed(seed)
    for name, t in model.state_dict().items():
        if t.is_floating_point():
            fan = math.prod(t.shape[1:]) if t.dim() > 1 else 4
            t.copy_(torch.randn(t.shape, generator=g, dtype=torch.float64) * fan**-0.5)
            if name.endswith("running_var"):
                t.abs_().add_(0.5)
    return model


def definition(model: nn.Module, x: Tensor, masks: dict[str, Tensor] | None = None, dtype=torch.float64):
    """The published recipe: abs of the whole state, R, |dR/dw * w|; in that dtype, with nothing else."""
    net = copy.deepcopy(model).to(dtype).eval()
    for t in net.state_dict().values():
        t.copy_(t.abs())
    weights = prunable(net)
    for name in masks or {}:
        weights[name].data.mul_(masks[name])
    net.requires_grad_(True)
    net(x.to(dtype)).sum().backward()
    return {name: (w.grad * w).detach().abs() for name, w in weights.items()}


def ours(model: nn.Module, x: Tensor, masks=None) -> dict[str, Tensor]:
    return SynFlow().score(model, [(x, None)], masks=masks)


class Residual(nn.Module):
    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.left, self.right = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.Conv2d(4, 4, 1)
        self.down = nn.Conv2d(4, 3, 3, stride=2, padding=1, padding_mode="replicate")
        self.head = nn.Linear(6, 3)
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)), inplace=self.inplace)
        y = self.left(x)
        if self.inplace:
            y += self.right(x)
        else:
            y = y + self.right(x)
        x = F.relu(self.down(F.max_pool2d(y, 2)))
        x = torch.cat([x.mean((2, 3)), F.adaptive_max_pool2d(x, 1).flatten(1)], dim=1)
        return self.head(x.view(x.size(0), -1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 5), nn.Linear(5, 3))


def conv_bn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.LeakyReLU(0.1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 3),
    )  # fmt: skip


NETS = {
    "mlp": (mlp, (2, 2, 2)),
    "conv_bn": (conv_bn, (2, 8, 8)),
    "residual": (Residual, (2, 8, 8)),
    "residual_inplace": (lambda: Residual(inplace=True), (2, 8, 8)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("net", NETS)
def test_scores_are_the_definition(net, masked, dtype):
    make, shape = NETS[net]
    model = draw(make()).to(dtype)
    masks = {n: torch.arange(w.numel()).view(w.shape) % 3 > 0 for n, w in prunable(model).items()} if masked else None
    x = torch.ones(1, *shape, dtype=dtype)
    expected = definition(model, x, masks)
    found = ours(model, x, masks)
    assert list(found) == list(prunable(model))
    bound = 200 * torch.finfo(dtype).eps  # some 30 roundings a path, all terms of one sign but for the norms' means
    for name, s in found.items():
        assert s.dtype == dtype and not s.requires_grad and type(s) is Tensor
        torch.testing.assert_close(s.double(), expected[name], rtol=bound, atol=bound * float(expected[name].max()))
        if masks:
            assert not s[~masks[name]].any()


def test_several_batches_add_and_signed_inputs_give_scores_above_zero():
    model = draw(conv_bn())
    a, b = (torch.randn(n, 2, 8, 8, generator=torch.Generator().manual_seed(n)) for n in (2, 3))
    whole, parts = ours(model, torch.cat([a, b])), SynFlow().score(model, [(a, 0), (b, 1)])
    expected = definition(model, torch.cat([a, b]))
    for name, s in expected.items():
        assert (whole[name] >= 0).all()
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-4, atol=1e-5 * float(s.max()))
        torch.testing.assert_close(whole[name].double(), s, rtol=1e-4, atol=1e-5 * float(s.max()))


def test_flow_is_conserved_from_layer_to_layer_without_shifts():
    model = nn.Sequential(*[m for _ in range(5) for m in (nn.Linear(16, 16, bias=False), nn.ReLU())])
    x = torch.ones(1, 16)
    sums = [float(s.sum()) for s in ours(draw(model), x).values()]
    flow = float(sum(definition(model, x)["0.weight"].flatten()))
    assert sums == pytest.approx([flow] * 5, rel=1e-5)


def test_linear_model_on_ones_gives_absolute_weights_and_on_row_norms_the_sketch_law():
    # 001, 1.3: one output; score_j = z_j |w_j|, which for z = r is proportional to p0.
    model = draw(nn.Linear(7, 1, bias=False))
    w, r = model.weight.detach(), torch.rand(1, 7) + 0.1
    torch.testing.assert_close(ours(model, torch.ones(1, 7))["weight"], w.abs())
    torch.testing.assert_close(ours(model, r)["weight"], r * w.abs())
    two = draw(nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False)))
    first = two[0].weight.detach().abs() * two[1].weight.detach().abs().sum(0)[:, None]
    torch.testing.assert_close(ours(two, torch.ones(1, 4))["0.weight"], first)


def test_model_is_left_as_found():
    model = draw(conv_bn()).train()
    model[1].eval()
    model[4].weight.grad = torch.full_like(model[4].weight, 3.0)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    objects = {n: id(t) for n, t in model.state_dict(keep_vars=True).items()}
    modes = [m.training for m in model.modules()]
    ours(model, torch.ones(1, 2, 8, 8))
    with pytest.raises(RuntimeError):
        ours(model, torch.ones(1, 5, 8, 8))
    assert {n: id(t) for n, t in model.state_dict(keep_vars=True).items()} == objects
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert model[0].weight.grad is None and bool((model[4].weight.grad == 3).all())
    assert all(p.requires_grad for p in model.parameters())


class Block(nn.Module):
    """x + branch(x), or branch(x) alone, with biases and norms; branches of one to three layers."""

    def __init__(self, width: int, depth: int, shortcut: bool) -> None:
        super().__init__()
        layers = [(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU()) for _ in range(depth)]
        self.branch = nn.Sequential(*[m for layer in layers for m in layer])
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x) if self.shortcut else self.branch(x)


def deep(gain: float, *, shortcut: bool, bias: float, layers: int = 200, width: int = 8) -> nn.Module:
    """Two hundred weight layers whose flow grows or decays by about `gain` each."""
    depths = [1, 2, 3, 2] * (layers // 8) if shortcut else [1] * layers
    model = nn.Sequential(*[Block(width, depth, shortcut) for depth in depths], nn.Linear(width, 4))
    g = torch.Generator().manual_seed(7)
    for m in model.modules():
        if isinstance(m, nn.Linear):
            m.weight.data = torch.randn(m.weight.shape, generator=g) * (gain / (0.8 * width))
            m.bias.data = torch.randn(m.bias.shape, generator=g) * bias
        elif isinstance(m, nn.BatchNorm1d):
            m.running_mean = torch.randn(width, generator=g) * bias * 0.1
            m.running_var = 0.9 + 0.2 * torch.rand(width, generator=g)
            m.bias.data = torch.randn(width, generator=g) * bias
    return model


def kept(scores: dict[str, Tensor], density: float) -> Tensor:
    flat = torch.cat([s.flatten() for s in scores.values()])
    mask = torch.zeros(len(flat), dtype=torch.bool)
    mask[flat.double().sort(descending=True, stable=True).indices[: round(density * len(flat))]] = True
    return mask


def flat64(scores: dict[str, Tensor]) -> Tensor:
    return torch.cat([s.flatten().double() for s in scores.values()])


DEEP = {
    "plain_growing_no_shift": {"gain": 4.0, "shortcut": False, "bias": 0.0},
    "residual_growing_no_shift": {"gain": 3.0, "shortcut": True, "bias": 0.0},
    "plain_growing": {"gain": 4.0, "shortcut": False, "bias": 0.1},
    "plain_decaying": {"gain": 0.3, "shortcut": False, "bias": 0.0},
    "residual_growing": {"gain": 3.0, "shortcut": True, "bias": 0.1},
    "residual_decaying_branches": {"gain": 0.2, "shortcut": True, "bias": 0.01},
    "biases_dominate": {"gain": 0.5, "shortcut": False, "bias": 5.0},
    "residual_biases_dominate": {"gain": 2.5, "shortcut": True, "bias": 50.0},
}
OUT_OF_FLOAT32 = [case for case in DEEP if case not in ("residual_decaying_branches", "biases_dominate")]


def worst_error(found: dict[str, Tensor], exact: dict[str, Tensor]) -> float:
    """The largest relative error of a score up to one common factor, which is the power of two nearest to the ratio."""
    a, b = flat64(found), flat64(exact)
    factor = 2.0 ** round(math.log2(float(a.max()) / float(b.max())))
    seen = b > 0
    assert not a[~seen].any()
    return float(((a[seen] / factor - b[seen]) / b[seen]).abs().max())


@pytest.mark.parametrize("case", DEEP)
def test_two_hundred_layers_keep_the_order_of_exact_scores(case):
    model, x = deep(**DEEP[case]), torch.ones(1, 8)
    exact = definition(model, x)
    flat = flat64(exact)
    assert flat.isfinite().all() and float(flat.max()) > 0
    naive = flat64(definition(model, x, dtype=torch.float32))
    broken = not naive.isfinite().all() or float(naive.max()) == 0
    assert broken == (case in OUT_OF_FLOAT32)
    found = ours(model, x)
    assert all(s.dtype == torch.float32 and s.isfinite().all() for s in found.values())
    # a path has some 1200 roundings; those of one sign and size 2^-24 add like a walk, or at worst in line
    assert worst_error(found, exact) < 1200 * 2.0**-24
    for density in (0.5, 0.1, 0.01):
        assert same_order(found, exact, density)


def same_order(found: dict[str, Tensor], exact: dict[str, Tensor], density: float) -> bool:
    """Whether the kept sets agree but for scores that rounding cannot tell from the last one kept."""
    here, there, scores = kept(found, density), kept(exact, density), flat64(exact)
    last = float(scores[there].min())
    return bool(((scores[here != there] - last).abs() <= 1e-4 * last).all())


@pytest.mark.parametrize("case", OUT_OF_FLOAT32)
def test_plain_float32_fails_the_order_test(case):
    model, x = deep(**DEEP[case]), torch.ones(1, 8)
    exact, naive = definition(model, x), definition(model, x, dtype=torch.float32)
    naive = {name: s.nan_to_num() for name, s in naive.items()}
    assert not all(same_order(naive, exact, density) for density in (0.5, 0.1, 0.01))


def test_scaling_by_a_constant_inside_a_branch_fails_the_order_test():
    # What the common shortcut does: divide each branch by its own peak, which changes what the paths weigh.
    model, x = deep(**DEEP["residual_growing"]), torch.ones(1, 8)
    wrong = copy.deepcopy(model)
    for block in wrong[:-1]:
        block.branch.register_forward_hook(lambda module, args, y: y / y.detach().amax())
    assert not all(same_order(definition(wrong, x), definition(model, x), density) for density in (0.5, 0.1, 0.01))


def test_masked_deep_net_keeps_the_order():
    model, x = deep(**DEEP["residual_growing"]), torch.ones(1, 8)
    g = torch.Generator().manual_seed(3)
    masks = {n: torch.rand(w.shape, generator=g) < 0.6 for n, w in prunable(model).items()}
    found, exact = ours(model, x, masks), definition(model, x, masks)
    assert worst_error(found, exact) < 1200 * 2.0**-24
    assert all(not s[~masks[n]].any() for n, s in found.items())


def test_scores_of_an_ordinary_net_are_not_rescaled_and_those_of_a_deep_one_by_a_power_of_two():
    model, x = deep(**DEEP["plain_growing"]), torch.ones(1, 8)
    ratio = flat64(ours(model, x)) / flat64(definition(model, x))
    ratio = ratio[ratio.isfinite()]
    mantissas = torch.frexp(ratio).mantissa
    assert float((mantissas - 0.5).abs().minimum((mantissas - 1).abs()).max()) < 1e-4
    assert float(ratio.log2().max() - ratio.log2().min()) < 1e-3


def test_bfloat16_weights_are_scored_in_float32():
    model, x = deep(**DEEP["plain_growing"]).to(torch.bfloat16), torch.ones(1, 8, dtype=torch.bfloat16)
    found = ours(model, x)
    assert all(s.dtype == torch.float32 for s in found.values())
    assert worst_error(found, definition(model, x)) < 1200 * 2.0**-24


@pytest.mark.parametrize("case", ["plain_growing_no_shift", "residual_growing_no_shift", "plain_growing"])
def test_float64_is_used_only_where_a_sum_needs_it(case):
    model, seen = deep(**DEEP[case]), []
    model[0].register_forward_hook(lambda module, args, y: seen.append(y.dtype))
    ours(model, torch.ones(1, 8))
    assert seen == [torch.float32] + [torch.float64] * (DEEP[case]["bias"] > 0)


def test_autocast_and_tf32_stay_out():
    model, x = draw(conv_bn()), torch.ones(1, 2, 8, 8)
    plain, before = ours(model, x), torch.backends.cudnn.allow_tf32
    seen = []
    model[0].register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ours(model, x)
    assert all(torch.equal(s, plain[n]) for n, s in found.items())
    assert seen == [False] and torch.backends.cudnn.allow_tf32 == before


class Attention(nn.Module):
    """Ops that are not homogeneous: softmax, GELU, LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)
        self.mix = nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x * 3e4)) + x
        x = x + self.mix(x, x, x, need_weights=False)[0] * torch.sigmoid(x)
        return self.last(F.gelu(x) * F.softmax(x, dim=-1) + 1)


def test_other_ops_get_the_values():
    model, x = draw(Attention()), torch.rand(2, 5, 8, generator=torch.Generator().manual_seed(0))
    expected = definition(model, x)
    for name, s in ours(model, x).items():
        torch.testing.assert_close(s.double(), expected[name], rtol=1e-4, atol=1e-5 * float(expected[name].max()))


def test_values_that_fit_nothing_name_the_op():
    model = nn.Sequential(*[nn.Linear(8, 8, bias=False) for _ in range(200)], nn.Softplus())
    for layer in model[:-1]:
        layer.weight.data.fill_(1e3)
    with pytest.raises(OverflowError, match=r"synflow: softplus needs the values .* torch.float64"):
        ours(model, torch.ones(1, 8))


def test_bad_input_is_named():
    class Pair(nn.Linear):
        def forward(self, x):
            return super().forward(x), x

    with pytest.raises(ValueError, match="synflow: model must return one tensor, got tuple"):
        ours(Pair(3, 2), torch.ones(1, 3))
    with pytest.raises(ValueError, match="synflow: batches must hold at least one sample"):
        SynFlow().score(nn.Linear(3, 2), [])
    with pytest.raises(ValueError, match=r"synflow: model must hold an nn\.Linear or nn\.Conv2d, got ReLU with none"):
        ours(nn.ReLU(), torch.ones(1, 3))


def test_dead_shared_and_unused_weights():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.unused = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight
            self.c, self.d = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)

        def forward(self, x):
            x = self.b(F.relu(self.a(x)))
            return F.linear(x, self.c.weight + self.d.weight)

    model, x = draw(Odd()), torch.ones(1, 4)
    masks = {"a.weight": torch.zeros(4, 4, dtype=torch.bool)}
    for chosen in (None, masks):
        found = ours(model, x, chosen)
        assert list(found) == ["a.weight", "unused.weight", "c.weight", "d.weight"]
        assert not found["unused.weight"].any()
        net = copy.deepcopy(model).double()
        for t in net.state_dict().values():
            t.copy_(t.abs())
        if chosen:
            net.a.weight.data.zero_()
        net(x.double()).sum().backward()
        for name in ("a.weight", "c.weight", "d.weight"):
            w = net.get_parameter(name)
            torch.testing.assert_close(found[name].double(), (w * w.grad).detach(), rtol=1e-5, atol=1e-8)
    dead = {n: torch.zeros_like(w, dtype=torch.bool) for n, w in prunable(model).items()}
    assert not any(s.any() for s in ours(nn.Linear(4, 2, bias=False), x, {"weight": torch.zeros(2, 4)}).values())
    assert not any(s.any() for s in ours(model, x, dead).values())


class Squared(torch.autograd.Function):
    """x W^T, with a backward that torch functions do not see."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w.t()

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        return grad @ w, grad.t() @ x


@pytest.mark.parametrize("masked", [False, True])
def test_a_weight_that_is_used_in_every_way_gets_the_sum(masked):
    """By a layer that reads it in place, by plain ops, by someone's autograd function, and on too many places."""

    class Ways(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            x = self.b(self.a(x)) + self.a(x)
            x = x + F.linear(x, self.a.weight.t()) + Squared.apply(x, self.a.weight)
            return F.linear(x.repeat(50, 1), self.a.weight) * self.b.weight.diagonal()

    model, x = draw(Ways()), torch.ones(1, 4)
    masks = {n: torch.arange(16).view(4, 4) % 3 > 0 for n in prunable(model)} if masked else None
    expected, found = definition(model, x, masks), ours(model, x, masks)
    twice = SynFlow().score(model, [(x, 0), (x, 0)], masks=masks)
    for name, s in expected.items():
        torch.testing.assert_close(found[name].double(), s, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(twice[name].double(), 2 * s, rtol=1e-5, atol=1e-6)


def test_scores_do_not_share_memory_with_the_model_or_each_other():
    model, x = draw(mlp()), torch.ones(1, 2, 2, 2)
    first, second = ours(model, x), ours(model, x)
    kept_ = {n: s.clone() for n, s in first.items()}
    for s in second.values():
        s.zero_()
    assert all(torch.equal(s, kept_[n]) for n, s in first.items())
    assert all(torch.equal(s, kept_[n]) for n, s in ours(model, x).items())
