"""Encoder + projector + adapter on a language model: one stitch."""
