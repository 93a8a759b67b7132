"""prune: counts, schedules, determinism, bad input."""

import copy
import itertools
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparseprune import scores, select
from sparseprune.prunable import prunable
from sparseprune.prune import prune, rank

SHAPE = (2, 6, 6)
EXACT = ["threshold", "without_replacement", "priority"]


def _model(seed=0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip


def _data(batches=3):
    g = torch.Generator().manual_seed(1)
    return [(torch.randn(8, *SHAPE, generator=g), torch.randint(4, (8,), generator=g)) for _ in range(batches)]


@dataclass(frozen=True)
class Fixed:
    """Scores given, and what prune asked for along the way."""

    values: dict[str, torch.Tensor]
    calls: list[dict[str, Any]] = field(default_factory=list)
    name: ClassVar[str] = "fixed"
    iterations: ClassVar[int] = 1
    needs: ClassVar[str] = "nothing"

    def score(self, model, batches, *, loss, masks, seed, train=None):
        self.calls.append({"masks": masks, "seed": seed, "train": train, "loss": loss, "batches": batches})
        return {n: v * masks[n] if masks else v for n, v in self.values.items()}


def _like(model, f):
    return {n: f(w.detach()) for n, w in prunable(model).items()}


def _untrained(model, *steps):
    """For scores that train: a recipe without steps."""


@pytest.mark.parametrize("score", scores.names())
@pytest.mark.parametrize("selector", EXACT)
def test_every_score_with_every_exact_selector_keeps_the_rounded_count(score, selector):
    model = _model()
    before = copy.deepcopy(model.state_dict())
    per_layer = ({"scope": "layer", "iterations": 1}, {"distribution": "erk", "iterations": 1})
    for density, arguments in zip((0.3, 0.1, 0.2), ({}, *per_layer), strict=True):
        masks = prune(model, density, score=score, select=selector, data=_data(), train=_untrained, **arguments)
        assert masks.kept == round(density * masks.total)
        assert [(n, m.shape) for n, m in masks.items()] == [(n, w.shape) for n, w in prunable(model).items()]
    assert all(torch.equal(model.state_dict()[n], t) for n, t in before.items())
    assert all(p.grad is None for p in model.parameters()) and model.training


def test_scope_layer_and_distributions_set_the_counts_of_layers():
    masks = prune(_model(), 0.25, scope="layer")
    assert [int(m.sum()) for m in masks.values()] == [27, 41, 6]  # of 108, 162, 24: 40.5 + 27 + 6 rounds to 74
    balanced = prune(_model(), 0.25, distribution="balanced")
    assert [int(m.sum()) for m in balanced.values()] == [25, 25, 24]


def test_threshold_is_the_exact_global_top_k():
    masks = prune(_model(), 0.37, score="magnitude")
    flat = torch.cat([w.detach().abs().flatten() for w in prunable(_model()).values()])
    kept = torch.cat([m.flatten() for m in masks.values()])
    assert float(flat[kept].min()) > float(flat[~kept].max())


@pytest.mark.parametrize("selector", EXACT)
def test_counts_hold_where_all_scores_are_equal(selector):
    masks = prune(_model(), 0.3, score=Fixed(_like(_model(), torch.ones_like)), select=selector)
    assert masks.kept == round(0.3 * masks.total)


@pytest.mark.parametrize(
    "schedule, expected", [("exponential", [0.5, 0.25, 0.125]), ("linear", [0.7083, 0.4167, 0.125])]
)
def test_schedules_prune_step_by_step_with_the_masks_so_far(schedule, expected):
    score = Fixed(_like(_model(), torch.abs))
    masks = prune(_model(), 0.125, score=score, iterations=3, schedule=schedule)
    seen = [call["masks"] for call in score.calls]
    assert seen[0] is None
    densities = [sum(int(m.sum()) for m in s.values()) / masks.total for s in seen[1:]] + [masks.density]
    assert densities == pytest.approx(expected, abs=1 / masks.total)
    assert all((seen[2][n] <= seen[1][n]).all() and (masks[n] <= seen[2][n]).all() for n in masks)
    assert len({call["seed"] for call in score.calls}) == 3


@pytest.mark.parametrize("make", [lambda w: w, lambda w: (w > 0.05).float()], ids=["signed", "mostly zero"])
def test_pruned_weights_stay_pruned_whatever_their_score_of_zero_outranks(make):
    score = Fixed(_like(_model(), make))
    masks = prune(_model(), 0.6, score=score, iterations=5)
    assert masks.kept == round(0.6 * masks.total)
    steps = [call["masks"] for call in score.calls[1:]] + [masks]
    for earlier, later in itertools.pairwise(steps):
        assert all((later[n] <= earlier[n]).all() for n in masks)


@pytest.mark.parametrize("selector", select.names())
def test_small_layers_that_lose_nothing_at_the_last_iteration_are_sampled_too(selector):
    masks = prune(_model(), 0.9, score=Fixed(_like(_model(), torch.abs)), select=selector, scope="layer", iterations=50)
    assert masks.kept == pytest.approx(0.9 * masks.total, abs=5)


def test_the_selector_acts_at_the_last_iteration_only():
    calls = []

    @dataclass(frozen=True)
    class Spy:
        def select(self, scores, kept, *, seed):
            calls.append((kept, {n: s.clone() for n, s in scores.items()}))
            return select.WithoutReplacement().select(scores, kept, seed=seed)

    score = Fixed(_like(_model(), torch.abs))
    masks = prune(_model(), 0.125, score=score, select=Spy(), iterations=3)
    ((kept, last),) = calls
    assert kept == masks.kept
    before = score.calls[-1]["masks"]
    assert all((last[n][~before[n]] == 0).all() and not masks[n][~before[n]].any() for n in masks)


def test_a_selector_at_each_iteration_sketches_what_is_sketched_so_far():
    model, calls = _model(), []
    fixed = Fixed(_like(model, torch.abs), calls)
    masks = prune(model, 0.4, score=fixed, select="poisson", select_at="each", iterations=3, seed=1)
    for earlier, later in itertools.pairwise([call["masks"] for call in calls[1:]] + [masks]):
        for name, m in later.items():
            assert m.is_floating_point()
            assert not m[earlier[name] == 0].any()
    alone = rank(model, 0.4, score=fixed, each="poisson", iterations=3, seed=1)
    last = select.Poisson().select(alone.scores, alone.kept, seed=alone.draw)
    for name, m in masks.items():
        assert torch.equal(m, last[name] * calls[2]["masks"][name])


def test_sketches_at_each_iteration_are_unbiased_together():
    model = nn.Sequential(nn.Linear(6, 4, bias=False))
    fixed = Fixed(_like(model, torch.abs))
    draws = [
        prune(model, 0.5, score=fixed, select="poisson", select_at="each", iterations=2, seed=seed)["0.weight"]
        for seed in range(150)
    ]
    mean, error = torch.stack(draws).mean(0), torch.stack(draws).std(0) / math.sqrt(150)
    assert ((mean - 1).abs() <= 5 * error).all()


def test_several_selectors_share_one_ranking():
    model, calls = _model(), []
    ranking = rank(model, 0.3, score=Fixed(_like(model, torch.abs), calls), iterations=4, seed=3)
    assert len(calls) == 4
    for selector in ("threshold", "multinomial", "without_replacement"):
        alone = prune(model, 0.3, score=Fixed(_like(model, torch.abs)), select=selector, iterations=4, seed=3)
        assert ranking.masks(selector) == alone


def test_a_score_may_have_its_own_scope_steps_and_density():
    seen = []

    @dataclass(frozen=True)
    class Wanting(Fixed):
        scope: ClassVar[str] = "layer"
        needs_density: ClassVar[bool] = True

        def steps(self, density):
            return round(1 / density)

        def score(self, model, batches, *, density, **others):
            seen.append(density)
            return super().score(model, batches, **others)

    model = _model()
    masks = prune(model, 0.25, score=Wanting(_like(model, torch.abs)), schedule="linear")
    assert seen == pytest.approx([1 - 0.75 * t / 4 for t in range(1, 5)])
    assert masks == prune(model, 0.25, score=Fixed(_like(model, torch.abs)), scope="layer")


def test_a_score_that_trains_needs_train():
    @dataclass(frozen=True)
    class Training(Fixed):
        trains: ClassVar[bool] = True

    model = _model()
    with pytest.raises(ValueError, match="prune: train must be given for score 'fixed', got none"):
        prune(model, 0.5, score=Training(_like(model, torch.abs)))


@pytest.mark.parametrize(("inputs", "redraw"), [("chi", False), ("normal", True)])
def test_inputs_are_drawn_anew_on_request(inputs, redraw):
    @dataclass(frozen=True)
    class Watching(Fixed):
        needs: ClassVar[str] = "inputs"

    model, calls = _model(), []
    score = Watching(_like(model, torch.abs), calls)
    prune(model, 0.5, score=score, inputs=inputs, redraw=redraw, input_shape=SHAPE, iterations=3)
    first, *others = (call["batches"][0][0] for call in calls)
    assert all(torch.equal(first, x) != redraw for x in others)


@pytest.mark.parametrize("kind, different", [("chi", 3), ("normal", 1)])
def test_chi_inputs_are_drawn_anew_each_iteration_and_the_others_once(kind, different):
    seen = []

    class Spy(Fixed):
        needs: ClassVar[str] = "inputs"

        def score(self, model, batches, **rest):
            seen.extend(float(x.sum()) for x, _ in batches)
            return super().score(model, batches, **rest)

    prune(_model(), 0.5, score=Spy(_like(_model(), torch.abs)), inputs=kind, input_shape=SHAPE, iterations=3)
    assert len(seen) == 3 and len(set(seen)) == different


def test_iterations_default_to_the_scores_own():
    done = []
    prune(_model(), 0.5, score="synflow", input_shape=SHAPE, progress=lambda t, total: done.append((t, total)))
    assert done == [(t, 100) for t in range(1, 101)]


@pytest.mark.parametrize(
    "score, selector", [("random", "threshold"), ("magnitude", "multinomial"), ("sketch", "priority")]
)
def test_deterministic_in_the_seed_and_free_of_the_global_generator(score, selector):
    def run(seed):
        return prune(_model(), 0.3, score=score, select=selector, input_shape=SHAPE, seed=seed)

    a = run(0)
    model_state = _model()
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    b = prune(model_state, 0.3, score=score, select=selector, input_shape=SHAPE, seed=0)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a[n], b[n]) for n in a) and a.seed == 0
    assert not all(torch.equal(a[n], run(1)[n]) for n in a)


