"""The Hugging Face Hub, both ways: stitches and comparisons sent there, fetched from there, and exported."""
