from __future__ import annotations

from pathlib import Path

import pytest

from bench import model_tables, tables
from bench.recorded import Figures
from bench.results import RESULTS
from bench.tables import PAGES, TABLES, rendered
from llmzip.errors import ConfigError


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_tables_are_those_of_the_results(path: Path) -> None:
    """What the pages show is what was measured last; `python -m bench.tables --write` makes it so."""
    page = path.read_text(encoding="utf-8")
    assert "<!-- table: " in page
    assert rendered(page, Figures.read(RESULTS)) == page


def test_every_table_is_shown_once() -> None:
    """None is rendered for nobody."""
    pages = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    assert {name: pages.count(f"<!-- table: {name} -->") for name in TABLES} == dict.fromkeys(TABLES, 1)


def test_newest_row_counts() -> None:
    """Of one case measured twice, and of a case whose further words changed."""
    rows = [
        ("ratio", "a: PPMd H -o 8", 9),
        ("ratio", "a: PPMd I -o 6", 7),
        ("ratio", "a: PPMd H -o 8", 8),
        ("b", "a", 1),
    ]
    table = [
        {"bench": bench, "case": case, "metric": "size", "unit": "bytes", "value": str(value)}
        for bench, case, value in rows
    ]
    assert Figures(table).newest("ratio", "a: PPMd", "size", "bytes") == 8
    assert Figures(table[:2]).newest("ratio", "a: PPMd", "size", "bytes") == 7
    for case in ("a: PPM", "b: PPMd"):
        with pytest.raises(ConfigError, match="expected size in bytes of"):
            Figures(table).newest("ratio", case, "size", "bytes")


def test_page_that_differs_is_told_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --write the status is 1 and the page stays; with it the page has the figures, and the rest as it was."""
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: program -->\nold\n<!-- end of table -->\nafter\n", encoding="utf-8")
    assert tables.main([], [page]) == 1
    assert "page.md: its tables are not those of results.csv" in capsys.readouterr().out
    assert "old" in page.read_text(encoding="utf-8")
    assert tables.main(["--write"], [page]) == 0
    new = page.read_text(encoding="utf-8")
    assert new.startswith("before\n<!-- table: program -->\n| run | compress, s |")
    assert new.endswith(" |\n<!-- end of table -->\nafter\n")
    assert tables.main([], [page]) == 0


def test_what_was_never_measured_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing figure, or a table that there is not, is one line; the page stays."""
    page, empty = tmp_path / "page.md", tmp_path / "empty.csv"
    empty.write_text("bench,case,metric,value,unit\n", encoding="utf-8")
    for name, message in (("ratios", "expected ratio in bits/byte of enwik8_1m"), ("nothing", "found nothing")):
        page.write_text(f"<!-- table: {name} -->\nold\n<!-- end of table -->\n", encoding="utf-8")
        assert tables.main(["--write", "--results", str(empty)], [page]) == 1
        assert message in capsys.readouterr().err
        assert "old" in page.read_text(encoding="utf-8")


def test_options_make_other_figures_of_the_same_cases() -> None:
    """What was tuned stands apart from what `auto` makes; what a tradeoff called its ratio at first is its payload."""
    commands = {"python -m bench.conditioner_gain a": 1, "python -m bench.conditioner_gain --tune 60 a": 2}
    rows = [
        {
            "bench": "conditioner_gain",
            "case": "a",
            "metric": "auto",
            "unit": "",
            "value": str(value),
            "command": command,
        }
        for command, value in commands.items()
    ]
    rows.append({"bench": "tradeoff", "case": "a", "metric": "ratio", "unit": "", "value": "3"})
    figures = Figures(rows)
    assert figures.newest("conditioner_gain", "a", "auto", "") == 1
    assert figures.newest("conditioner_gain --tune", "a", "auto", "") == 2
    assert figures.newest("tradeoff", "a", "payload", "") == 3


def test_memory_without_a_row_was_refused() -> None:
    """Of one way; both ways without rows were not measured."""
    rows = list(model_tables.memory(Figures.read(RESULTS)))
    assert rows[2].startswith("| 224 | 0 | refused | ")
    with pytest.raises(ConfigError, match="expected a row of bundled, enwik8: 224 MiB, 0 workers"):
        list(model_tables.memory(Figures([])))


def test_sizes_of_files_are_exact() -> None:
    """The results have six digits of a ratio, the table the bytes of the file."""
    lines = [line for line in model_tables.sizes(Figures.read(RESULTS)) if line.startswith("| bible.txt")]
    assert [line.split(" | ")[1] for line in lines] == ["4,047,392"]
