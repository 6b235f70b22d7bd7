"""PyTorch's own operator, module and optimizer tests, through `cuda`, against plain CPU PyTorch in the same process.

    python -m conformance --help        (with tests/torch on PYTHONPATH; `make conformance` does it all)

`__main__` reads the command line and prints, `sweep` hands variants to processes, `child` is such a process, `suites`
names the variants, `phases` is what is tried with each, `moving` and `comparing` carry inputs over and compare what
comes back, `references` has what CUDA decomposes in another way, cannot.txt what cannot pass and why.
"""
