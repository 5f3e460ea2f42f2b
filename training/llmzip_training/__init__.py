"""Float training: nothing in `llmzip` imports this package, and no archive depends on it.

What is trained here is exported as an ordinary Hugging Face folder and becomes an artefact only by
conversion. Apart from `corpus` and `tokenizer`, the modules import torch when they are imported.
"""

from __future__ import annotations
