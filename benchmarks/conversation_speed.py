"""Follow-up questions about a picture: what was read of it is kept, against reading it again for each.

    python benchmarks/conversation_speed.py --width 896 --depth 24 --picture-tokens 256

A language model of random weights in the Qwen2 architecture; the encoder runs in neither of the two, though asking
again would run it too. Prints medians of milliseconds to the first token and to the end of an answer, with ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from sutura.core.doctor import machine
from sutura.core.runtime import generator, pick_device, seed_everything
from sutura.stitch.config import LlmConfig
from sutura.stitch.conversation import Conversation
from sutura.stitch.generate import generate
from sutura.stitch.language import load_tokenizer
from sutura.stitch.model import StitchModel
from sutura.stitch.pack import Row
from sutura.stitch.projector import ProjectorConfig, build_projector
from sutura.stitch.prompt import PromptBuilder

COLOURS = ("red", "green", "blue", "yellow", "gray", "brown", "purple", "cyan")


def build(width: int, depth: int, device: str) -> tuple[StitchModel, PromptBuilder]:
    """A random language model that reads the shipped one's vocabulary."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = load_tokenizer(LlmConfig())
    config = AutoConfig.for_model(
        "qwen2",
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width * 5,
        num_hidden_layers=depth,
        num_attention_heads=max(1, width // 64),
        num_key_value_heads=max(1, width // 448),
        eos_token_id=tokenizer.eos_token_id,
    )
    seed_everything(0, "benchmark")
    lm = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    model = StitchModel(lm, build_projector(ProjectorConfig(), width, width, seed=0))
    return model.to(pick_device(device)).eval(), PromptBuilder(tokenizer)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=448)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--picture-tokens", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=5)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    model, prompt = build(given.width, given.depth, given.device)
    patches = torch.randn(1, given.picture_tokens, given.width, generator=generator(0, "picture"))
    with torch.inference_mode():
        visual = model.project(patches.to(model.device))
    questions = [
        f"how many {COLOURS[i % len(COLOURS)]} things are left of the large cube?"
        for i in range(given.questions)
    ]
    talk = Conversation(model, prompt, lambda: visual)
    first = talk.ask(questions[0], max_new_tokens=given.new_tokens)
    times: dict[str, list[float]] = {"kept, first": [], "kept, all": [], "again, first": [], "again, all": []}
    read = []
    for question in questions[1:]:
        reply = talk.ask(question, max_new_tokens=given.new_tokens)
        read.append(reply.read)
        times["kept, first"].append(reply.first_token)
        times["kept, all"].append(reply.seconds)
        row = Row(0, (prompt.turn("q", question),))
        for name, most in (("again, first", 1), ("again, all", given.new_tokens)):
            began = time.perf_counter()
            answer = generate(model, prompt, [row], visual, max_new_tokens=most)[0]
            times[name].append(time.perf_counter() - began)
        assert (answer.text, answer.tokens) == (reply.text, reply.tokens), "the two must agree"
    middle = {name: 1000 * statistics.median(values) for name, values in times.items()}
    print(f"{machine()}; {torch.get_num_threads()} threads; {given}")
    print(f"first question: {first.read} tokens read, {1000 * first.first_token:.0f} ms to the first token")
    print(f"follow-ups: {statistics.median(read):.0f} tokens read, {len(read)} questions")
    for what in ("first", "all"):
        kept, again = middle[f"kept, {what}"], middle[f"again, {what}"]
        words = "to the first token" if what == "first" else "whole answer"
        print(f"{words}: kept {kept:.1f} ms, again {again:.1f} ms, ratio {again / kept:.2f}")


if __name__ == "__main__":
    main()
