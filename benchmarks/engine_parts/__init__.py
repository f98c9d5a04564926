"""The parts of benchmarks/engine.py: its corpus, and what is compared in a process each."""
