"""The bench of tangent kernels, on tiny networks: all implementations agree, and a Jacobian too large is left out."""

import importlib

import pytest

cases = importlib.import_module("bench.cases")
contest = importlib.import_module("bench.contest")
ntk = importlib.import_module("bench.ntk")

MLP = cases.Ntk("mlp", {"input_shape": (6,), "hidden": (9, 8), "classes": 3}, 5)
RESNET = cases.Ntk("resnet20", {"input_shape": (3, 8, 8), "classes": 2, "width": 2}, 3)


@pytest.fixture(autouse=True)
def one_call(monkeypatch):
    """What is measured here is not time."""

    def alternate(calls, repeats):
        return {name: [1.0 for _ in range(repeats) if call() is not None] for name, call in calls.items()}

    monkeypatch.setattr(contest, "alternate", alternate)


@pytest.mark.parametrize("case", [MLP, RESNET], ids=str)
def test_all_agree(case, monkeypatch):
    monkeypatch.setattr(ntk, "peak", lambda case, density, name: len(name))
    rows = ntk.kernel(case, (0.5,), 1)
    assert len(rows) == 3 and all(row["agrees"] and row["ratio"] == 1.0 for row in rows)
    assert all(row["peer_peak_extra_bytes"] == len(row["peer"]) and "left_out" not in row for row in rows)


def test_a_jacobian_too_large_is_left_out(monkeypatch):
    monkeypatch.setattr(ntk, "LIMIT", 4 * 5 * 3 * (6 * 9 + 9 * 8 + 8 * 3) - 1)
    monkeypatch.setattr(ntk, "peak", lambda case, density, name: 1)
    rows = ntk.kernel(MLP, (0.5,), 1)
    assert len(rows) == 2 and all("a Jacobian of 0.0 GB" in row["left_out"] for row in rows)


def test_memory_is_measured_in_a_process_of_its_own():
    found = ntk.peak(MLP, 0.5, ntk.OURS)
    assert found is None or 0 <= found < 1 << 30
