"""GPU kernels in Triton: one operation a file, bit-equal to its reference in `llmzip.exact`."""
