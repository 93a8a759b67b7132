"""The registry of scores and what every score promises."""

import copy
from dataclasses import FrozenInstanceError, dataclass
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparseprune import scores
from sparseprune.prunable import prunable

NAMES = [
    "force", "grasp", "grasp_it", "iter_snip", "magnitude", "prospr", "random", "sketch", "snip", "synflow",
]  # fmt: skip


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(96, 5)
    )
    model[2].eval()
    return model


def _batches():
    g = torch.Generator().manual_seed(1)
    return [(torch.randn(4, 2, 6, 6, generator=g), torch.randint(5, (4,), generator=g)) for _ in range(2)]


def _masks(model):
    g = torch.Generator().manual_seed(2)
    return {name: torch.rand(w.shape, generator=g) > 0.4 for name, w in prunable(model).items()}


def _score(score, model, masks=None, seed=0):
    return score.score(model, _batches(), loss=F.cross_entropy, masks=masks, seed=seed)


def test_the_published_scores_are_registered():
    assert set(NAMES) <= set(scores.names())
    steps = {"force": 60, "grasp_it": 60, "iter_snip": 60, "synflow": 100}
    assert {name: scores.get(name).iterations for name in NAMES} == dict.fromkeys(NAMES, 1) | steps
    assert {name: scores.get(name).needs for name in NAMES} == {
        "force": "targets", "grasp": "targets", "grasp_it": "targets", "iter_snip": "targets", "magnitude": "nothing",
        "prospr": "targets", "random": "nothing", "sketch": "inputs", "snip": "targets", "synflow": "inputs",
    }  # fmt: skip


def test_get_returns_objects_as_they_are_and_refuses_the_rest():
    own = scores.GraSP(temperature=1.0)
    assert scores.get(own) is own and scores.get("grasp") == scores.GraSP()
    for wrong in ("nothing", scores.GraSP, 7):
        with pytest.raises(ValueError, match=r"prune: score must be one of .* or an object with a score method, got"):
            scores.get(wrong)  # pyright: ignore[reportArgumentType]


def test_an_object_must_have_what_every_score_has():
    class Half:
        name = "half"
        needs = "nothing"

        def score(self, model, batches, **rest):
            return {}

    with pytest.raises(ValueError, match=r"prune: score must have name, .*, got .*Half.* without \['iterations'\]"):
        scores.get(Half())  # pyright: ignore[reportArgumentType]


def test_a_name_can_be_registered_once():
    @dataclass(frozen=True)
    class Again:
        name: ClassVar[str] = "snip"

    with pytest.raises(ValueError, match="register: name must be new, got 'snip'"):
        scores.register(Again)
    assert scores.get("snip") == scores.SNIP()


OBJECTS = [
    *(scores.get(name) for name in NAMES),
    *(scores.SNIP(**options) for options in ({"mode": "train"}, {"reference": "pytorch"}, {"reference": "synflow"})),
    *(scores.GraSP(**options) for options in ({"mode": "train"}, {"reference": "authors"}, {"reference": "synflow"})),
]


@pytest.mark.parametrize("score", OBJECTS, ids=repr)
@pytest.mark.parametrize("masked", [False, True])
def test_a_score_gives_one_tensor_a_parameter_and_leaves_the_model_as_found(score, masked):
    model = _model()
    for p in model.parameters():
        p.grad = torch.full_like(p, 3.0)
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    state = torch.random.get_rng_state()
    result = _score(score, model, _masks(model) if masked else None)
    assert {n: s.shape for n, s in result.items()} == {n: w.shape for n, w in prunable(model).items()}
    assert all(s.isfinite().all() and not s.requires_grad and s.dtype is torch.float32 for s in result.values())
    assert all(torch.equal(model.state_dict()[n], t) for n, t in before.items())
    assert all(p.grad is not None and bool((p.grad == 3).all()) for p in model.parameters())
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("score", [s for s in OBJECTS if s.name not in ("random", "magnitude")], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models_are_scored_in_float32(score, dtype):
    model = _model().to(dtype)
    batches = [(x.to(dtype), y) for x, y in _batches()]

    def run(model, batches):
        return score.score(model, batches, loss=F.cross_entropy, masks=None, seed=0)

    got = run(model, batches)
    expected = run(copy.deepcopy(model).float(), [(x.float(), y) for x, y in batches])
    assert all(got[n].dtype is torch.float32 and torch.equal(got[n], expected[n]) for n in expected)
    assert all(p.dtype is dtype for p in model.parameters())


@pytest.mark.parametrize("score", [s for s in OBJECTS if s.name != "force"], ids=repr)
def test_masked_weights_score_zero_and_the_rest_do_not(score):
    model = _model()
    masks = _masks(model)
    result = _score(score, model, masks)
    assert all((s[~masks[n]] == 0).all() and (s[masks[n]] != 0).float().mean() > 0.5 for n, s in result.items())


# ProsPr would train a weight that happens to be zero; others look at weights drawn anew
OF_THE_WEIGHTS = [
    s
    for s in OBJECTS
    if s.name not in ("random", "prospr") and getattr(s, "reference", "") not in ("pytorch", "authors")
]


@pytest.mark.parametrize("score", OF_THE_WEIGHTS, ids=repr)
def test_masks_act_like_zeros_in_the_weights(score):
    model = _model()
    masks = _masks(model)
    zeroed = copy.deepcopy(model)
    for name, w in prunable(zeroed).items():
        w.data *= masks[name]
    got, expected = _score(score, model, masks), _score(score, zeroed)
    for name in got:
        # g of a pruned weight is zero behind a mask, but not for a weight that happens to be zero: GraSP's H g differs
        if score.name != "grasp":
            torch.testing.assert_close(got[name] * masks[name], expected[name] * masks[name])


@pytest.mark.parametrize("score", OBJECTS, ids=repr)
def test_scores_are_functions_of_the_seed(score):
    first, again = _score(score, _model(), seed=5), _score(score, _model(), seed=5)
    assert all(torch.equal(first[n], again[n]) for n in first)


def test_scores_are_frozen():
    with pytest.raises(FrozenInstanceError):
        scores.SNIP().mode = "train"  # pyright: ignore[reportAttributeAccessIssue]
