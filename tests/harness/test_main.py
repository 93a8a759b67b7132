"""A run: paired, resumable, never mixing configurations, never stopped by one failing method."""

import json

import pytest
import torch

from sparseprune import select
from sparseprune.harness import DENSE, Plan, Watcher, run, units
from sparseprune.harness import job as job_module
from sparseprune.results import Results
from sparseprune.summary import summarise

from .conftest import Counting, fake

SMALL = {"densities": (0.3,), "methods": ("magnitude/threshold", "magnitude/multinomial"), "seeds": 2, "epochs": 1}


def test_a_real_run_is_paired_complete_and_repeatable(tmp_path):
    watcher = Counting()
    rows = run(Plan(**SMALL), out=tmp_path / "a", watcher=watcher)
    assert [row["key"]["method"] for row in rows] == [DENSE, "magnitude/threshold", "magnitude/multinomial"] * 2
    for row in rows:
        assert 0 <= row["accuracy"] <= 1 and len(row["losses"]) == 1 and row["collapsed"] == [] and not row["diverged"]
    threshold = rows[1]
    assert threshold["kept"] == round(0.3 * threshold["total"]) and threshold["prune_ms"] > 0
    assert rows[2]["density"] == pytest.approx(0.3, abs=0.02)
    assert [json.loads(line) for line in (tmp_path / "a" / "results.jsonl").read_text().splitlines()] == rows
    again = run(Plan(**{**SMALL, "seeds": 1}), out=tmp_path / "b")
    same = ("accuracy", "losses", "density")
    assert [[r[k] for k in same] for r in rows[:3]] == [[r[k] for k in same] for r in again]


def test_per_seed_every_method_starts_from_the_same_weights_and_data(tmp_path, monkeypatch):
    starts: dict[int, list[torch.Tensor]] = {}
    orders = {}

    def spy(model, dataset, *, seed, batch_size, **options):
        starts.setdefault(seed, []).append(next(model.parameters()).detach().clone())
        orders.setdefault(seed, set()).add(tuple(next(iter(dataset.batches(batch_size, seed=seed)))[1].tolist()))
        return original(model, dataset, seed=seed, batch_size=batch_size, **options)

    original = job_module.train
    monkeypatch.setattr(job_module, "train", spy)
    run(Plan(**{**SMALL, "methods": ("magnitude/threshold", "random/threshold"), "epochs": 0}), out=tmp_path)
    for seed in (0, 1):
        dense, *pruned = starts[seed]
        assert all(torch.equal(w, dense * (w != 0)) and (w == 0).any() for w in pruned)
        assert len(orders[seed]) == 1
    assert not torch.equal(starts[0][0], starts[1][0]) and orders[0] != orders[1]


def test_an_interrupted_run_resumes_where_it_was(tmp_path, monkeypatch):
    plan = Plan(**SMALL)

    def interrupted(job, *rest):
        if job.seed == 1 and job.method == "magnitude/threshold":
            raise KeyboardInterrupt
        return fake(job, *rest)

    monkeypatch.setattr(units, "perform", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(plan, out=tmp_path)
    path = tmp_path / "results.jsonl"
    before = path.read_bytes()
    assert before.count(b"\n") == 4
    path.write_bytes(before + b'{"key": {"method": "magn')  # and killed in the middle of a line
    monkeypatch.setattr(units, "perform", fake)
    watcher = Counting()
    rows = run(plan, out=tmp_path, watcher=watcher)
    assert watcher.done == 4 and len(watcher.keys) == 2
    assert path.read_bytes().startswith(before) and path.read_bytes().count(b"\n") == 6
    assert rows == list(Results(path).load().values())
    after = path.read_bytes()
    watcher = Counting()
    assert run(plan, out=tmp_path, watcher=watcher) == rows
    assert watcher.keys == [] and path.read_bytes() == after


def test_a_long_training_resumes_inside_a_job(tmp_path, monkeypatch):
    monkeypatch.setattr(job_module, "CHECKPOINT_SECONDS", 0.0)
    plan = Plan(methods=("magnitude/threshold",), densities=(0.3,), seeds=1, epochs=3)
    expected = run(plan, out=tmp_path / "whole")

    class Stop(Watcher):
        def stepped(self, job, done, total):
            if job.method != DENSE and done > 2 * total / 3 + 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan, out=tmp_path / "cut", watcher=Stop())
    assert len(list((tmp_path / "cut" / "checkpoints").iterdir())) == 1
    steps = []

    class Count(Watcher):
        def stepped(self, job, done, total):
            steps.append(done / total)

    rows = run(plan, out=tmp_path / "cut", watcher=Count())
    assert min(steps) > 2 / 3 and rows[1]["losses"] == expected[1]["losses"]
    assert rows[1]["accuracy"] == expected[1]["accuracy"]
    assert not any((tmp_path / "cut" / "checkpoints").iterdir())


