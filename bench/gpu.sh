#!/usr/bin/env bash
# make gpu: on a machine with a GPU and no network (torch, triton and pytest already there). Builds in place, then
# runs bench/gpu.py: GPU tests, golden hashes, benches -> a short table and one JSON file, within 9 minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
$PYTHON -m pip install -q --no-index --no-build-isolation --no-deps -e .
exec $PYTHON -m bench.gpu "$@"
