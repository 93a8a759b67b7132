"""Jobs that share work: what goes together, one scoring for several selectors, several seeds at once."""

import pytest
import torch

from sparseprune import models
from sparseprune.harness import Plan, Watcher, run, units
from sparseprune.harness import job as job_module
from sparseprune.harness import main as main_module
from sparseprune.results import Results
from sparseprune.training import Trainer
from sparseprune.training.loop import Run

from .conftest import Counting

IMP = {"model": "mlp", "densities": (0.3,), "methods": ("imp",), "seeds": 1, "epochs": 1}


class Epochs:
    """Counts epochs of training; the one after `most` is interrupted."""

    def __init__(self, monkeypatch, most=100):
        original, self.count = Run.epoch, 0

        def epoch(run, progress, stop):
            if self.count == most:
                raise KeyboardInterrupt
            self.count += 1
            return original(run, progress, stop)

        monkeypatch.setattr(Run, "epoch", epoch)


def test_jobs_go_alone_but_for_scorings_that_train(digits):
    jobs = Plan(methods=("magnitude", "imp"), densities=(0.3,), seeds=2).jobs(digits)
    groups = units.units(jobs)
    assert [len(group) for group in groups] == [1, 1, 1, 1, 3] * 2
    assert [job for group in groups for job in group] == jobs, "seed by seed"


def test_seeds_of_a_method_go_together_in_stacks(digits):
    jobs = Plan(methods=("magnitude", "imp"), densities=(0.3,), seeds=3).jobs(digits)
    groups = units.units(jobs, stack=2)
    assert [len(group) for group in groups] == [2, 2, 2, 2, 6, 1, 1, 1, 1, 3]
    assert [job.seed for job in groups[0]] == [0, 1] and len({job.method for job in groups[1]}) == 1


def test_selectors_share_the_trainings_of_a_score(tmp_path, monkeypatch):
    epochs = Epochs(monkeypatch)
    scored = []

    class Watch(Watcher):
        def scored(self, job, done, total):
            scored.append((done, total))

    rows = run(Plan(**IMP), out=tmp_path / "shared", watcher=Watch())
    assert scored == [(level, 6) for level in range(1, 7)], "ceil(log .3 / log .8) levels, once"
    assert epochs.count == 6 + 4, "one a level, and one each for the dense net and three tickets"
    assert rows[1]["kept"] == rows[3]["kept"] == round(0.3 * rows[1]["total"])
    assert not any((tmp_path / "shared" / "checkpoints").iterdir())
    alone = run(Plan(**{**IMP, "methods": ("imp/without_replacement",)}), out=tmp_path / "alone")
    assert epochs.count == 10 + 8 and alone[1]["losses"] == rows[3]["losses"]


def test_an_interrupted_scoring_goes_on_at_its_training(tmp_path, monkeypatch):
    expected = run(Plan(**IMP), out=tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        Epochs(patch, most=1 + 4)
        run(Plan(**IMP), out=tmp_path / "cut")
    epochs = Epochs(monkeypatch)
    rows = run(Plan(**IMP), out=tmp_path / "cut")
    assert epochs.count == 2 + 3
    assert [row["losses"] for row in rows] == [row["losses"] for row in expected]
    assert not any((tmp_path / "cut" / "checkpoints").iterdir())


def test_a_net_rewound_is_trained_from_there_on(tmp_path):
    rows = run(Plan(**{**IMP, "methods": ("imp(rewind=4)/threshold",), "epochs": 2}), out=tmp_path)
    taken = []

    class Watch(Watcher):
        def stepped(self, job, done, total):
            taken.append(done)

    run(Plan(**{**IMP, "methods": ("imp(rewind=4)/threshold",), "epochs": 2}), out=tmp_path / "again", watcher=Watch())
    assert "error" not in rows[1] and len(rows[1]["losses"]) == 2
    assert taken == [*range(1, 15), *range(5, 15)], "dense from the first step, the ticket from the fifth"


def test_a_ticket_found_on_random_data_is_rewound_on_the_real_ones(digits, tmp_path):
    plan = Plan(**{**IMP, "methods": ("imp(inputs=normal,rewind=4)/threshold",), "densities": (0.9,)})
    job = plan.jobs(digits)[1]
    ready = job_module.prepare(job, digits, tmp_path, Watcher())
    expected = models.build("mlp", seed=0)
    Trainer(digits, epochs=1, batch_size=64)(expected, 4)
    weights = dict(expected.named_parameters())
    for name, p in ready.model.named_parameters():
        assert torch.equal(p, weights[name] * (p != 0)) and ready.start == 4


def test_stacked_seeds_end_as_they_do_alone(tmp_path):
    plan = Plan(model="mlp", densities=(0.3,), methods=("magnitude/threshold", "snip/multinomial"), seeds=3, epochs=1)
    alone = run(plan, out=tmp_path / "alone")
    watcher = Counting()
    rows = run(plan, out=tmp_path / "stacked", watcher=watcher, stack=2)
    assert [row.get("stacked", 1) for row in rows] == [2] * 6 + [1] * 3 and len(watcher.keys) == 9
    for one, other in zip(alone, rows, strict=True):
        assert one["key"] == other["key"] and one.get("kept") == other.get("kept")
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-4)
        assert one["accuracy"] == pytest.approx(other["accuracy"], abs=0.011)
    assert rows[0]["step_ms"] > 0 and rows[0]["peak_bytes"] is None
    assert rows[0]["layers"] == alone[0]["layers"] and rows[1]["weights"] == alone[1]["weights"]


