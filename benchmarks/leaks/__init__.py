"""A small training script, and twelve copies of it with a mistake each that costs memory."""
