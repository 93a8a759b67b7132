"""The main job: paired, resumable, never mixing configurations, never stopped by one failing method."""

import json
from dataclasses import replace

import pytest
import torch

from sparseprune import harness, scores, select
from sparseprune.data import load
from sparseprune.harness import DENSE, Plan, Watcher, run
from sparseprune.plots import accuracy_against_density
from sparseprune.results import Results, identity
from sparseprune.summary import Line, Stat, summarise, table

from .one_thread import one_thread

__all__ = ["one_thread"]  # for every test here

SMALL = {"densities": (0.3,), "methods": ("magnitude/threshold", "magnitude/multinomial"), "seeds": 2, "epochs": 1}


@pytest.fixture(scope="module")
def digits():
    """A few hundred of them: what is tested here is no accuracy."""
    whole = load("digits")
    few = {f"train_{what}": getattr(whole, f"train_{what}")[:448] for what in ("pixels", "targets")}
    return replace(whole, **few, test_pixels=whole.test_pixels[:200], test_targets=whole.test_targets[:200])


@pytest.fixture(autouse=True)
def few_digits(digits, monkeypatch):
    monkeypatch.setattr(harness, "load", lambda name, folder=None: digits if name == "digits" else load(name, folder))


def fake(job, dataset, checkpoint, watcher):
    """An accuracy that tells the job apart."""
    bonus = {"threshold": 0.0, "multinomial": 0.02}.get(job.method.partition("/")[2], 0.1)
    accuracy = 0.8 + bonus - 0.01 * job.seed if job.method != DENSE else 0.95
    ends = {"accuracy": accuracy, "diverged": False, "losses": [1.0, 0.5]}
    return {**ends, "density": job.density + 0.001, "prune_ms": 10.0 + job.seed, "collapsed": []}


class Counting(Watcher):
    def __init__(self) -> None:
        self.keys, self.done, self.jobs = [], None, []

    def planned(self, jobs, done):
        self.jobs, self.done = jobs, done

    def finished(self, job, row):
        self.keys.append(identity(job.key))


def test_by_default_it_is_the_issues_job(digits):
    plan = Plan()
    jobs = plan.jobs(digits)
    assert (plan.dataset, plan.model, plan.device) == ("digits", "small-conv", "cpu")
    expected = {f"{s}/{t}" for s in ("magnitude", "snip", "grasp", "synflow") for t in harness.SELECTS}
    assert {job.method for job in jobs} == {DENSE, *expected}
    assert {job.density for job in jobs if job.method != DENSE} == {0.5, 0.2, 0.1, 0.05}
    assert len(jobs) == 3 * (1 + 12 * 4) and len({identity(job.key) for job in jobs}) == 147
    assert [job.seed for job in jobs] == [0] * 49 + [1] * 49 + [2] * 49


def test_the_papers_recipe_is_the_default_for_cifar():
    assert Plan(dataset="cifar10").recipe == harness.Recipe(epochs=160, batch_size=128, lr=0.1, augment=True)
    assert Plan(dataset="cifar10", epochs=2, batch_size=8, lr=0.5).recipe == harness.Recipe(2, 8, 0.5, True)
    assert Plan(dataset="mnist").recipe == harness.Recipe(epochs=10, batch_size=128, lr=0.1, augment=False)


def test_methods_are_scores_or_pairs_of_the_registries():
    assert harness.expand("snip") == ["snip/threshold", "snip/multinomial", "snip/without_replacement"]
    pairs = [f"{score}/{selector}" for score in scores.names() for selector in select.names()]
    assert [each for pair in pairs for each in harness.expand(pair)] == pairs
    assert Plan(methods=("snip", "snip/threshold")).pairs == tuple(harness.expand("snip"))


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

    original = harness.train
    monkeypatch.setattr(harness, "train", spy)
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

    monkeypatch.setattr(harness, "perform", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(plan, out=tmp_path)
    path = tmp_path / "results.jsonl"
    before = path.read_bytes()
    assert before.count(b"\n") == 4
    path.write_bytes(before + b'{"key": {"method": "magn')  # and killed in the middle of a line
    monkeypatch.setattr(harness, "perform", fake)
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
    monkeypatch.setattr(harness, "_CHECKPOINT_SECONDS", 0.0)
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
    monkeypatch.setattr(harness, "perform", fake)
    run(Plan(**SMALL), out=tmp_path)
    watcher = Counting()
    rows = run(Plan(**{**SMALL, **change}), out=tmp_path, watcher=watcher)
    assert watcher.done == 0 and len(watcher.keys) == 6 == len(rows)
    assert all(row["key"][name] == value for row in rows for name, value in change.items())
    assert len(Results(tmp_path / "results.jsonl").load()) == 12


def test_more_seeds_reuse_the_first_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "perform", fake)
    run(Plan(**SMALL), out=tmp_path)
    watcher = Counting()
    run(Plan(**{**SMALL, "seeds": 3}), out=tmp_path, watcher=watcher)
    assert watcher.done == 6 and len(watcher.keys) == 3


