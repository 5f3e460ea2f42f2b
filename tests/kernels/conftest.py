# ruff: noqa: TID253
"""Kernels run through Triton's interpreter where there is no GPU; it must be chosen before Triton is imported."""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
