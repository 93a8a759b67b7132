"""Side-by-side timings. Benchmarks measure; tests never time."""
