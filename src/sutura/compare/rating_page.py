"""The page of a rating sheet: pictures, questions, answers behind letters, and a button that saves the sheet."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from itertools import groupby

from PIL import Image

from sutura.evals.rating_sheet import HIGHEST, LOWEST, Shown

#: Longer side of a picture on the page, in pixels.
SIDE = 448

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 44rem; margin: 0 auto; padding: 1rem; }
article { border-top: 1px solid #8888; padding: 1rem 0; }
img { width: min(100%, 28rem); display: block; }
fieldset { border: 1px solid #8888; border-radius: .4rem; margin: .5rem 0; }
label { margin-right: .8rem; white-space: nowrap; }
header { position: sticky; top: 0; background: Canvas; padding: .5rem 0; }
button, input[type=text] { font: inherit; padding: .3rem .6rem; }
"""

_SCRIPT = """
const rows = JSON.parse(document.getElementById("rows").textContent);
const plain = text => /^[=+@-]/.test(text) ? "'" + text : text;
const cell = text => '"' + plain(String(text)).replaceAll('"', '""') + '"';
const rated = () => rows.filter(row => document.querySelector(`input[name="${row.code}${row.letter}"]:checked`));
document.addEventListener("change", () => {
  document.getElementById("done").textContent = `${rated().length} of ${rows.length}`;
});
document.getElementById("save").addEventListener("click", () => {
  const rater = document.getElementById("rater").value;
  const lines = [["code", "question", "letter", "answer", "rating", "rater"].join(",")];
  for (const row of rows) {
    const box = document.querySelector(`input[name="${row.code}${row.letter}"]:checked`);
    lines.push([row.code, row.question, row.letter, row.answer, box ? box.value : "", rater].map(cell).join(","));
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\\n") + "\\n"], {type: "text/csv"}));
  link.download = "rated.csv";
  link.click();
});
"""


def rating_page(sheet: Sequence[Shown], pictures: Mapping[str, Image.Image]) -> str:
    """A self-contained page; it says nothing of the systems or of what is right.

    Args:
        sheet: as `make_sheet` gives it.
        pictures: image id → picture; an item without one says so.
    """
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'><title>Rating sheet</title>",
        f"<style>{_STYLE}</style></head><body><h1>Rating sheet</h1>",
        f"<p>Rate every answer from {LOWEST} (wrong) to {HIGHEST} (right) by the picture alone. Letters mean nothing "
        "from one item to the next. Save the sheet and hand it back.</p>",
        "<header><label>Your name <input type='text' id='rater'></label> <button id='save'>Save</button> ",
        f"<span id='done'>0 of {len(sheet)}</span></header>",
    ]
    for code, group in groupby(sheet, key=lambda one: one.code):
        answers = list(group)
        parts.append(f"<article><h2>{code}</h2>{_picture(pictures.get(answers[0].image_id))}")
        parts.append(f"<p>{html.escape(answers[0].question)}</p>")
        parts += [_answer(one) for one in answers]
        parts.append("</article>")
    rows = [
        {"code": one.code, "question": one.question, "letter": one.letter, "answer": one.answer}
        for one in sheet
    ]
    data = json.dumps(rows, ensure_ascii=False).replace("<", "\\u003c")
    parts.append(
        f"<script type='application/json' id='rows'>{data}</script><script>{_SCRIPT}</script></body></html>"
    )
    return "\n".join(parts) + "\n"


def _answer(one: Shown) -> str:
    name = f"{one.code}{one.letter}"
    boxes = "".join(
        f"<label><input type='radio' name='{name}' value='{value}'> {value}</label>"
        for value in range(LOWEST, HIGHEST + 1)
    )
    text = html.escape(one.answer) or "<i>(no answer)</i>"
    return f"<fieldset><legend>{one.letter}</legend><p>{text}</p>{boxes}</fieldset>"


def _picture(picture: Image.Image | None) -> str:
    if picture is None:
        return "<p><i>(the picture is not there)</i></p>"
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    small.save(out, format="JPEG", quality=85)
    code = base64.b64encode(out.getvalue()).decode()
    return f"<img alt='the picture in question' src='data:image/jpeg;base64,{code}'>"