@pytest.mark.parametrize("score", ["magnitude", "snip", "grasp", "sketch", "synflow"])
def test_a_shuffling_loader_neither_moves_the_global_generator_nor_the_masks(score):
    x, y = (torch.cat(part) for part in zip(*_data(), strict=True))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=5, shuffle=True)
    model, runs = _model(), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        runs.append(prune(model, 0.3, score=score, iterations=1, data=loader))
        assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(runs[0][n], runs[1][n]) for n in runs[0])


def test_score_and_selector_draw_from_streams_of_their_own():
    seeds = []

    @dataclass(frozen=True)
    class Spy:
        def select(self, scores, kept, *, seed):
            seeds.append(seed)
            return select.Threshold().select(scores, kept)

    score = Fixed(_like(_model(), torch.abs))
    prune(_model(), 0.5, score=score, select=Spy(), seed=4)
    assert len({seeds[0], score.calls[0]["seed"], 4}) == 3


def test_modules_restrict_what_is_pruned_under_the_same_names():
    model = _model()
    masks = prune(model, 0.5, score="snip", data=_data(), modules=[model[3], "7"])
    assert list(masks) == ["3.weight", "7.weight"] and masks.kept == round(0.5 * masks.total)
    assert masks.groups == {"3.weight": 2}


