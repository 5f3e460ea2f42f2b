"""The exact engine: a transformer whose results are the same bits everywhere. ARITHMETIC.md is the normative text."""
