"""A report as a reader's browser takes it in: elements, their texts, tables and the data of figures."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

# Elements without an end.
VOID = {"meta", "img", "input", "path", "br"}


@dataclass
class Element:
    """An element of a page."""

    tag: str
    attributes: dict[str, str | None]
    parts: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it, spaces and line ends as one space each."""
        texts = [part if isinstance(part, str) else part.text for part in self.parts]
        return " ".join(" ".join(texts).split())

    def every(self, tag: str = "", **attributes: str) -> list[Element]:
        """Return the elements in it of a tag and with these attributes, in order; `class_` is class, `a_b` is a-b."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        found = []
        for part in self.parts:
            if isinstance(part, Element):
                fits = all(part.attributes.get(name) == value for name, value in wanted.items())
                found += [part] if fits and tag in ("", part.tag) else []
                found += part.every(tag, **attributes)
        return found

    def one(self, tag: str = "", **attributes: str) -> Element:
        """Return the only such element."""
        (found,) = self.every(tag, **attributes)
        return found

    def rows(self) -> list[dict[str, str]]:
        """Return a sortable table's rows by heading."""
        headings = [heading.text for heading in self.one("thead").every("th")]
        return [
            dict(zip(headings, [field.text for field in row.every("td")], strict=True))
            for row in self.one("tbody").every("tr")
        ]


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self._open[-1].parts.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].parts.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open[-1].tag == tag, f"</{tag}> ends <{self._open[-1].tag}>"
            self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].parts.append(data)


def read(path: Path) -> Element:
    """Return a page; its elements must be closed in order."""
    builder = _Builder()
    builder.feed(path.read_text())
    builder.close()
    assert builder._open == [builder.root]
    return builder.root


def figures(page: Element) -> dict[str, Any]:
    """Return the data of the figures, by the name of each panel."""
    (text,) = page.one("script", id="data").parts
    assert isinstance(text, str)
    found: dict[str, Any] = json.loads(text)
    return found
