"""Real processes under gloo: 2 and, for some cases, 4 of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch.distributed.tensor")

HERE = Path(__file__).parent


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("suite", ["sampling_cases", "prune_cases"])
def test_ranks_agree_with_one_process(suite, size, tmp_path):
    command = [sys.executable, str(HERE / "worker.py"), suite]
    workers = [subprocess.Popen([*command, str(rank), str(size), str(tmp_path)], cwd=HERE) for rank in range(size)]
    try:
        codes = [worker.wait(timeout=300) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    reports = [tmp_path / f"{rank}.json" for rank in range(size)]
    wrong = [json.loads(report.read_text()) for report in reports if report.exists()]
    assert not any(wrong), "\n".join(f"{name}:\n{text}" for found in wrong for name, text in found.items())
    assert codes == [0] * size and len(wrong) == size
