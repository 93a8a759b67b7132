"""One process of several: worker.py SUITE RANK SIZE FOLDER runs the cases of a suite and saves what went wrong."""

import datetime
import importlib
import json
import sys
import traceback
from pathlib import Path

import torch
import torch.distributed as dist


def main(suite: str, rank: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size,
        timeout=datetime.timedelta(seconds=120),
    )  # fmt: skip
    wrong = {}
    cases = importlib.import_module(suite)
    for name, case in cases.CASES.items():
        if (name in cases.FOUR) != (size == 4):
            continue
        try:
            case()
        except Exception:
            wrong[name] = traceback.format_exc()
            break  # the other ranks may wait in another collective
    Path(folder, f"{rank}.json").write_text(json.dumps(wrong))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