def test_other_files_under_the_same_name_are_another_configuration(digits):
    pixels = digits.test_pixels.clone()
    pixels[0, 0, 0, 0] += 1
    other = type(digits).build(
        "digits", (digits.train_pixels, digits.train_targets), (pixels, digits.test_targets), classes=10
    )
    assert harness.fingerprint(other) != harness.fingerprint(digits) == harness.fingerprint(replace(digits))


def test_a_failing_method_is_a_row_and_stops_nothing(tmp_path, monkeypatch):
    original = harness.prune

    def failing(model, density, *, select, **options):
        if select == "multinomial":
            raise ValueError("Multinomial: cannot keep 7 of 5 positive scores")
        return original(model, density, select=select, **options)

    monkeypatch.setattr(harness, "prune", failing)
    rows = run(Plan(**{**SMALL, "epochs": 0}), out=tmp_path)
    assert [row.get("error", "") for row in rows[:3]] == [
        "",
        "",
        "ValueError: Multinomial: cannot keep 7 of 5 positive scores",
    ]
    line = summarise(rows)[2]
    assert (line.method, line.seeds, line.failed, line.accuracy) == ("magnitude/multinomial", 0, 2, None)
    monkeypatch.setattr(harness, "prune", original)
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


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"densities": (0.5, 1.5)}, r"density must be in \(0, 1\], got 1.5"),
        ({"densities": (0.0,)}, "density must be in"),
        ({"densities": (float("nan"),)}, "density must be in"),
        ({"densities": ()}, "density must name at least one density"),
        ({"dataset": "svhn"}, "dataset must be one of digits, .*got 'svhn'"),
        ({"model": "resnet21"}, r"model must be one of .*resnet20.*got 'resnet21'"),
        ({"methods": ("synflo",)}, r"method must name a score among .*synflow.*got 'synflo'"),
        ({"methods": ("synflow/top",)}, r"method must name a selector among .*threshold.*got 'synflow/top'"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"epochs": -1}, "epochs must be at least 0, got -1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"lr": float("inf")}, "lr must be a finite number > 0"),
        ({"layouts": ("coo",)}, "layout must be one of masked, csr, auto, got 'coo'"),
        ({"layouts": ()}, "layout must name at least one layout, got none"),
        ({"methods": ()}, "method must name at least one method, got none"),
        ({"device": "cuda:99"}, r"device must be there, got 'cuda:99'; CUDA devices torch sees: \d+"),
        ({"device": "gpu9"}, "device must be cpu, cuda or cuda:N, got 'gpu9'"),
        ({"device": "meta"}, "device must be cpu, cuda or cuda:N, got 'meta'"),
    ],
)
def test_a_bad_plan_is_one_clear_error(arguments, reason):
    with pytest.raises(ValueError, match=f"^run: {reason}"):
        Plan(**arguments)


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


def test_two_runs_do_not_write_one_file(tmp_path):
    results = Results(tmp_path / "results.jsonl")
    with results.writing(), pytest.raises(ValueError, match="another run is writing"), results.writing():
        pytest.fail("the second must not get in")
    with results.writing():
        results.append({"key": {"a": 1}, "loss": float("nan"), "losses": [float("inf"), 1.0]})
    assert results.load() == {'{"a": 1}': {"key": {"a": 1}, "loss": None, "losses": [None, 1.0]}}


