"""Steps are counted and the peak of memory is that of what was in use."""

import pytest
import torch

from sparseprune.training import usage

CPU = torch.device("cpu")


def test_a_training_without_steps_has_no_step_time():
    assert usage.Steps(CPU).median_ms() is None


def test_the_median_of_steps_is_in_milliseconds(monkeypatch):
    times = iter([0.0, 0.001, 1.0, 1.002, 2.0, 2.5])
    monkeypatch.setattr(usage.time, "perf_counter", lambda: next(times))
    steps = usage.Steps(CPU)
    for _ in range(3):
        steps.start()
        steps.stop()
    assert steps.median_ms() == pytest.approx(2.0)


@pytest.mark.skipif(usage.peak(CPU) is None, reason="the system does not tell")
def test_the_peak_counts_what_was_freed_since_and_forgets_what_came_before():
    size = 64 << 20
    usage.reset_peak(CPU)
    before = usage.in_use(CPU)
    torch.ones(size, dtype=torch.uint8)
    grown = usage.peak(CPU) - before
    assert 0.9 * size < grown < 1.5 * size
    usage.reset_peak(CPU)
    assert usage.peak(CPU) - before < size / 2
