"""The one way to time: every call follows another, all alternate, and a wrong result gets no ratio."""

import pytest
import torch

from sparseprune import measure


@pytest.fixture
def clock(monkeypatch):
    """A clock that calls move by hand."""

    class Clock:
        now = 0.0

        def call(self, seconds, log=None, name=""):
            def run():
                self.now += seconds
                if log is not None:
                    log.append(name)

            return run

    clock = Clock()
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock.now)
    return clock


@pytest.mark.parametrize(("duration", "calls"), [(1.0, 2), (1e-4, 1 + 2 * 21), (1e-9, 1 + 2 * 100)])
def test_a_call_is_warm_and_a_short_one_is_repeated(clock, duration, calls):
    log = []
    assert measure.seconds(clock.call(duration, log)) == pytest.approx(duration, rel=1e-3)
    assert len(log) == calls


def test_a_call_elsewhere_times_itself(clock):
    def call():
        raise AssertionError("not called here")

    call.seconds = lambda: 4.5
    assert measure.seconds(call) == 4.5


def test_calls_elsewhere_come_last(clock):
    log = []
    calls = {name: clock.call(1.0, log, name) for name in "ab"}
    calls["a"].seconds = lambda: log.append("elsewhere") or 4.5
    assert measure.alternate(calls, 2) == {"a": [4.5, 4.5], "b": [1.0, 1.0]}
    assert log == ["b", "b", "elsewhere"] * 2


def test_calls_alternate(clock):
    log = []
    calls = {name: clock.call(1.0, log, name) for name in "ab"}
    assert measure.alternate(calls, 2) == {"a": [1.0, 1.0], "b": [1.0, 1.0]}
    assert log == ["a", "a", "b", "b"] * 2


@pytest.mark.parametrize(("agrees", "ratio"), [(True, 3.0), (False, None)])
def test_a_ratio_needs_a_right_result(clock, agrees, ratio):
    rows = measure.side_by_side("op", "case", clock.call(1.0), {"peer": clock.call(3.0)}, lambda: agrees, 3)
    assert [(row["peer"], row["ratio"], row["agrees"]) for row in rows] == [("peer", ratio, agrees)]
    assert rows[0]["ours"] == {"median_ms": 1000.0, "q10_ms": 1000.0, "q90_ms": 1000.0, "runs": 3}


def test_the_environment_names_device_and_versions():
    about = measure.environment()
    assert about["torch"] == torch.__version__ and about["cores"] == torch.get_num_threads()
    assert about["cpu"] and about["sparseprune"] and about["python"] and about["date"]


def test_peak_extra_bytes_sees_an_allocation():
    peak = measure.peak_extra_bytes(lambda: torch.ones(1 << 26, dtype=torch.uint8).sum())
    assert peak is None or peak > 1 << 25
