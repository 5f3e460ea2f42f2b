"""The tables of a report, in Markdown, each of the rows of one benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bench import published_runs
from bench.naive import NAIVE
from bench.published import differences
from bench.report_rows import Part, Row, Run
from bench.timing import Spread

Lines = Iterator[str]


def head(titles: Sequence[str], n_words: int = 1) -> Lines:
    """The first two lines of a table, whose first columns hold words."""
    yield line(titles)
    yield line(["---"] * n_words + ["---:"] * (len(titles) - n_words))


def line(cells: Sequence[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def parts_table(run: Run) -> Lines:
    """What ran, for how long, and what came of it."""
    yield from head(["part", "command", "result", "seconds"], 3)
    for part in run.parts:
        result = f"failed: {part.failure}" if part.failure else f"{len(part.rows)} rows"
        yield line([part.name, f"`{_cell(part.command)}`", _cell(result), f"{part.seconds:.0f}"])


def problems_table(run: Run) -> Lines:
    """Everything that was not measured, and why; the files of an opponent that is missing are counted."""
    counts: dict[tuple[str, str, str, str], list[str]] = {}
    for part in run.parts:
        for row in part.rows:
            if row.is_problem:
                file, _, told = row.case.partition(": ")
                contender, _, reason = told.partition(": ")
                counts.setdefault((part.name, contender, row.metric, reason), []).append(file)
    yield from head(["part", "what", "result", "reason", "files"], 4)
    for (name, contender, status, reason), files in counts.items():
        shown = files[0] if len(files) == 1 else f"{len(files)}"
        yield line([name, contender, status, _cell(reason), shown])
    for part in run.parts:
        if part.failure:
            yield line([part.name, "the whole command", "failed", _cell(part.failure), ""])


def _cell(text: str) -> str:
    """A text that ends no cell."""
    return text.replace("|", "\\|")


class Compared:
    """What `bench.compare` found in one part: rows by file, contender and metric."""

    def __init__(self, part: Part) -> None:
        self._rows: dict[tuple[str, str, str], Row] = {}
        self.files: dict[str, int] = {}
        self.contenders: dict[str, None] = {}
        for row in part.rows:
            file, _, contender = row.case.partition(": ")
            if row.is_problem or row.metric not in ("input", "size", "ratio", "encode", "decode"):
                continue
            name = column_of(contender)
            self._rows[file, name, row.metric] = row
            self.contenders[name] = None
            if row.metric == "input":
                self.files[file] = int(row.value)

    def ratio(self, file: str, contender: str) -> float | None:
        """Bits per byte; None where it failed."""
        row = self._rows.get((file, contender, "ratio"))
        return row.value if row else None

    def speed(self, contender: str, way: str, files: Sequence[str]) -> Spread | None:
        """KB/s over some files, by the sums of the repetitions' quantiles; None where it came through on none."""
        rows = [(self.files[file], row) for file in files if (row := self._rows.get((file, contender, way)))]
        spreads = [(n, row.spread) for n, row in rows if row.spread]
        if not spreads:
            return None
        n_raw = sum(n for n, _ in spreads)
        values = [n_raw / sum(n / getattr(spread, name) for n, spread in spreads) for name in ("p20", "p50", "p80")]
        return Spread(spreads[0][1].repeats, *values)

    def n_files(self, contender: str) -> int:
        """On which it came through."""
        return sum(self.ratio(file, contender) is not None for file in self.files)


def column_of(contender: str) -> str:
    """What heads the column of a contender; that of PPMd is the best setting, which differs from file to file."""
    return "PPMd" if contender.startswith("PPMd ") else contender


def ratios_table(found: Compared) -> Lines:
    """Bits per byte of every file under every contender, the least in bold."""
    yield from head(["file", "bytes", *found.contenders])
    for file, n_bytes in found.files.items():
        values = [found.ratio(file, contender) for contender in found.contenders]
        least = min(value for value in values if value is not None)
        cells = ["" if v is None else f"**{v:.3f}**" if v == least else f"{v:.3f}" for v in values]
        yield line([file, f"{n_bytes:,}", *cells])