def test_loss_and_train_reach_the_score():
    score, train, loss = Fixed(_like(_model(), torch.abs)), lambda model, steps: None, F.mse_loss
    prune(_model(), 0.5, score=score, train=train, loss=loss)
    prune(_model(), 0.5, score=score)
    assert score.calls[0]["train"] is train and score.calls[0]["loss"] is loss
    assert score.calls[1]["train"] is None and score.calls[1]["loss"] is F.cross_entropy


def test_a_custom_loss_serves_a_regression():
    data = [(torch.randn(9, 3), torch.randn(9, 1))]
    masks = prune(
        nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)), 0.5, score="grasp", data=data, loss=F.mse_loss
    )
    assert masks.kept == 16


@pytest.mark.parametrize("score", ["snip", "grasp", "sketch", "synflow"])
@pytest.mark.parametrize(
    "inputs",
    ["ones", "normal", "chi", "sparse", torch.ones(3, *SHAPE)],
    ids=lambda i: i if isinstance(i, str) else "tensor",
)
def test_every_score_takes_every_kind_of_inputs(score, inputs):
    masks = prune(_model(), 0.3, score=score, inputs=inputs, input_shape=SHAPE, iterations=2)
    assert masks.kept == round(0.3 * masks.total)


def test_a_data_free_score_takes_only_the_shape_of_data():
    a = prune(_model(), 0.2, score="synflow", iterations=3, data=_data())
    b = prune(_model(), 0.2, score="synflow", iterations=3, input_shape=SHAPE)
    assert all(torch.equal(a[n], b[n]) for n in a)


def test_density_one_keeps_everything_with_every_selector():
    for selector in select.names():
        masks = prune(_model(), 1.0, select=selector)
        assert masks.density == 1 and all((m == 1).all() for m in masks.values())


def test_collapse_is_in_the_report_before_training_starts():
    weights = _like(_model(), torch.ones_like)
    weights["3.weight"] *= 1e-3
    masks = prune(_model(), 0.1, score=Fixed(weights))
    assert masks.collapsed and "COLLAPSE: nothing kept in 3.weight" in str(masks.report())


