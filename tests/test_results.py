"""Results files: one writer, numbers that JSON can hold."""

import pytest

from sparseprune.results import Results


def test_two_runs_do_not_write_one_file(tmp_path):
    results = Results(tmp_path / "results.jsonl")
    with results.writing(), pytest.raises(ValueError, match="another run is writing"), results.writing():
        pytest.fail("the second must not get in")
    with results.writing():
        results.append({"key": {"a": 1}, "loss": float("nan"), "losses": [float("inf"), 1.0]})
    assert results.load() == {'{"a": 1}': {"key": {"a": 1}, "loss": None, "losses": [None, 1.0]}}
