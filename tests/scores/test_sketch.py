"""Sketch scores: r_j |w_ij| with r the norms of the layer's input, for every option of the two layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparseprune.prune import prune
from sparseprune.scores import Sketch
from sparseprune.select import Multinomial

CONVS = {
    "plain": {},
    "padding": {"padding": (1, 2)},
    "stride": {"stride": (2, 3), "padding": 1},
    "dilation": {"dilation": (2, 1), "padding": 1},
    "groups": {"groups": 2},
    "depthwise": {"groups": 4, "out_channels": 8},
    "kernel": {"kernel_size": (1, 3)},
    "pointwise": {"kernel_size": 1, "stride": 2},
    "same": {"padding": "same", "kernel_size": (2, 3)},
    "valid": {"padding": "valid"},
    "reflect": {"padding": 2, "padding_mode": "reflect"},
    "replicate same": {"padding": "same", "kernel_size": (4, 3), "padding_mode": "replicate"},
    "circular all": {
        "padding": (1, 0), "padding_mode": "circular", "stride": 2, "dilation": (1, 2), "groups": 2, "bias": False
    },
}  # fmt: skip


def _sketch(model, *xs, masks=None):
    return Sketch().score(model, [(x, None) for x in xs], loss=F.cross_entropy, masks=masks, seed=0)


def _x(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_linear_is_the_norm_of_each_input_coordinate_times_magnitude():
    layer, x = nn.Linear(4, 3).double(), _x(10, 4)
    torch.testing.assert_close(_sketch(layer, x)["weight"], layer.weight.detach().abs() * x.norm(dim=0))


def test_linear_sums_over_all_leading_dimensions():
    layer, x = nn.Linear(4, 3).double(), _x(2, 5, 4)
    torch.testing.assert_close(_sketch(layer, x)["weight"], _sketch(layer, x.view(10, 4))["weight"])
    torch.testing.assert_close(_sketch(layer, x[0, 0])["weight"], (layer.weight * x[0, 0]).detach().abs())


def test_the_papers_example():
    # X = [[1, 0], [0, 2], [1, 1]] (rows are features), w = (1, -1, 1/2)
    layer = nn.Linear(3, 1, bias=False).double()
    layer.weight.data = torch.tensor([[1.0, -1.0, 0.5]]).double()
    score = _sketch(layer, torch.tensor([[1.0, 0.0, 1.0], [0.0, 2.0, 1.0]]).double())["weight"][0]
    assert float(score.sum()) == pytest.approx(3.7071067811865475, rel=1e-14)
    assert (score / score.sum()).tolist() == pytest.approx([0.26975214, 0.53950429, 0.19074357], abs=1e-8)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")  # torch's, of its own speed
@pytest.mark.parametrize("options", CONVS.values(), ids=list(CONVS))
def test_convolution_is_the_norm_of_the_rows_of_the_unfolded_input(options):
    """By linearity: the output for the weight e_j alone is row j of the unfolded input, whatever the options."""
    torch.manual_seed(0)
    layer = nn.Conv2d(**({"in_channels": 4, "out_channels": 6, "kernel_size": 3} | options)).double()
    x = _x(3, 4, 9, 10)
    got = _sketch(layer, x)["weight"]
    weight = layer.weight.detach().clone()
    layer.bias = None
    expected = torch.empty_like(weight)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in weight.shape)).tolist():
        unit = torch.zeros_like(weight)
        unit[tuple(index)] = 1
        layer.weight.data = unit
        expected[tuple(index)] = layer(x).detach().norm() * weight[tuple(index)].abs()
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


def test_convolution_takes_an_image_without_batch():
    layer, x = nn.Conv2d(2, 3, 3, padding=1).double(), _x(1, 2, 5, 5)
    torch.testing.assert_close(_sketch(layer, x[0])["weight"], _sketch(layer, x)["weight"])


def test_micro_batches_add_up():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4)).double()
    x = _x(7, 2, 5, 5)
    whole, parts = _sketch(model, x), _sketch(model, x[:2], x[2:3], x[3:])
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name])


def test_each_layer_sees_its_own_input_through_the_masks():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    x, mask = _x(10, 4), _x(5, 4, seed=1) > 0
    got = _sketch(model, x, masks={"0.weight": mask})
    hidden = F.relu(F.linear(x, model[0].weight * mask, model[0].bias)).detach()
    torch.testing.assert_close(got["2.weight"], model[2].weight.detach().abs() * hidden.norm(dim=0))
    torch.testing.assert_close(got["0.weight"], model[0].weight.detach().abs() * mask * x.norm(dim=0))


def test_a_shared_weight_sums_over_its_uses_and_keyword_calls_count():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.second.weight = self.first.weight
            self.unused = nn.Linear(4, 4)

        def forward(self, x):
            return self.second(self.first(input=x))

    model, x = Shared().double(), _x(6, 4)
    w = model.first.weight.detach()
    got = _sketch(model, x)
    r = (x.square().sum(0) + (x @ w.T).square().sum(0)).sqrt()
    torch.testing.assert_close(got["first.weight"], w.abs() * r)
    assert (got["unused.weight"] == 0).all()


def test_hooks_are_gone_after_an_error():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(9, 2)).double()
    with pytest.raises(RuntimeError):
        _sketch(model, _x(2, 4))
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_float32_inputs_are_summed_in_float64():
    layer = nn.Linear(1, 1)
    layer.weight.data.fill_(1)
    x = torch.cat([torch.full((1, 1), 4096.0), torch.ones(1000, 1)])  # in float32, 2^24 + 1 = 2^24
    expected = torch.tensor(2**24 + 1000.0, dtype=torch.float64).sqrt().float()
    assert _sketch(layer, *x)["weight"].item() == expected.item() != 4096


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2, 2)])
def test_half_precision_inputs_do_not_overflow(shape):
    layer = (nn.Linear(3, 2) if len(shape) == 2 else nn.Conv2d(3, 2, 1)).half()
    x = torch.full(shape, 300.0).half()  # 300^2 is beyond float16
    score = _sketch(layer, x)["weight"]
    norm = 300 * (x.numel() / 3) ** 0.5
    torch.testing.assert_close(score, layer.weight.detach().abs().float() * norm)


def test_sketched_masks_of_prune_have_the_error_of_lemma_4_1():
    """E ||X^T w - X^T (w m)||^2 = ((sum r|w|)^2 - ||X^T w||^2) / s, the square on the last norm included (erratum)."""
    layer = nn.Linear(3, 1, bias=False).double()
    layer.weight.data = torch.tensor([[1.0, -1.0, 0.5]]).double()
    x = torch.tensor([[1.0, 0.0, 1.0], [0.0, 2.0, 1.0]]).double()
    y, n, w = x @ layer.weight.detach().T, 4000, layer.weight.detach()
    select = Multinomial(target="draws")
    data = [(x, torch.zeros(2, dtype=torch.long))]
    score = _sketch(layer, *(b[0] for b in data))
    errors = [float((y - x @ (w * select.select(score, 2, seed=s)["weight"]).T).square().sum()) for s in range(n)]
    mean, std = torch.tensor(errors).mean(), torch.tensor(errors).std()
    assert abs(float(mean) - 4.621320343559642) < 5 * float(std) / n**0.5
    assert abs(float(mean) - 5.8107) > 5 * float(std) / n**0.5  # the printed form
    assert prune(layer, 2 / 3, score="sketch", select=select, data=data).kept <= 2


def test_random_inputs_serve_where_there_is_no_data():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    masks = prune(model, 0.5, score="sketch")
    assert masks.kept == 36
