"""A trainer takes the steps of `train`, any run of them."""

import copy

import pytest
import torch
from torch import nn

from sparseprune import prune
from sparseprune.data.dataset import Dataset
from sparseprune.scores import IMP
from sparseprune.training import Trainer, train

RECIPE = {"epochs": 3, "batch_size": 16, "lr": 0.05, "milestones": [1], "augment": True, "seed": 5}
STEPS = 9


def tiny() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(40) % 3
    pixels = torch.randint(0, 256, (40, 1, 4, 4), generator=generator).to(torch.uint8)
    return Dataset.build("tiny", (pixels, targets), (pixels[:9], targets[:9]), classes=3)


def net(dropout: float = 0.0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_all_steps_are_those_of_train():
    whole, ours, state = net(0.3), net(0.3), torch.get_rng_state()
    train(whole, tiny(), **RECIPE)
    Trainer(tiny(), **RECIPE)(ours)
    assert same(whole, ours) and not same(whole, net()) and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 8, STEPS])
def test_steps_taken_apart_are_those_of_one_call_but_for_the_momentum(cut):
    options = {**RECIPE, "momentum": 0.0}
    whole, parts = net(), net()
    trainer = Trainer(tiny(), **options)
    trainer(whole)
    trainer(parts, cut)
    assert same(parts, net()) == (cut == 0)
    trainer(parts, None, cut)
    assert same(parts, whole)


def test_momentum_begins_at_zero_in_each_call():
    whole, parts = net(), net()
    trainer = Trainer(tiny(), **RECIPE)
    trainer(whole)
    trainer(parts, 4)
    trainer(parts, None, 4)
    assert not same(parts, whole)


def test_train_begins_where_it_is_told(tmp_path):
    """The rest of a rewound run, its checkpoints included, is the trainer's."""
    ours, theirs, again = (copy.deepcopy(net()) for _ in range(3))
    Trainer(tiny(), **RECIPE)(ours, None, 4)
    taken = []
    history = train(
        theirs, tiny(), start=4, checkpoint=tmp_path / "run.pt", progress=lambda done, _: taken.append(done), **RECIPE
    )
    assert same(ours, theirs) and taken == [5, 6, 7, 8, 9] and len(history.losses) == 2
    assert train(again, tiny(), start=4, checkpoint=tmp_path / "run.pt", **RECIPE) == history and same(again, theirs)
    with pytest.raises(ValueError, match="written with another start"):
        train(again, tiny(), start=5, checkpoint=tmp_path / "run.pt", **RECIPE)


def test_progress_counts_the_steps_of_the_recipe():
    seen = []
    Trainer(tiny(), **RECIPE, progress=lambda *steps: seen.append(steps))(net(), 2, 5)
    assert seen == [(6, STEPS), (7, STEPS)]


class Interrupted(Exception):
    pass


def test_an_interrupted_imp_goes_on_where_it_was(tmp_path):
    """Three levels with rewinding into an epoch; the second is cut short, and only what is missing is trained again."""
    score, taken = IMP(rewind=4), []

    def count(done, total):
        taken.append(done)
        if len(taken) == stop:
            raise Interrupted

    def pruned(**options):
        return prune(net(0.3), 0.3, score=score, train=Trainer(tiny(), **RECIPE, **options), iterations=3)

    expected, stop = pruned(progress=lambda *_: None), 4 + 5 + 4
    kept = {"checkpoints": tmp_path / "deep", "checkpoint_seconds": 0.0, "progress": count}
    with pytest.raises(Interrupted):
        pruned(**kept)
    assert taken == [1, 2, 3, 4, 5, 6, 7, 8, 9, 5, 6, 7, 8], "the dense steps of level 2 are those of level 1"
    taken.clear()
    stop = 0
    assert pruned(**kept) == expected
    assert taken == [7, 8, 9, 5, 6, 7, 8, 9], "the epoch of level 2 that was whole, and level 1, are kept"
    taken.clear()
    assert pruned(**kept) == expected and not taken


def test_what_a_call_is_kept_for_is_that_call_alone(tmp_path):
    """Not one of other weights, steps, recipe or (the same state, another function) net."""
    taken = []

    def calls(**options):
        return Trainer(
            tiny(), **{**RECIPE, **options}, checkpoints=tmp_path, progress=lambda *steps: taken.append(steps)
        )

    calls()(net(), 2)
    for trainer, model, steps in (
        (calls(), net(), (3,)),
        (calls(), net(), (2, 1)),
        (calls(lr=0.01), net(), (2,)),
        (calls(), net(0.5), (2,)),
        (calls(), net().requires_grad_(False).append(nn.Linear(3, 3)), (2,)),
    ):
        taken.clear()
        trainer(model, *steps)
        assert taken
    for density in (0.3, 0.6):
        taken.clear()
        prune(net(), density, score="edge_popup", train=calls())
        assert taken
    taken.clear()
    calls()(net(), 2)
    assert not taken


@pytest.mark.parametrize(
    ("steps", "start", "message"),
    [
        (None, 10, r"start must be in \[0, 9\]"),
        (-1, 0, r"steps must be in \[0, 9\]"),
        (6, 4, r"steps must be in \[0, 5\]"),
    ],
)
def test_steps_that_the_recipe_does_not_have(steps, start, message):
    model = net()
    with pytest.raises(ValueError, match=f"train: {message}.*, got {start if steps is None else steps}"):
        Trainer(tiny(), **RECIPE)(model, steps, start)
    assert same(model, net())


def test_a_bad_recipe_is_refused_when_it_is_made():
    with pytest.raises(ValueError, match="train: epochs must be at least 0, got -1"):
        Trainer(tiny(), epochs=-1)