def speeds_table(found: Compared) -> Lines:
    """KB/s of every contender over the files that it came through on."""
    yield from head(["compressor", "files", "encode, KB/s", "p20 to p80", "decode, KB/s", "p20 to p80"])
    for contender in found.contenders:
        cells = [contender, f"{found.n_files(contender)} of {len(found.files)}"]
        for way in ("encode", "decode"):
            cells += spread_cells(found.speed(contender, way, list(found.files)))
        yield line(cells)


def spread_cells(spread: Spread | None) -> list[str]:
    """The median, and how far the repetitions lie apart."""
    if spread is None:
        return ["", ""]
    return [f"{spread.p50:,.4g}", f"{spread.p20:,.4g} to {spread.p80:,.4g}"]


def published_table(parts: Sequence[Part]) -> Lines:
    """The published runs, ours below them, and what differs."""
    yield from published_runs.HEADER
    yield from (run.row() for run in published_runs.RUNS)
    cases: dict[str, dict[str, float]] = {}
    for row in (row for part in parts for row in part.rows):
        text, _, name = row.case.partition(": ")
        if row.is_problem:
            yield line([f"{text}: {name.partition(': ')[0]}", "", "", "", "", _cell(f"no: {name.partition(': ')[2]}")])
        else:
            cases.setdefault(row.case, {})[row.metric] = row.value
    for case, values in cases.items():
        name = case.partition(": ")[2]
        coded = (values["encode"], values["decode"], int(values["payload"]), values["ratio"])
        yield published_runs.Coded(name, *coded).row()
    yield ""
    yield from differences(published_runs.DIFFERENCES)


def yardstick_table(parts: Sequence[Part]) -> Lines:
    """Milliseconds a token of the naive coder and of llmzip, and how many times as fast that is."""
    yield from head(["model and text", "coder", "ms/token", "p20 to p80", "times as fast", "at least", "at most"], 2)
    for part in parts:
        times = {row.case: row.spread for row in part.rows if row.metric == "time" and row.spread}
        naive = next(spread for case, spread in times.items() if case.endswith(f": {NAIVE}"))
        for case, spread in times.items():
            text, _, coder = case.partition(": ")
            ratios = [naive.p50 / spread.p50, naive.p20 / spread.p80, naive.p80 / spread.p20]
            shown = [f"{ratio:,.1f}" for ratio in ratios] if coder != NAIVE else ["1", "", ""]
            yield line([text, coder, *spread_cells(spread), *shown])


def growth_table(rows: Sequence[Row]) -> Lines:
    """Seconds and megabytes along each axis."""
    yield from head(["axis", "value", "compress, s", "p20 to p80", "decompress, s", "p20 to p80", "MB", "MB back"], 1)
    for (axis, value), values in growth_points(rows).items():
        times = [cell for way in ("compress", "decompress") for cell in spread_cells(values[way].spread)]
        memory = [f"{values[f'{way}: memory'].value:,.0f}" for way in ("compress", "decompress")]
        yield line([axis, f"{value:,}", *times, *memory])


def growth_points(rows: Sequence[Row]) -> Mapping[tuple[str, int], Mapping[str, Row]]:
    """The rows of each point by its axis and value: `compress`, `decompress`, and `compress: memory` and its like."""
    found: dict[tuple[str, int], dict[str, Row]] = {}
    for row in rows:
        place, _, way = row.case.partition(": ")[2].partition(": ")
        axis, _, value = place.rpartition(" ")
        if not place.startswith("fit of ") and not row.is_problem:
            found.setdefault((axis, int(value)), {})[f"{way}: memory" if way else row.metric] = row
    return found


def fits_table(rows: Sequence[Row]) -> Lines:
    """The straight line through each axis."""
    fits: dict[str, dict[str, float]] = {}
    for row in rows:
        case = row.case.partition(": ")[2]
        if case.startswith("fit of "):
            fits.setdefault(case.removeprefix("fit of "), {})[row.metric] = row.value
    if not fits:
        yield "No axis has three points."
        return
    yield from head(["along", "at 0", "for each", "R²"])
    for name, fit in fits.items():
        yield line([name, f"{fit['intercept']:.3g}", f"{fit['slope']:.3g}", f"{fit['determination']:.3f}"])
