"""The loop, its optimizer and its objectives: how weights move, whatever the method."""
