"""GPU kernels in Triton: one operation a file, bit-equal to its reference in `llmzip.exact`.

Those of training, `training_*` and `scan_*`, are in floating point and equal to theirs to rounding.
"""
