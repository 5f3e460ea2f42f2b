"""llmzip: an archiver that lets a language model predict the text and stores only the surprise.

```
blob = llmzip.compress(b"any bytes")
data = llmzip.decompress(blob)
with llmzip.open("notes.txt.llmz") as file:
    first = file.read(100)
```

The names below load on first use, so that `import llmzip` takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmzip.archive import compress, decompress
    from llmzip.archive_file import open
    from llmzip.errors import ConfigError, ExactnessError, FormatError, LlmzipError, ModelError
    from llmzip.incremental import Compressor, Decompressor
    from llmzip.options import CompressOptions, DecompressOptions

__version__ = "0.1.0"

__all__ = [
    "CompressOptions",
    "Compressor",
    "ConfigError",
    "DecompressOptions",
    "Decompressor",
    "ExactnessError",
    "FormatError",
    "LlmzipError",
    "ModelError",
    "__version__",
    "compress",
    "decompress",
    "open",
]

_MODULES = {
    "CompressOptions": "llmzip.options",
    "DecompressOptions": "llmzip.options",
    "Compressor": "llmzip.incremental",
    "Decompressor": "llmzip.incremental",
    "compress": "llmzip.archive",
    "decompress": "llmzip.archive",
    "open": "llmzip.archive_file",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it."""
    if name not in __all__:
        raise AttributeError(f"module 'llmzip' has no attribute {name!r}")
    module = importlib.import_module(_MODULES.get(name, "llmzip.errors"))
    return getattr(module, name)


def __dir__() -> list[str]:
    """List the public names."""
    return list(__all__)
