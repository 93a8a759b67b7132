"""The benches of tangent kernels on a GPU: a tiny net runs on any device, and its rows agree."""

import importlib

gpu_ntk = importlib.import_module("bench.gpu_ntk")


def test_a_tiny_net(monkeypatch):
    monkeypatch.setattr(gpu_ntk, "SLICE", 100)
    rows = [row for suite in gpu_ntk.suites(1, "cpu", [((7, 5, 3), 4, 0.5)]) for row in suite()]
    assert [row["peer"] for row in rows] == ["Jacobian of the kept weights", "dense Jacobian, masked"]
    assert all(row["agrees"] for row in rows)
