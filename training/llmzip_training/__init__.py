"""Float training: in `llmzip` only the command line imports this package, when asked to train.

No archive depends on it: what is trained here is exported as a Hugging Face folder and becomes an artefact only by
conversion. Modules that import torch when they are imported say so.
"""

from __future__ import annotations
