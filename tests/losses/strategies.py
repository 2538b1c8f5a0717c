"""Hypothesis strategies for soft and hard sets, float64 tensors of shape (1, 1, n)."""

import torch
from hypothesis import strategies as st

GRID = 64  # values are k/64: x = y happens, and two different values differ by more than rounding


@st.composite
def sets(draw, count, *, hard=()):
    """`count` tensors of one shape; those at positions `hard` hold 0 and 1 only. None is empty."""
    n = draw(st.integers(1, 6))
    tensors = []
    for i in range(count):
        top, scale = (1, 1) if i in hard else (GRID, GRID)
        values = draw(st.lists(st.integers(0, top), min_size=n, max_size=n).filter(any))
        tensors.append(torch.tensor(values, dtype=torch.float64).div(scale).view(1, 1, n))
    return tuple(tensors)


weights = st.floats(0.1, 2.0)
