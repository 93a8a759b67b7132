"""The linearized net: what is left out, attention without softmax, and the flow through transformers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseprune.prunable import prunable
from sparseprune.prune import prune
from sparseprune.scores._linear import Linearized
from sparseprune.scores._scaled import scaled
from sparseprune.scores.synflow import SynFlow

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    "op",
    [
        F.gelu,
        nn.GELU(approximate="tanh"),
        nn.SiLU(inplace=True),
        nn.Softmax(dim=-1),
        lambda x: x.softmax(-1),
        lambda x: torch.softmax(input=x, dim=-1),
        nn.LayerNorm(8).double(),
        nn.GroupNorm(1, 5).double(),
        nn.RMSNorm(8).double(),
    ],
)
def test_identity_stands_in(op):
    x = rand(2, 5, 8)
    assert not torch.equal(op(x.clone()), x)
    with Linearized():
        assert torch.equal(op(x), x)


def test_other_ops_run_as_they_are():
    x, norm = rand(2, 5, 8), nn.BatchNorm1d(5).double().eval()
    expected = F.relu(norm(x) - 0.5)
    with Linearized():
        assert torch.equal(F.relu(norm(x) - 0.5), expected)


def attention(q: Tensor, k: Tensor, v: Tensor, open_: Tensor | None = None) -> Tensor:
    a = torch.einsum("...ld,...sd->...ls", q, k) / math.sqrt(q.size(-1))
    return torch.einsum("...ls,...sd->...ld", a if open_ is None else torch.where(open_, a, 0.0), v)


def test_scaled_dot_product_attention_is_a_product_of_three():
    q, k, v = rand(2, 3, 4, 6), rand(2, 3, 5, 6, seed=1), rand(2, 3, 5, 6, seed=2)
    open_ = rand(4, 5, seed=3) > 0.4
    causal = torch.ones(4, 5, dtype=torch.bool).tril()
    minus = torch.zeros(4, 5, dtype=torch.float64).masked_fill(~open_, -math.inf)
    call = F.scaled_dot_product_attention
    with Linearized():
        found = [call(q, k, v), call(q, k, v, open_), call(q, k, v, minus), call(q, k, v, is_causal=True)]
        shared = call(q, k[:, :1], v[:, :1], enable_gqa=True, scale=1.0)
    expected = [attention(q, k, v), *[attention(q, k, v, mask) for mask in (open_, open_, causal)]]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **EXACT)
    torch.testing.assert_close(shared, attention(q, k[:, :1], v[:, :1]) * math.sqrt(6), **EXACT)


MULTI_HEAD = {
    "plain": {},
    "batch_first": {"batch_first": True},
    "no_bias": {"bias": False},
    "own_widths": {"kdim": 5, "vdim": 7},
    "more_keys": {"add_bias_kv": True, "add_zero_attn": True},
}


@pytest.mark.parametrize("options", MULTI_HEAD)
@pytest.mark.parametrize("masked", [False, True])
def test_multi_head_attention_is_its_own_projections(options, masked):
    """Against torch's own forward with a softmax that is the identity: masks, projections, heads."""
    mix = nn.MultiheadAttention(6, 2, **MULTI_HEAD[options]).double()
    for p in mix.parameters():
        p.data = rand(*p.shape, seed=p.numel())
    first = mix.batch_first
    q, k, v = (rand(*((3, n) if first else (n, 3)), w) for n, w in ((4, 6), (5, mix.kdim), (5, mix.vdim)))
    masks = {}
    if masked:
        masks = {"attn_mask": rand(4, 5) > 0.7, "key_padding_mask": rand(3, 5, seed=1) > 0.7}
    with Linearized():
        found, weights = mix(q, k, v, **masks)
    assert weights is None
    own = (mix.q_proj_weight, mix.k_proj_weight, mix.v_proj_weight)
    w = own if mix.in_proj_weight is None else mix.in_proj_weight.chunk(3)
    b = mix.in_proj_bias.chunk(3) if mix.in_proj_bias is not None else (0, 0, 0)
    q, k, v = (x if first else x.transpose(0, 1) for x in (q, k, v))
    q, k, v = (x @ m.T + c for x, m, c in zip((q, k, v), w, b, strict=True))
    open_ = torch.ones(3, 1, 4, 5, dtype=torch.bool)
    if masked:
        open_ = ~(masks["attn_mask"] | masks["key_padding_mask"][:, None, None])
    if mix.bias_k is not None:
        k, v = (torch.cat([x, c.expand(3, 1, 6)], 1) for x, c in ((k, mix.bias_k), (v, mix.bias_v)))
        open_ = F.pad(open_, (0, 1), value=True)
    q, k, v = (x.unflatten(-1, (2, 3)).transpose(1, 2) for x in (q, k, v))
    out = F.linear(attention(q, k, v, open_).transpose(1, 2).flatten(2), mix.out_proj.weight, mix.out_proj.bias)
    torch.testing.assert_close(found, out if first else out.transpose(0, 1), **EXACT)


