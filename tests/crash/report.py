"""The books as a table for people."""

from collections.abc import Mapping

from tests.crash.books import Books, Row

_MOST_SHOWN = 40
COLUMNS = {
    "at s": "at_s",
    "lasted s": "lasted_s",
    "served": "served",
    "wanted": "wanted",
    "stored": "stored",
    "owed": "owed",
    "delivered": "delivered",
    "lost": "lost",
    "repeated": "repeated",
    "refused": "refused",
    "dead": "dead",
    "slowest s": "slowest_s",
}


def table(books: Books) -> str:
    """Every event stands in the row of the fault before it; a repeat in that of the fault it was in flight at."""
    totals = Row("(all)", 0.0, 0.0, **books.totals["totals"], slowest_s=max(row.slowest_s for row in books.rows))
    cells = [["fault", *COLUMNS], *([row.fault, *(_cell(row, name) for name in COLUMNS.values())] for row in (*books.rows, totals))]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]) for row in cells]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _cell(row: Row, name: str) -> str:
    value = getattr(row, name)
    return "" if row.fault == "(all)" and name in ("at_s", "lasted_s") else str(value)


def text(books: Books) -> str:
    tallies, deliveries = books.totals["tallies"], books.totals["deliveries"]
    parts = [table(books), "", _sum("received", tallies), _sum("all", deliveries, "deliveries")]
    for name, each in books.totals["receivers"].items():
        parts.append(f"{name}: {each['webhook_ids']} webhook-ids in {each['accepted']} accepted requests of {each['requests']}")
    parts += [f"note: {words}" for words in books.notes]
    parts += [f"WRONG: {words}" for words in books.wrong[:_MOST_SHOWN]]
    if len(books.wrong) > _MOST_SHOWN:
        parts.append(f"… and {len(books.wrong) - _MOST_SHOWN} more like these.")
    parts.append("The books are not in order." if books.wrong else "All is accounted for.")
    return "\n".join(parts)


def _sum(whole: str, counts: Mapping[str, int], called: str = "") -> str:
    """`deliveries 3 = delivered 2 + pending 1 …`"""
    parts = " + ".join(f"{name} {count}" for name, count in counts.items() if name != whole)
    return f"{called or whole} {counts[whole]} = {parts}"