def test_a_bar_on_request_changes_nothing():
    a, b = (prune(_model(), 0.5, iterations=2, progress=p) for p in (True, None))
    assert all(torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"density": 1.5}, r"density must be in \(0, 1\], got 1.5"),
        ({"density": 0}, r"density must be in \(0, 1\], got 0"),
        ({"density": -0.1}, r"density must be in \(0, 1\], got -0.1"),
        ({"density": math.nan}, r"density must be in \(0, 1\], got nan"),
        ({"density": "half"}, r"density must be in \(0, 1\], got 'half'"),
        ({"density": 1e-9}, "density must keep at least one of 294 weights, got 1e-09"),
        ({"score": "magic"}, "score must be one of .*'synflow'.*, got 'magic'"),
        ({"select": "best"}, "select must be one of .*'threshold'.*, got 'best'"),
        ({"select_at": "start"}, "select_at must be one of 'end', 'each', got 'start'"),
        ({"scope": "net"}, "scope must be one of 'global', 'layer', got 'net'"),
        ({"schedule": "cosine"}, "schedule must be one of 'exponential', 'linear', got 'cosine'"),
        ({"distribution": "erdos"}, "distribution must be one of 'uniform', 'erk', 'balanced', got 'erdos'"),
        ({"iterations": 0}, "iterations must be an integer >= 1, got 0"),
        ({"iterations": 2.0}, "iterations must be an integer >= 1, got 2.0"),
        ({"seed": 0.5}, "seed must be an integer, got 0.5"),
        ({"inputs": "zeros"}, "inputs must be one of .* got 'zeros'"),
        ({"score": "snip"}, "data or inputs must be given for score 'snip', got neither"),
        ({"score": "grasp"}, "data or inputs must be given for score 'grasp', got neither"),
        ({"score": "synflow"}, "input_shape must be known to make inputs"),
        ({"score": "snip", "data": []}, "data must hold at least one batch, got an empty loader"),
        ({"score": "snip", "data": iter([])}, "data must be iterable twice"),
    ],
)
def test_bad_arguments_get_one_clear_error(arguments, message):
    given = {"density": 0.5} | arguments
    with pytest.raises(ValueError, match=f"^prune: {message}"):
        prune(_model(), **given)


def test_a_model_with_nothing_to_prune_is_an_error():
    with pytest.raises(
        ValueError, match=r"prune: model must hold an nn.Linear or nn.Conv2d, got BatchNorm2d with none"
    ):
        prune(nn.BatchNorm2d(3), 0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_an_error_that_names_them(value):
    model = _model()
    model[3].weight.data[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"prune: weights must be finite, got NaN or infinity in '3.weight'"):
        prune(model, 0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_an_error_that_names_the_parameter(value):
    values = _like(_model(), torch.ones_like)
    values["7.weight"][1, 1] = value
    with pytest.raises(ValueError, match=r"prune: scores must be finite, got .* from 'fixed' in '7.weight'"):
        prune(_model(), 0.5, score=Fixed(values))


@pytest.mark.parametrize("layer", [nn.LazyLinear(3), nn.Linear(3, 3, device="meta")])
def test_a_model_without_values_is_an_error(layer):
    with pytest.raises(ValueError, match=r"prune: model must be initialized, got '0.weight' without values"):
        prune(nn.Sequential(layer), 0.5)


@pytest.mark.parametrize("change", ["gone", "flat"])
def test_scores_that_do_not_fit_are_an_error_that_names_the_parameter(change):
    values = _like(_model(), torch.ones_like)
    weight = values.pop("7.weight")
    if change == "flat":
        values["7.weight"] = weight.flatten()
    got = r"none" if change == "gone" else r"shape \[24\]"
    with pytest.raises(ValueError, match=rf"prune: scores of '7.weight' must have shape \[4, 6\], got {got} from 'fix"):
        prune(_model(), 0.5, score=Fixed(values))


def test_more_than_the_positive_scores_can_give_is_an_error():
    values = {n: (w > 0).float() for n, w in _like(_model(), lambda w: w).items()}
    for selector in ("multinomial", "without_replacement", "priority"):
        with pytest.raises(ValueError, match="kept must be at most"):
            prune(_model(), 0.9, score=Fixed(values), select=selector)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("score", scores.names())
@pytest.mark.parametrize("selector", select.names())
def test_a_model_on_a_gpu_is_pruned_there_and_leaves_the_generators_alone(score, selector):
    state = torch.cuda.get_rng_state()
    options = {"select": selector, "iterations": 2, "train": _untrained}
    masks = prune(_model().cuda(), 0.3, score=score, data=_data(), **options)
    assert all(mask.is_cuda for mask in masks.values())
    assert torch.equal(state, torch.cuda.get_rng_state())
    if score in ("random", "magnitude"):  # equal scores give equal bits on every device
        host = prune(_model(), 0.3, score=score, **options)
        assert all(torch.equal(masks[name].cpu(), host[name]) for name in masks)
