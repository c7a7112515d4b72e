"""Tables as text: mean ± deviation, Markdown, and aligned lines for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

# A narrow column may break before the sign, and not behind it.
SPACE = "\N{NO-BREAK SPACE}"


def mean_and_deviation(values: Iterable[float]) -> str:
    """Mean ± sample standard deviation with two decimals; the mean alone of a single value, "–" of none.

    >>> mean_and_deviation([97.0]), mean_and_deviation([math.nan])
    ('97.00', '–')
    """
    known = [float(value) for value in values if not math.isnan(value)]
    if not known:
        return "–"
    return f"{mean(known):.2f}" + (f" ±{SPACE}{stdev(known):.2f}" if len(known) > 1 else "")


def cell(value: Any) -> str:
    """A value as it stands in a table: at most two decimals, thousands separated, "–" for what is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:z.2f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def markdown_table(table: Sequence[Mapping[Any, Any]], columns: Iterable[str] | None = None) -> str:
    """The rows as a Markdown table, without padding: one changed number changes one line."""
    names = list(columns or dict.fromkeys(name for row in table for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in table:
        lines.append("| " + " | ".join(cell(row.get(name)).replace("|", "\\|") for name in names) + " |")
    return "\n".join(lines)


def scrolling(markdown: str) -> str:
    """Markdown that scrolls by itself where its tables are wider than the page, in JupyterLab too."""
    return f'<div style="overflow-x: auto">\n\n{markdown}\n\n</div>'


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines of equal columns: the first to the left, the others to the right.

    A row with fewer cells than the longest, such as a remark, follows the first column and widens none.
    """
    columns = max(map(len, rows), default=0)
    full = [row for row in rows if len(row) == columns]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    left = max((len(row[0]) for row in rows), default=0)
    lines = []
    for first, *others in rows:
        right = widths[1:] if len(others) == columns - 1 else [0] * len(others)
        cells = [first.ljust(left), *(text.rjust(width) for text, width in zip(others, right, strict=True))]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines
