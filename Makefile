# The lines that CI runs are the lines that a newcomer runs.
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
SOURCES := pyproject.toml constraints.txt setup.py $(wildcard csrc/*.h csrc/*.cpp csrc/cpu/*.cpp csrc/cpu/*.h)
export SPARSEPRUNE_REQUIRE_EXT

# Two of gcc's sanitizers, whose libraries Python must load first; torch leaks what it keeps to its end.
SANITIZE := -fsanitize=address,undefined -fno-omit-frame-pointer -g1
SANITIZED = ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 PYTHONPATH=build/asan/lib \
	LD_PRELOAD="$(foreach lib,asan ubsan stdc++,$(shell g++ -print-file-name=lib$(lib).so))"

# Up to four tests at once; idle threads sleep, or each would spin on a core that another test needs.
PYTEST := OMP_WAIT_POLICY=passive $(BIN)/pytest -n auto --maxprocesses=4 --dist=worksteal

.PHONY: demo test lint compile asan bench gpu clean

demo: $(READY)  ## prune at initialization and train, on real digits: table, JSON lines, PNG
	$(BIN)/sparseprune run

test: SPARSEPRUNE_REQUIRE_EXT = 1
test: $(READY)  ## the whole suite, with the extension and Triton's interpreter insisted on
	$(BIN)/sparseprune doctor --strict
	$(PYTEST) -m "not interpreter and not offline"
	TRITON_INTERPRET=1 $(PYTEST) tests/kernels -m interpreter

lint: $(READY)  ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

compile: $(READY)  ## every Triton kernel, compiled for GPUs that are not in the machine
	$(PYTEST) tests/kernels -m offline

asan: $(READY)  ## C++ with pointers to walk under AddressSanitizer and UBSan, for each instruction set (gcc; some minutes)
	CFLAGS="$(SANITIZE)" LDFLAGS="$(SANITIZE)" SPARSEPRUNE_REQUIRE_EXT=1 \
		$(BIN)/python setup.py -q build --build-base build/asan --build-lib build/asan/lib
	for isa in avx512 avx2 plain; do SPARSEPRUNE_ISA=$$isa $(SANITIZED) $(BIN)/pytest \
		tests/ops/test_products.py tests/ops/test_convolutions.py tests/ops/test_gram.py tests/ops/test_flow.py \
		tests/ops/test_online_sgd.py -k "not instruction_sets" || exit; done

bench: $(READY)  ## timings on this machine: operations one by one, then ours beside others -> bench/results
	$(BIN)/python -m pytest bench/suites --benchmark-max-time=0.2 --benchmark-min-rounds=3 --benchmark-warmup=on --benchmark-warmup-iterations=2 --benchmark-columns=median,iqr,rounds --benchmark-sort=name
	$(BIN)/python -m bench.run

gpu:  ## on a machine with a GPU and no network: build in place, GPU tests, benches, golden hashes -> one JSON
	bash bench/gpu.sh

$(READY): $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch numpy "setuptools>=77" wheel ninja
	$(BIN)/pip install -q -c constraints.txt --no-build-isolation -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info sparseprune/*.so
