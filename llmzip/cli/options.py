"""Options and arguments that several commands share, so that they read alike everywhere."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from llmzip.defaults import DEVICES

# Beyond the content of any archive: SPEC.md, section 10.
_END = 1 << 63

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_size(text: str) -> int:
    """Read a number of bytes: digits, then perhaps K, M or G for powers of 1024.

    >>> parse_size("32K")
    32768
    """
    digits, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if not (digits.isascii() and digits.isdigit()) or unit not in _UNITS:
        raise typer.BadParameter(f"expected a number of bytes such as 32768, 32K or 1M, found {text!r}")
    return int(digits) * _UNITS[unit]


def parse_device(text: str) -> str:
    """Read what computes: cpu, cuda or auto."""
    if text not in DEVICES:
        raise typer.BadParameter(f"expected {', '.join(DEVICES)}, found {text!r}")
    return text


def parse_chunk_size(text: str) -> int:
    """Read a chunk size, 1 byte to 1 MiB."""
    size = parse_size(text)
    if not 1 <= size <= 1 << 20:
        raise typer.BadParameter(f"expected 1 to 1M, found {text!r}")
    return size


def parse_range(text: str) -> tuple[int, int]:
    """Read `A:B`, the bytes from A up to but without B; either may be missing.

    >>> parse_range("10:1K")
    (10, 1024)
    """
    start_text, colon, stop_text = text.partition(":")
    if not colon:
        raise typer.BadParameter(f"expected A:B, A: or :B, found {text!r}")
    start = parse_size(start_text) if start_text else 0
    stop = parse_size(stop_text) if stop_text else _END
    if stop < start:
        raise typer.BadParameter(f"expected A up to B, found {text!r}")
    return start, stop


Sources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="IN... OUT", help="Files and folders, then the archive; one IN needs no OUT; - for standard input."
    ),
]
Output = Annotated[
    str | None, typer.Option("--output", "-o", metavar="OUT", help="File to write; all other names are then inputs.")
]
Source = Annotated[str | None, typer.Argument(metavar="IN", help="File to read; - or nothing: standard input.")]
Target = Annotated[str | None, typer.Argument(metavar="OUT", help="File to write; - for standard output.")]
Archives = Annotated[list[str], typer.Argument(metavar="FILE...", help="Archives; - for standard input.")]
Archive = Annotated[str, typer.Argument(metavar="FILE", help="Archive; - for standard input.")]

Remove = Annotated[
    bool, typer.Option("--rm/--keep", " /-k", help="Remove the input after success, or keep it.", show_default="keep")
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Overwrite the output; write binary data to a terminal.")]
ToStdout = Annotated[bool, typer.Option("--stdout", "-c", help="Write to standard output and keep the input.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say sizes and speed at the end.")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON for programs.")]

Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on after a run that was killed or interrupted; after Ctrl-C keep what is done."),
]

Salvage = Annotated[
    bool, typer.Option("--salvage", help="Write what is left of a damaged archive, and say what is lost.")
]

Model = Annotated[str | None, typer.Option("--model", metavar="NAME", help="Model: a name, an id or a path.")]
Conditioners = Annotated[
    str | None,
    typer.Option("--conditioners", "-D", metavar="FILE", help="Conditioners of `llmzip train`: a file, or its name."),
]
Conditioner = Annotated[
    str,
    typer.Option(
        "--conditioner",
        metavar="WHICH",
        help="auto: for each chunk what seems to save most; best: what does, slowly; none; or the name of an entry.",
    ),
]
Embed = Annotated[bool, typer.Option("--embed", help="Put the conditioners of -D into the archive.")]
Tune = Annotated[
    float,
    typer.Option(
        "--tune", metavar="S", min=0, help="First train a steering vector on the input, S seconds; embed it if it pays."
    ),
]
TuneChunks = Annotated[
    float,
    typer.Option(
        "--tune-chunks",
        metavar="S",
        min=0,
        help="Train vectors for each chunk, S seconds each; a chunk brings them where they pay.",
    ),
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of the CPU; default: all cores.")]
Device = Annotated[
    Any,
    typer.Option(
        "--device",
        parser=parse_device,
        metavar="auto|cpu|cuda",
        help="What computes; auto: a GPU if there is one. The archive is the same.",
    ),
]
Lanes = Annotated[int | None, typer.Option("--lanes", min=1, help="Chunks decoded side by side.")]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        max=256,
        help="Processes that code chunks; default: above 4 MiB one a core, for small models.",
    ),
]
Memory = Annotated[
    Any,
    typer.Option(
        "--memory", parser=parse_size, metavar="SIZE", help="Memory to use at most: fewer lanes, threads and workers."
    ),
]
MaxSize = Annotated[
    Any,
    typer.Option("--max-size", parser=parse_size, metavar="SIZE", help="Refuse content of more bytes than this."),
]
ChunkSize = Annotated[
    int | None,
    typer.Option(
        "--chunk-size",
        parser=parse_chunk_size,
        metavar="SIZE",
        help="Bytes of a chunk, up to 1M; more bytes, less size.",
    ),
]
Window = Annotated[
    int | None, typer.Option("--window", min=32, max=2048, help="Tokens the model sees at once; a power of two.")
]
Overlap = Annotated[
    int | None, typer.Option("--overlap", min=0, max=1536, help="Tokens repeated from the text before a window.")
]
