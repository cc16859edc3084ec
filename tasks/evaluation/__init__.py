"""Benchmarks with lm-eval and bits per byte on held-out text, one cached unit a measurement."""