def test_unbatched_and_bias_masks():
    mix, x, bias = nn.MultiheadAttention(6, 2).double(), rand(4, 6), rand(2, 4, 4)
    with Linearized():
        alone, one = mix(x, x, x, attn_mask=bias)[0], mix(x[:, None], x[:, None], x[:, None], attn_mask=bias)[0]
        none = mix(x, x, x)[0]
    torch.testing.assert_close(alone, one[:, 0], **EXACT)
    assert not torch.allclose(alone, none)


class Transformer(nn.Module):
    """Tokens or vectors through nn.TransformerEncoder to a class."""

    def __init__(self, layers: int, *, norm_first: bool, tokens: bool = False, **options) -> None:
        super().__init__()
        self.inside = nn.Embedding(9, 8) if tokens else nn.Linear(6, 8)
        layer = nn.TransformerEncoderLayer(
            8, 2, 16, activation="gelu", batch_first=True, norm_first=norm_first, dtype=torch.float32, **options
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)
        g = torch.Generator().manual_seed(0)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=g) * 0.3

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.inside(x)).mean(1))


def written_out(model: Transformer, x: Tensor) -> dict[str, Tensor]:
    """The linearized net of absolute values in float64, layer by layer, and its flow."""
    p = {n: t.detach().double().abs().requires_grad_() for n, t in model.named_parameters()}
    x = F.linear(x.double(), p["inside.weight"], p["inside.bias"])
    for i in range(len(model.encoder.layers)):
        own = {n.split(".", 3)[3]: t for n, t in p.items() if n.startswith(f"encoder.layers.{i}.")}
        qkv = F.linear(x, own["self_attn.in_proj_weight"], own["self_attn.in_proj_bias"]).chunk(3, -1)
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in qkv)
        mixed = attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + F.linear(mixed, own["self_attn.out_proj.weight"], own["self_attn.out_proj.bias"])
        hidden = F.linear(x, own["linear1.weight"], own["linear1.bias"])
        x = x + F.linear(hidden, own["linear2.weight"], own["linear2.bias"])
    flow = F.linear(x.mean(1), p["head.weight"], p["head.bias"]).sum()
    names = list(prunable(model))
    grads = torch.autograd.grad(flow, [p[n] for n in names])
    return {n: (g * p[n]).detach() for n, g in zip(names, grads, strict=True)}


@pytest.mark.parametrize("norm_first", [False, True])
def test_flow_through_a_transformer_is_that_of_the_linearized_net(norm_first):
    model, x = Transformer(2, norm_first=norm_first), torch.ones(1, 4, 6)
    expected = written_out(model, x)
    found = SynFlow(linear=True).score(model, [(x, None)])
    assert list(found) == list(expected) and len(found) == 8
    factor = float(found["head.weight"].max() / expected["head.weight"].max())
    assert math.frexp(factor)[0] == pytest.approx(0.5, rel=1e-4) or factor == pytest.approx(1, rel=1e-4)
    for name, s in expected.items():
        torch.testing.assert_close(found[name].double() / factor, s, rtol=1e-4, atol=0.0)
    plain = SynFlow().score(model, [(x, None)])  # the published forward is another net
    assert not torch.allclose(plain["head.weight"], found["head.weight"], rtol=0.1)


def test_linear_changes_nothing_where_there_is_nothing_to_linearize():
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
    x = torch.ones(1, 5)
    linear = SynFlow(linear=True).score(model, [(x, None)])
    assert all(torch.equal(s, linear[n]) for n, s in SynFlow().score(model, [(x, None)]).items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [False, True])
def test_a_deep_transformer_neither_overflows_nor_vanishes(tokens, dtype):
    """Each layer takes the third power of its input: at 24 layers 2^(3^24) is within nobody's range."""
    model = Transformer(24, norm_first=True, tokens=tokens).to(dtype)
    x = torch.arange(4)[None] if tokens else torch.ones(1, 4, 6, dtype=dtype)
    scores = SynFlow(linear=True).score(model, [(x, None)])
    assert all(s.isfinite().all() and (s > 0).all() for s in scores.values())
    # degree in the weights of the attention's output, of any layer: conservation up to the branch that is not taken
    head = float(scores["head.weight"].double().sum())
    last = float(scores["encoder.layers.23.self_attn.out_proj.weight"].double().sum())
    assert last == pytest.approx(head, rel=1e-3)
    masks = prune(model, 0.1, score=SynFlow(linear=True), inputs=x, iterations=3)
    assert masks.kept == round(0.1 * masks.total)


def test_a_transformer_runs_as_published_without_linear():
    model = Transformer(12, norm_first=True)
    scores = SynFlow().score(model, [(torch.ones(1, 4, 6), None)])
    assert all(s.isfinite().all() for s in scores.values())


def test_scaled_attention_carries_exponents():
    q, k, v = (rand(1, 2, 4, 6, seed=i).float() for i in range(3))
    with Linearized():
        y = F.scaled_dot_product_attention(scaled(q, 300), scaled(k, 300), scaled(v, 300))
    assert y.exponent == 900
    torch.testing.assert_close(y.as_subclass(Tensor), attention(q, k, v))
