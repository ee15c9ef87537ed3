"""Ask a trained stitch: several questions about a picture, which is encoded once.

`sutura stitch --encoder clip --out my-stitch` trains one; any picture will do.
"""

from __future__ import annotations

import sutura

stitch = sutura.load_stitch("my-stitch")
picture = "photo.jpg"

print(stitch.ask(picture, "How many cubes are there?"))

questions = ["Is there a red sphere?", "What colour is the large cylinder?"]
for question, answer in zip(questions, stitch.ask_all([(picture, questions)]), strict=True):
    note = "" if answer.stopped else "  (cut at the length limit)"
    print(f"{question} {answer.text}{note}")