@pytest.mark.parametrize("change", [{"epochs": 2}, {"lr": 0.3}, {"batch_size": 32}, {"model": "mlp"}])
def test_another_configuration_does_not_mix(tmp_path, monkeypatch, change):
    monkeypatch.setattr(units, "perform", fake)
    run(Plan(**SMALL), out=tmp_path)
    watcher = Counting()
    rows = run(Plan(**{**SMALL, **change}), out=tmp_path, watcher=watcher)
    assert watcher.done == 0 and len(watcher.keys) == 6 == len(rows)
    assert all(row["key"][name] == value for row in rows for name, value in change.items())
    assert len(Results(tmp_path / "results.jsonl").load()) == 12


def test_more_seeds_reuse_the_first_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(units, "perform", fake)
    run(Plan(**SMALL), out=tmp_path)
    watcher = Counting()
    run(Plan(**{**SMALL, "seeds": 3}), out=tmp_path, watcher=watcher)
    assert watcher.done == 6 and len(watcher.keys) == 3


def test_a_failing_method_is_a_row_and_stops_nothing(tmp_path, monkeypatch):
    def failing(self, scores, kept, *, seed):
        raise ValueError("Multinomial: cannot keep 7 of 5 positive scores")

    original = select.Multinomial.select
    monkeypatch.setattr(select.Multinomial, "select", failing)
    rows = run(Plan(**{**SMALL, "epochs": 0}), out=tmp_path)
    assert [row.get("error", "") for row in rows[:3]] == [
        "",
        "",
        "ValueError: Multinomial: cannot keep 7 of 5 positive scores",
    ]
    line = summarise(rows)[2]
    assert (line.method, line.seeds, line.failed, line.accuracy) == ("magnitude/multinomial", 0, 2, None)
    monkeypatch.setattr(select.Multinomial, "select", original)
    watcher = Counting()
    rows = run(Plan(**{**SMALL, "epochs": 0}), out=tmp_path, watcher=watcher)
    assert len(watcher.keys) == 2 and not any("error" in row for row in rows), "failures are tried again"


def test_collapse_is_told_before_the_training_starts(tmp_path, monkeypatch):
    events = []

    class Watch(Watcher):
        def pruned(self, job, report):
            events.append(("pruned", report.collapsed))

        def stepped(self, job, done, total):
            events.append(("step",))

    rows = run(
        Plan(methods=("synflow/threshold",), densities=(1e-4,), seeds=1, epochs=1), out=tmp_path, watcher=Watch()
    )
    index = next(i for i, event in enumerate(events) if event[0] == "pruned")
    assert events[index][1] and events[index + 1] == ("step",)
    assert rows[1]["collapsed"] == list(events[index][1])
    assert summarise(rows)[1].collapsed == 1


def test_bad_data_and_bad_fits_write_nothing(tmp_path):
    with pytest.raises(ValueError, match="pass data_dir"):
        run(Plan(dataset="mnist"), out=tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="mnist needs train-images"):
        run(Plan(dataset="mnist"), out=tmp_path / "out", data_dir=tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_damaged_results_file_is_named_and_left_alone(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"key": {}}\nnot json\n{"key": {}}\n')
    with pytest.raises(ValueError, match=r"run: line 2 of .*results.jsonl is not a result"):
        run(Plan(**SMALL), out=tmp_path)
    assert path.read_text().splitlines()[1] == "not json"


def test_layouts_are_compared_on_the_same_masks_seed_by_seed(tmp_path):
    plan = {**SMALL, "methods": ("magnitude/threshold",), "layouts": ("masked", "csr", "auto")}
    rows = run(Plan(**plan), out=tmp_path)
    assert [row["key"].get("layout") for row in rows] == [None, None, "csr", "auto"] * 2
    for dense, masked, csr, _ in (rows[:4], rows[4:]):
        assert csr["kept"] == masked["kept"] and csr["losses"] == pytest.approx(masked["losses"], rel=1e-3)
        assert csr["accuracy"] == pytest.approx(masked["accuracy"], abs=0.02)
        assert (dense["csr_layers"], masked["csr_layers"], csr["csr_layers"]) == (0, 0, 4)
        assert all(row["step_ms"] > 0 and row["peak_bytes"] is not None for row in (dense, masked, csr))
    lines = summarise(rows)
    assert [line.layout for line in lines] == ["masked", "masked", "csr", "auto"]
    assert lines[1].to_masked is None and abs(lines[2].to_masked.mean) <= 0.02
    watcher = Counting()
    run(Plan(**{**plan, "layouts": ("csr",)}), out=tmp_path, watcher=watcher)
    assert watcher.keys == [] and watcher.done == 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda(tmp_path):
    rows = run(Plan(**{**SMALL, "device": "cuda", "methods": ("magnitude", "synflow")}), out=tmp_path)
    assert not any("error" in row for row in rows)
