"""pytest-benchmark suites, one operation a file, a group for each case: python -m pytest bench/suites."""
