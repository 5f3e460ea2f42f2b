"""Settings that hold for all tests."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Shared machines make single examples slow now and then; the time limit of pytest catches what hangs.
_base = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", _base, max_examples=50)
settings.register_profile("ci", _base, max_examples=100, derandomize=True)
settings.register_profile("long", _base, max_examples=2000)
settings.load_profile(os.environ.get("LLMZIP_HYPOTHESIS", "ci" if os.environ.get("CI") else "default"))
