"""Executors: the same rows from Ray as from this process, resumable alike."""

import os
import sys

import pytest

from sparseprune.data import Dataset
from sparseprune.harness import Plan, executors, run
from sparseprune.harness.executors import _rows, _Told
from sparseprune.masks import Masks

from .conftest import Counting

PLAN = Plan(model="mlp", densities=(0.3,), methods=("magnitude/threshold", "imp/threshold"), seeds=2, epochs=1)


@pytest.fixture
def engine(monkeypatch):
    """One small cluster of this machine; workers import what is tested here."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}}
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield ray
    ray.shutdown()


@pytest.mark.filterwarnings("default")  # the engine's own
def test_ray_gives_the_rows_of_this_process_and_resumes(tmp_path, engine):
    expected = run(PLAN, out=tmp_path / "local")
    rows = run(PLAN, out=tmp_path / "ray", executor="ray")
    same = ("key", "accuracy", "losses", "kept", "layers", "weights")
    assert [[row.get(name) for name in same] for row in rows] == [[row.get(name) for name in same] for row in expected]
    lines = (tmp_path / "ray" / "results.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "ray" / "results.jsonl").write_bytes(b"".join(lines[:-2]))
    watcher = Counting()
    again = run(PLAN, out=tmp_path / "ray", executor="ray", watcher=watcher)
    assert watcher.done == 4 and len(watcher.keys) == 2
    assert [row["losses"] for row in again] == [row["losses"] for row in rows]
    assert engine.is_initialized(), "a cluster that was there before stays"


def test_a_lost_task_is_its_jobs_error(digits: Dataset):
    unit = PLAN.jobs(digits)[:2]

    def lost():
        raise ValueError("first line\nThe worker died.")

    assert [row["error"] for _, row in _rows(unit, lost)] == ["ValueError: The worker died."] * 2


def test_workers_tell_of_a_collapse_before_they_train(digits, capsys):
    import torch

    job = PLAN.jobs(digits)[1]
    _Told().pruned(job, Masks({"a": torch.zeros(2, 2) > 0, "b": torch.ones(2, 2) > 0}).report())
    assert capsys.readouterr().out == f"collapse: {job} keeps nothing in a\n"


def test_an_executor_that_is_not_there_writes_nothing(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="executor must be one of local, ray, got 'slurm'"):
        run(PLAN, out=tmp_path / "out", executor="slurm")
    monkeypatch.setattr(executors, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'run: executor ray needs ray: pip install "sparseprune\[ray\]"'):
        run(PLAN, out=tmp_path / "out", executor="ray")
    assert not any(tmp_path.iterdir())
