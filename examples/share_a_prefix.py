"""Several questions about one picture in one row: the same losses as separate samples, for fewer tokens."""

from __future__ import annotations

import torch

from sutura import load_encoder
from sutura.data.vqa import load_vqa
from sutura.stitch.bundle import StitchConfig, build_stitch
from sutura.stitch.pack import Row, pack, split_turns

encoder = load_encoder("zoo:supervised", tokens=16)
stitch = build_stitch(StitchConfig(encoder=encoder.config), encoder.facts())
prompt = stitch.prompt

picture = load_vqa({"source": "world", "split": "train", "limit": 1, "questions_per_picture": 8}).pictures[0]
turns = tuple(prompt.turn(s.item_id, s.question, s.answers[0]) for s in picture.samples)
visual = stitch.model.project(encoder(encoder.transform(picture.image.open())[None]))

together = [Row(picture=0, turns=turns)]
apart = split_turns(together[0], "separate")
losses = {}
for name, rows in (("shared", together), ("separate", apart)):
    packed = pack(rows, head_ids=prompt.head_ids, pad_id=min(prompt.stop_ids))
    losses[name], _ = stitch.model(packed, visual)
    tokens = sum(encoder.num_tokens + int((segments >= 0).sum()) for segments in packed.segments)
    print(f"{name:>9}: {len(rows)} rows, {tokens} tokens, {losses[name].sum():.4f} nats")

torch.testing.assert_close(losses["shared"], losses["separate"], rtol=1e-4, atol=1e-5)
