"""Makes `bench` importable without the root on the path, where it would show `kernels` as a package too."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

_bench = ModuleType("bench")
_bench.__path__ = [str(Path(__file__).parents[2] / "bench")]
sys.modules.setdefault("bench", _bench)
