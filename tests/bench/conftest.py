"""The benches are no part of the package: loaded from their folder, under their own name."""

import importlib.util
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent.parent / "bench"

if "bench" not in sys.modules:
    spec = importlib.util.spec_from_file_location(
        "bench", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    assert spec is not None and spec.loader is not None
    sys.modules["bench"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["bench"])
