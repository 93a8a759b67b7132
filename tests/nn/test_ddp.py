"""Two processes on gloo, data-parallel and sharded, train a sparse model of either layout as one process does."""

import subprocess
import sys
from pathlib import Path

import torch


def test_ddp_and_fsdp_on_gloo_train_as_one_process_does(tmp_path):
    worker = Path(__file__).with_name("ddp_worker.py")
    processes = [
        subprocess.Popen([sys.executable, str(worker), str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=240)[1] for process in processes]
    assert all(process.returncode == 0 for process in processes), errors
    for rank in range(2):
        results = torch.load(tmp_path / f"{rank}.pt")
        assert len(results) == 4
        for (_, layout), (alone, together) in results.items():
            assert alone.keys() == together.keys()
            for name, expected in alone.items():
                torch.testing.assert_close(together[name], expected)
            for layer in ("0", "4"):
                if layout == "masked":
                    pruned = ~together[f"{layer}.weight_mask"]
                    assert pruned.any() and together[f"{layer}.weight"][pruned].eq(0).all()
                else:
                    assert together[f"{layer}.values"].ndim == 1
