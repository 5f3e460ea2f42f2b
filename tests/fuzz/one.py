"""Fuzzes one target in this process: `one.py TARGET CORPUS FAULTS SECONDS`; `bench.fuzz` starts it."""

from __future__ import annotations

import sys

import atheris

# What is watched must be loaded under its eyes.
with atheris.instrument_imports(include=["llmzip"]):
    import targets


if __name__ == "__main__":
    target, corpus, faults, seconds = sys.argv[1:]
    limits = ["-timeout=20", "-rss_limit_mb=2048", "-max_len=65536", f"-max_total_time={seconds}"]
    shown = ["-verbosity=0", "-print_final_stats=1", f"-artifact_prefix={faults}/{target}-"]
    atheris.Setup([sys.argv[0], *limits, *shown, corpus], targets.TARGETS[target])
    atheris.Fuzz()
