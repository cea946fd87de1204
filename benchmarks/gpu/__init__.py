"""`python -m benchmarks gpu`: what is measured on one GPU, of full-size models with random weights."""

from __future__ import annotations

# Function and most seconds of each, in the order of importance: what comes late may be left out.
PARTS = {
    "gpu.rates": ("benchmarks.gpu.rates:measure", 20.0),
    "gpu.steps": ("benchmarks.gpu.steps:measure", 40.0),
    "gpu.compiled": ("benchmarks.gpu.steps:measure_compiled", 150.0),
    "gpu.naive": ("benchmarks.naive:measure_gpu", 50.0),
    "gpu.feeding": ("benchmarks.gpu.feeding:measure", 40.0),
    "gpu.sweep": ("benchmarks.sweep:measure_gpu", 60.0),
    "gpu.memory": ("benchmarks.gpu.memory:measure", 90.0),
    "gpu.evaluation": ("benchmarks.evaluation:measure_gpu", 40.0),
    "gpu.architectures": ("benchmarks.gpu.steps:measure_architectures", 60.0),
    "gpu.compiled_small": ("benchmarks.gpu.steps:measure_compiled_small", 150.0),
    # Left out of a call of 280 seconds; a call of its own: `python -m benchmarks gpu.architectures_compiled`.
    "gpu.architectures_compiled": ("benchmarks.gpu.steps:measure_architectures_compiled", 400.0),
}
