"""The parts of benchmarks/routing.py."""