def rows_by_hand(tmp_path, monkeypatch, **changes):
    monkeypatch.setattr(harness, "perform", fake)
    return run(Plan(**{**SMALL, "densities": (0.1, 0.5), **changes}), out=tmp_path)


def test_the_summary_pairs_seed_by_seed(tmp_path, monkeypatch):
    lines = summarise(rows_by_hand(tmp_path, monkeypatch))
    assert [(line.density, line.method) for line in lines] == [
        *((1.0, DENSE), (0.5, "magnitude/threshold"), (0.5, "magnitude/multinomial")),
        *((0.1, "magnitude/threshold"), (0.1, "magnitude/multinomial")),
    ]
    dense, threshold, sketch = lines[:3]
    assert dense.accuracy == Stat(0.95, 0.0) and dense.to_dense is None and dense.prune_ms is None
    assert threshold.accuracy.mean == pytest.approx(0.795)
    assert threshold.accuracy.std == pytest.approx(0.01 / 2**0.5), "the sample standard deviation"
    assert threshold.to_threshold is None and threshold.to_dense.mean == pytest.approx(-0.155)
    assert sketch.to_threshold.mean == pytest.approx(0.02) and sketch.to_threshold.std == pytest.approx(0)
    assert sketch.achieved.mean == pytest.approx(0.501) and sketch.prune_ms == 10.5


def printed(lines: list[Line]) -> str:
    from rich.console import Console

    console = Console(width=150)
    with console.capture() as capture:
        console.print(table(lines, "title"))
    return capture.get()


def test_the_table_shows_everything_uncut(tmp_path, monkeypatch):
    rows = rows_by_hand(tmp_path, monkeypatch)
    rows[1] = {"key": rows[1]["key"], "error": "ValueError: no luck"}
    rows[2] = {**rows[2], "collapsed": ["layer"], "diverged": True}
    text = printed(summarise(rows))
    cells = [line.split() for line in text.splitlines()]
    assert ["1", "dense", "95.00", "±", "0.00", "100.10"] in cells
    first = [line for line in text.splitlines() if "magnitude/multinomial" in line][1]
    assert "1/2" in first and "-13.50 ± 0.71" in first, "collapse in one seed of two; the difference to dense"
    assert "failed: magnitude/threshold 0.1, 1 of 2 seed(s): ValueError: no luck" in text
    assert "diverged: magnitude/multinomial 0.1, 1 of 2 seed(s)" in text
    assert "…" not in text and all(len(line.rstrip()) <= 130 for line in text.splitlines())


def test_the_picture_is_a_whole_png(tmp_path, monkeypatch):
    from PIL import Image

    rows = rows_by_hand(tmp_path, monkeypatch)
    rows[1] = {"key": rows[1]["key"], "error": "x"}
    accuracy_against_density(summarise(rows), tmp_path / "deep" / "accuracy.png", "title")
    with Image.open(tmp_path / "deep" / "accuracy.png") as picture:
        picture.load()
        assert picture.format == "PNG" and picture.width > 600
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20
    accuracy_against_density(summarise(rows[:1]), tmp_path / "dense.png", "only the dense net")
    assert (tmp_path / "dense.png").stat().st_size > 1000


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
    header = next(line for line in printed(lines).splitlines() if "density" in line)
    assert all(name in header for name in ("layout", "- masked", "step ms", "peak MB"))
    watcher = Counting()
    run(Plan(**{**plan, "layouts": ("csr",)}), out=tmp_path, watcher=watcher)
    assert watcher.keys == [] and watcher.done == 4


def test_rows_from_before_there_were_layouts_are_those_of_the_masked_one(tmp_path, monkeypatch, digits):
    plan = Plan(**SMALL)
    assert all("layout" not in job.key for job in plan.jobs(digits))
    monkeypatch.setattr(harness, "perform", fake)
    rows = run(plan, out=tmp_path)
    assert "step ms" in printed(summarise(rows)) and all(line.step_ms is None for line in summarise(rows))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda(tmp_path):
    rows = run(Plan(**{**SMALL, "device": "cuda", "methods": ("magnitude", "synflow")}), out=tmp_path)
    assert not any("error" in row for row in rows)
