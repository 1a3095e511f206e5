"""HTML as a reader meets it: texts of table cells, all text, and what would run."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """Tables as rows of cell texts (a line break is a space), and the text outside of style sheets."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: list[str] = []
        self.text = ""
        self._cell = self._style = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._style |= tag == "style"
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._cell = True
        elif tag == "br" and self._cell:
            self.tables[-1][-1][-1] += " "

    def handle_endtag(self, tag: str) -> None:
        self._style &= tag != "style"
        self._cell &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._style:
            return
        self.text += data
        if self._cell:
            self.tables[-1][-1][-1] += data


def rows_of(source: str, table: int = 0) -> dict[str, dict[str, str]]:
    """First cell of a row -> {column: text} of the others."""
    head, *rows = Page(source).tables[table]
    return {row[0]: dict(zip(head[1:], row[1:], strict=False)) for row in rows}
