"""Elements of HTML and SVG as strings in which everything that is not markup already is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from sutura.compare.tables import Table


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page.

    Args:
        name: its anchor.
        title: its heading, and its link at the top.
        body: what stands in it.
        link: its name at the top of the page, where that is shorter than the title.
    """

    name: str
    title: str
    body: Markup
    link: str = ""


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element. Children and values are escaped unless they are Markup.

    Args:
        name: of the element.
        children: one after the other; None is left out.
        attributes: `class_` is class, `aria_label` is aria-label; None and False leave one out, True gives no value.
    """
    parts = [Markup("<"), Markup(name)]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        parts += [Markup(" "), Markup(key.rstrip("_").replace("_", "-"))]
        if value is not True:
            parts += [Markup('="'), escape(value), Markup('"')]
    inside = join(children)
    if not inside and name in _EMPTY:
        return join([*parts, Markup("/>")])
    return join([*parts, Markup(">"), inside, Markup(f"</{name}>")])


#: Elements of SVG and HTML that are written without an end.
_EMPTY = frozenset({"line", "rect", "circle", "path", "polyline", "polygon", "img", "br"})


def join(parts: Iterable[object]) -> Markup:
    """One after the other, escaped; None is left out."""
    return Markup("").join(escape(part) for part in parts if part is not None)


def paragraph(*text: object, class_: str | None = None) -> Markup:
    """A paragraph."""
    return tag("p", *text, class_=class_)


def bullets(sentences: Iterable[object]) -> Markup:
    """A list, or nothing for no sentences."""
    items = [tag("li", sentence) for sentence in sentences]
    return tag("ul", *items) if items else Markup("")


def folded(summary: str, *children: object, open_: bool = False) -> Markup:
    """What one opens to read."""
    return tag("details", tag("summary", summary), *children, open=open_)


def table(content: Table, *, caption: str, words: int = 1) -> Markup:
    """A table that scrolls sideways where it is wider than the page.

    Args:
        content: texts; `*…*` and `**…**` around one are emphasis, as in report.md.
        caption: says what it holds.
        words: columns from the left that hold words; the others hold numbers.
    """
    head = [tag("th", name, scope="col", class_=_side(i, words)) for i, name in enumerate(content.columns)]
    rows = []
    for row in content.rows:
        cells = [tag("th", _plain(row[0]), scope="row", class_="w")]
        cells += [tag("td", _plain(text), class_=_side(i, words)) for i, text in enumerate(row[1:], start=1)]
        rows.append(tag("tr", *cells))
    body = tag("table", tag("caption", caption), tag("thead", tag("tr", *head)), tag("tbody", *rows))
    return tag("div", body, class_="wide", tabindex="0", role="region", aria_label=caption)


def table_block(title: str, content: Table, note: str = "") -> Markup:
    """A heading, a sentence and a table: the plainest block that other computations can put into a section."""
    return join([tag("h3", title), paragraph(note) if note else None, table(content, caption=title)])


def _side(index: int, words: int) -> str | None:
    return "w" if index < words else None


def _plain(text: str) -> object:
    for mark, name in (("**", "strong"), ("*", "em")):
        if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
            return tag(name, text[len(mark) : -len(mark)])
    return text


def figure(drawing: object, *, title: str, text: str, behind: Sequence[object] = ()) -> Markup:
    """A drawing with its caption, what it shows in words, and its numbers behind it.

    Args:
        drawing: HTML with drawings in it.
        title: the caption.
        text: says what is drawn, for everybody.
        behind: tables that hold the numbers.
    """
    caption = tag("figcaption", tag("strong", title), " ", text)
    numbers = folded("The numbers", *behind) if behind else None
    return tag("figure", caption, drawing, numbers)