def test_a_stack_that_fails_is_a_row_for_each(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no memory")

    monkeypatch.setattr(units, "train_stacked", fail)
    plan = Plan(model="mlp", densities=(0.3,), methods=("magnitude/threshold",), seeds=2, epochs=1)
    rows = run(plan, out=tmp_path, stack=2)
    assert [row["error"] for row in rows] == ["RuntimeError: no memory"] * 4
    assert not any("error" in row for row in run(plan, out=tmp_path)), "tried again, alone"


@pytest.mark.parametrize(("found", "size"), [(2.0, 2), (1.0, 1)])
def test_auto_stacks_where_the_clock_says_so(tmp_path, monkeypatch, found, size):
    monkeypatch.setattr(main_module, "gain", lambda *_, **__: found)
    plan = Plan(model="mlp", densities=(0.3,), methods=("magnitude/threshold",), seeds=2, epochs=0)
    assert [row.get("stacked", 1) for row in run(plan, out=tmp_path, stack="auto")] == [size] * 4


@pytest.mark.parametrize("stack", [0, -1, "all", 1.5])
def test_a_bad_stack_writes_nothing(tmp_path, stack):
    with pytest.raises(ValueError, match="run: stack must be auto or at least 1, got"):
        run(Plan(), out=tmp_path / "out", stack=stack)
    assert not any(tmp_path.iterdir())


def test_what_a_row_tells_of_the_weights_kept(tmp_path):
    plan = Plan(model="mlp", densities=(0.1,), methods=("magnitude/threshold",), seeds=1, epochs=0)
    dense, row = run(plan, out=tmp_path)
    assert sum(kept for kept, _ in row["layers"].values()) == row["kept"] == sum(row["weights"])
    assert [total for _, total in row["layers"].values()] == [8192, 16384, 1280]
    assert sum(dense["weights"]) == row["total"] and len(dense["weights"]) == job_module.BINS
    middle = slice(job_module.BINS // 2 - 3, job_module.BINS // 2 + 3)
    assert sum(row["weights"][middle]) < 0.02 * sum(dense["weights"][middle]), "magnitude keeps none of the small"
    assert list(Results(tmp_path / "results.jsonl").load().values()) == [dense, row]


def test_inputs_normal_of_a_score_that_trains_are_random_data_and_the_ticket_sees_the_real_ones(tmp_path, monkeypatch):
    scored, original = [], job_module.Trainer.__call__

    def call(trainer, model, steps=None, start=0):
        scored.append((trainer.dataset.name, steps))
        return original(trainer, model, steps, start)

    monkeypatch.setattr(job_module.Trainer, "__call__", call)
    plan = Plan(**{**IMP, "densities": (0.8,), "methods": ("imp(inputs=normal,rewind=2)/threshold",), "epochs": 2})
    _, row = run(plan, out=tmp_path)
    assert scored == [("digits-normal-0", 2), ("digits-normal-0", None), ("digits", 2)] and row["accuracy"] > 0.5
    plan = Plan(**{**IMP, "methods": ("imp(inputs=chi)/threshold",)})
    assert "inputs of a score that trains must be normal, got 'chi'" in run(plan, out=tmp_path)[1]["error"]
