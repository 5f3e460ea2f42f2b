from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from llmzip.bench.page import as_html
from llmzip.bench.records import Run

_VOID = {"meta", "br"}
Open = Callable[..., str]


@pytest.fixture
def open_page(tmp_path: Path) -> Open:
    """A function that opens a page in a browser and gives what became of it."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium here")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'user'}"]

    def _open(page: str, fragment: str = "", *options: str) -> str:
        path = tmp_path / "page.html"
        path.write_text(page, encoding="utf-8")
        done = subprocess.run(
            [browser, *flags, *(options or ["--dump-dom"]), path.as_uri() + fragment],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout

    return _open


class _Balance(HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """Go in."""
        del attrs
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        """Neither in nor out."""

    def handle_endtag(self, tag: str) -> None:
        """Go out again."""
        assert self.open.pop() == tag


def _rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    table = page.split(f"<h2>{heading}</h2>")[1].split("<tbody>")[1].split("</tbody>")[0]
    rows = re.findall("<tr.*?</tr>", table, re.DOTALL)
    return [[html.unescape(cell) for cell in re.findall("<td[^>]*>(.*?)</td>", row)] for row in rows]


def test_page_is_whole(run: Run) -> None:
    """Its elements are closed in order, and names are text, whatever they look like."""
    page = as_html(run)
    balance = _Balance()
    balance.feed(page)
    assert balance.open == []
    assert "<b>two" not in page
    assert "&lt;b&gt;two" in page


def test_page_needs_nothing_else(run: Run) -> None:
    """No address of anything to load, and a policy that forbids to."""
    page = as_html(run)
    assert not re.search(r"\b(?:src|href|action)=|@import|url\(", page)
    assert "default-src 'none'" in page


def test_page_shows_every_row(run: Run) -> None:
    """Figures, reasons, totals, and two pictures where there is something to draw."""
    page = as_html(run)
    first, second = _rows(page, "one.txt"), _rows(page, "&lt;b&gt;two")
    assert [row[0] for row in first] == ["fast -1", "small -9", "small-model llmzip"]
    assert first[2][1:7] == ["300", "2.400", "42.400", "50.0 KB", "10.0", "5.00"]
    assert second[0] == ["fast -1", "wrong: expected byte 1, found 2"]
    assert _rows(page, "lost") == [["(none)", "unreadable: lost: No such file or directory"]]
    assert _rows(page, "All files together")[0][:3] == ["small -9", "650", "2.600"]
    assert _rows(page, "Bits per byte") == [
        ["one.txt", "1,000", "2.400", "4.000", "3.200"],
        ["<b>two", "1,000", "", "", "2.000"],
    ]
    assert page.count("<svg") == 6
    assert page.count('<p class="problem">') == 2


@pytest.mark.parametrize(
    ("fragment", "order", "sorted_by"),
    [
        ("", ["fast -1", "small -9", "small-model llmzip"], None),
        ("#sort=bytes", ["small-model llmzip", "small -9", "fast -1"], ("bytes", "ascending")),
        ("#sort=-decode", ["fast -1", "small -9", "small-model llmzip"], ("decode", "descending")),
        ("#sort=encode", ["small -9", "small-model llmzip", "fast -1"], ("encode", "ascending")),
        ("#sort=break-even", ["small-model llmzip", "fast -1", "small -9"], ("break-even", "ascending")),
    ],
    ids=["as it is", "bytes", "decode", "encode", "empty"],
)
def test_browser_sorts_by_the_fragment(
    fragment: str, order: list[str], sorted_by: tuple[str, str] | None, run: Run, open_page: Open
) -> None:
    """The address says by which column; a row without a value stays at the end."""
    page = open_page(as_html(run), fragment)
    assert [row[0] for row in _rows(page, "one.txt")] == order
    marks = set(re.findall(r'<th scope="col" data-column="([^"]*)"[^>]*aria-sort="([^"]*)"', page))
    assert marks == ({sorted_by} if sorted_by else set())


@pytest.mark.parametrize(("n_clicks", "order"), [(1, ["small", "model", "fast"]), (2, ["fast", "model", "small"])])
def test_browser_sorts_by_clicks(n_clicks: int, order: list[str], run: Run, open_page: Open) -> None:
    """A click on a column's title sorts its table, a second one the other way round."""
    click = "document.querySelectorAll('table.sortable')[2].querySelector('[data-column=encode] button').click();"
    page = open_page(as_html(run).replace("</body>", f"<script>{click * n_clicks}</script></body>"))
    names = [row[0] for row in _rows(page, "one.txt")]
    assert [{"small -9": "small", "fast -1": "fast"}.get(name, "model") for name in names] == order
    assert page.count(' aria-sort="') == 1


def test_browser_prints_the_page(run: Run, open_page: Open, tmp_path: Path) -> None:
    """As a PDF, with no error of the script or the policy on the console."""
    page = as_html(run).replace(
        "<head>", "<head><script>addEventListener('error', e => document.title = e.message)</script>"
    )
    assert "<title>llmzip bench</title>" in open_page(page)
    open_page(as_html(run), "", f"--print-to-pdf={tmp_path / 'page.pdf'}", "--no-pdf-header-footer")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF-")
