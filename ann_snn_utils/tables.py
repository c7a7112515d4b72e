"""Results of many runs side by side: one row a run, seeds grouped into mean ± standard deviation.

Results of runs as plain tables for a terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean, stdev

# A narrow column may break before the sign, and not behind it.
_SPACE = "\N{NO-BREAK SPACE}"


def mean_and_deviation(values: list[float]) -> str:
    """Give mean ± sample standard deviation with two decimals; the mean alone of a single value."""
    return f"{mean(values):.2f}" + (f" ±{_SPACE}{stdev(values):.2f}" if len(values) > 1 else "")


def markdown_table(table: list[dict], columns: Iterable[str] | None = None) -> str:
    """Give the rows as a Markdown table; numbers with at most two decimals, large ones with separators."""
    names = list(columns or dict.fromkeys(name for row in table for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in table:
        lines.append("| " + " | ".join(_text(row.get(name)) for name in names) + " |")
    return "\n".join(lines)


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Give rows of cells as lines of equal columns: the first to the left, the others to the right."""
    full = [row for row in rows if len(row) == max(map(len, rows))]
    widths = [max(len(row[column]) for row in full) for column in range(len(full[0]))] if full else []
    widths[:1] = [max(len(row[0]) for row in rows)] if rows else []
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        if len(row) == len(widths):
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        else:
            cells += row[1:]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines
