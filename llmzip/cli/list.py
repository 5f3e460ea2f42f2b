"""`llmzip list`: a line for each archive, or for each file in it, told without decoding."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from llmzip.cli import options
from llmzip.cli.files import open_source

if TYPE_CHECKING:
    from llmzip.members import Member

_COLUMNS = "{:>12} {:>12} {:>8} {:>8}  {:<12} {}"
_MEMBER_COLUMNS = "{} {:>12} {}  {}"


def list_archives(files: options.Archives, as_json: options.Json = False) -> None:
    """Show sizes, ratio, chunks and model of archives, and the files in them, without decoding."""
    rows = [_row(name) for name in files]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    typer.echo(_COLUMNS.format("archive", "raw", "ratio", "chunks", "model", "file"))
    for row in rows:
        ratio = f"{row['archive_length'] / row['raw_length']:.2%}" if row["raw_length"] else "-"
        models = ",".join(row["models"]) or "-"
        typer.echo(
            _COLUMNS.format(row["archive_length"], row["raw_length"], ratio, row["n_chunks"], models, row["file"])
        )
        for member in row.get("members", []):
            typer.echo(_member_line(member))


def _row(name: str) -> dict[str, Any]:
    from llmzip.format import scan
    from llmzip.members import check_count, check_members, members_of

    with open_source(name, binary=True) as source:
        frames = list(scan(source))
    row = {
        "file": name,
        "archive_length": sum(frame.size for frame in frames),
        "raw_length": sum(frame.raw_length for frame in frames),
        "n_frames": len(frames),
        "n_chunks": sum(total.n_chunks for frame in frames for total in frame.methods.values()),
        "models": sorted({frame.header.artefact_id.hex() for frame in frames if frame.header.uses_model}),
    }
    members: list[Member] = []
    for frame in frames:
        members += members_of(frame.sections) or ()
        check_count(len(members))
    check_members(members)
    return row | ({"members": [_facts(member) for member in members]} if members else {})


def _facts(member: Member) -> dict[str, Any]:
    from llmzip.members import printable

    facts = {
        "path": printable(member.path),
        "kind": member.kind.name.lower(),
        "mode": f"{member.mode:04o}",
        "mtime_ns": member.mtime_ns,
        "size": member.size,
    }
    return facts | ({"target": printable(member.target)} if member.target else {})


def _member_line(facts: dict[str, Any]) -> str:
    bits = {"file": stat.S_IFREG, "folder": stat.S_IFDIR, "link": stat.S_IFLNK}[facts["kind"]]
    mode = stat.filemode(bits | int(facts["mode"], 8))
    target = f" -> {facts['target']}" if "target" in facts else ""
    return _MEMBER_COLUMNS.format(mode, facts["size"], _time(facts["mtime_ns"]), facts["path"] + target)


def _time(mtime_ns: int) -> str:
    """A time in UTC; beyond the years that the calendar of Python has, the nanoseconds themselves."""
    try:
        return datetime.fromtimestamp(mtime_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{mtime_ns} ns"
