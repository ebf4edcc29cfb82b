"""Data sets that papers report on, by name: a folder of the real thing is read as it was unpacked."""

from uniaudio2.data.benchmarks.table import BENCHMARKS, Benchmark, read_benchmark

__all__ = ["BENCHMARKS", "Benchmark", "read_benchmark"]
