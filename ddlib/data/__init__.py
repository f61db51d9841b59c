"""Data sets as tensors: what one is, and the readers that make it."""
