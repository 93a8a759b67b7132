"""What a run shows: a bar that moves on a terminal, about ten lines in a log, a collapse and a failure on both."""

import io
import re

import pytest
import torch
from rich.console import Console

from sparseprune.harness import Job
from sparseprune.live import Live
from sparseprune.masks import Masks

JOBS = [Job("digits", "f0", "small-conv", "snip/threshold", 0.1, seed, 1, 64, 0.1, False, "cpu") for seed in range(40)]


def show(terminal: bool, before: int = 0) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=120, no_color=True)
    with Live(console) as live:
        live.planned(JOBS, before)
        for index, job in enumerate(JOBS[before:]):
            live.pruned(
                job, Masks({"1.weight": torch.zeros(2, 2) > 0 if index == 1 else torch.ones(2, 2) > 0}).report()
            )
            live.stepped(job, 1, 2)
            if terminal:
                live._bar.refresh()  # the clock would do it four times in a second
            live.finished(job, {"error": "ValueError: [no] luck"} if index == 2 else {"accuracy": 0.5})
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())  # without the colours


def test_a_terminal_gets_a_bar_that_names_the_job_and_counts():
    shown = show(terminal=True)
    assert "0/40" in shown and "39/40" in shown and "snip/threshold 0.1 seed 39" in shown
    assert "done:" not in shown


@pytest.mark.parametrize("before", [0, 10, 35])
def test_a_log_gets_about_ten_lines(before):
    lines = [line for line in show(terminal=False, before=before).splitlines() if " done: " in line]
    assert len(lines) == min(10, 40 - before) and lines[-1] == "40/40 done: snip/threshold 0.1 seed 39"


@pytest.mark.parametrize("terminal", [False, True])
def test_collapse_failure_and_earlier_results_are_told(terminal):
    shown = show(terminal, before=10)
    assert "10 of 40 results are there from before" in shown
    assert "collapse: snip/threshold 0.1 seed 11 keeps nothing in 1.weight" in shown
    assert "failed: snip/threshold 0.1 seed 12: ValueError: [no] luck" in shown
