"""A run as one HTML page that needs nothing else: tables that can be sorted, pictures, what was measured and how.

Everything is in the page before its script runs, so that it can be printed, and read where no script may run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from importlib import resources

from llmzip.bench.chart import Point, scatter
from llmzip.bench.columns import COLUMNS, Value, problem_text, settings_text
from llmzip.bench.corpora import Text
from llmzip.bench.records import HOW, Run
from llmzip.bench.rows import Row, Status

# Nothing is fetched from anywhere, whatever a file's name may hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def as_html(run: Run) -> str:
    """The page."""
    parts = [*_head(), *_intro(run), *_overview(run)]
    if run.totals:
        parts += ["<h2>All files together</h2>", *_section(run.totals)]
    texts = {text.name: text for text in run.texts}
    for name in dict.fromkeys(row.file for row in run.rows):
        rows = [row for row in run.rows if row.file == name]
        parts += [f"<h2>{escape(name)}</h2>", *_about(texts.get(name)), *_section(rows)]
    return "\n".join([*parts, *_legend(run), f"<script>\n{_resource('page.js')}</script>", "</body>", "</html>", ""])


def _head() -> Iterator[str]:
    yield "<!DOCTYPE html>"
    yield '<html lang="en">'
    yield '<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield f"<title>llmzip bench</title>\n<style>\n{_resource('page.css')}</style></head>"
    yield "<body>"


def _intro(run: Run) -> Iterator[str]:
    n_files = len({row.file for row in run.rows})
    yield "<h1>llmzip bench</h1>"
    counted = f"{n_files} file{'s' if n_files > 1 else ''}, medians of {run.repeats}, decoded and compared"
    facts = " · ".join(escape(fact) for fact in (run.date, run.machine, counted))
    yield f'<p class="quiet">{facts}<br><code>{escape(run.command)}</code></p>'
    for row in (row for row in run.rows if row.exit_code):
        yield f'<p class="problem"><strong>{escape(row.file)}, {escape(row.contender)}</strong>: {_problem(row)}</p>'


def _overview(run: Run) -> Iterator[str]:
    """Bits per byte of every contender on every file."""
    files = list(dict.fromkeys(row.file for row in run.rows if row.status is Status.OK))
    shown = sorted((row for row in run.rows if row.status is Status.OK), key=lambda row: not row.has_model)
    keys = list(dict.fromkeys(row.key for row in shown))
    if len(files) < 2:
        return
    found = {(row.file, row.key): row.bits_per_byte for row in run.rows if row.status is Status.OK}
    names = {row.key: f"llmzip, {row.key}" if row.has_model else row.key for row in run.rows}
    sizes = {text.name: text.n_bytes for text in run.texts}
    yield "<h2>Bits per byte</h2>"
    heads = [_head_cell("file", "file", number=False), _head_cell("bytes", "size", number=True)]
    heads += [_head_cell(names[key], key, number=True) for key in keys]
    yield from _open_table(heads, "sortable matrix")
    for file in files:
        own = [found.get((file, key)) for key in keys]
        least = min(value for value in own if value is not None)
        cells = [_cell(file, file), _cell(sizes[file], f"{sizes[file]:,}")]
        cells += [_cell(value, "" if value is None else f"{value:.3f}", best=value == least) for value in own]
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"


def _about(text: Text | None) -> Iterator[str]:
    if text is None:
        return
    yield f'<p class="quiet">{text.n_bytes:,} bytes · {escape(text.origin)} · SHA-256 <code>{text.sha256}</code></p>'
    if text.known:
        yield f'<p class="quiet">{escape(text.known.source)} · {escape(text.known.licence)}</p>'


def _section(rows: Sequence[Row]) -> Iterator[str]:
    """The table of a file, what was computed how, and two pictures."""
    yield from _open_table([_head_cell(c.title, _slug(c.title), number=i > 0) for i, c in enumerate(COLUMNS)])
    yield from (_row(row) for row in rows)
    told = [
        f"{row.contender}: {settings_text(row)}"
        + (f"; break-even against {row.best_opponent}" if row.best_opponent else "")
        for row in rows
        if row.has_model and row.settings
    ]
    yield "</tbody></table></div>"
    yield from (f'<p class="quiet">{escape(line)}</p>' for line in told)
    points = {
        "encode, KB/s": [
            Point(r.contender, r.encode.speed.p50, r.bits_per_byte, r.has_model) for r in rows if r.encode
        ],
        "decode, KB/s": [
            Point(r.contender, r.decode.speed.p50, r.bits_per_byte, r.has_model) for r in rows if r.decode
        ],
    }
    if all(points.values()):
        figures = "\n".join(f"<figure>{scatter(some, title)}</figure>" for title, some in points.items())
        yield f'<div class="pictures">\n{figures}\n</div>'


def _row(row: Row) -> str:
    kind = ' class="own"' if row.has_model else ""
    if row.status is not Status.OK:
        name = _cell(row.contender, row.contender)
        return f'<tr{kind}>{name}<td class="problem" colspan="{len(COLUMNS) - 1}">{_problem(row)}</td></tr>'
    return f"<tr{kind}>{''.join(_cell(column.value(row), column.text(row)) for column in COLUMNS)}</tr>"


def _problem(row: Row) -> str:
    return escape(problem_text(row))


def _open_table(heads: Sequence[str], kind: str = "sortable") -> Iterator[str]:
    yield f'<div class="wide"><table class="{kind}"><thead><tr>{"".join(heads)}</tr></thead><tbody>'


def _head_cell(title: str, column: str, *, number: bool) -> str:
    kind = "number" if number else "text"
    # No line ends at a hyphen.
    button = f'<button type="button">{escape(title).replace("-", "&#8209;")}</button>'
    return f'<th scope="col" data-column="{escape(column)}" data-kind="{kind}">{button}</th>'


def _cell(value: Value, text: str, *, best: bool = False) -> str:
    kind = ' class="best"' if best else ""
    sorted_by = "" if value is None else f' data-value="{escape(str(value))}"'
    return f"<td{kind}{sorted_by}>{escape(text)}</td>"


def _legend(run: Run) -> Iterator[str]:
    yield "<h2>What the columns say</h2>\n<dl>"
    yield from (f"<dt>{escape(column.title)}</dt><dd>{escape(column.about)}</dd>" for column in COLUMNS)
    yield "</dl>\n<h2>How it was measured</h2>"
    yield f"<p>{escape(HOW)}</p>"
    yield "<p>In the pictures, the dashed line joins the contenders that no other one beats in both size and speed.</p>"
    yield f'<p class="quiet">{escape(run.versions)}</p>'


def _slug(title: str) -> str:
    """A column's name in the fragment of an address: `#sort=bits/byte`, `#sort=encode`."""
    return title.partition(", KB/s")[0].replace(", ", "-").replace(" ", "-")


def _resource(name: str) -> str:
    return resources.files("llmzip.bench").joinpath(name).read_text(encoding="utf-8")
