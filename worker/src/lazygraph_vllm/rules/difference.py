"""How far what a graph wrote is from what a run without it gave. Pure."""

from __future__ import annotations

from typing import Any


def largest_difference(got: Any, expected: Any) -> float | None:
    """The largest difference, as a share of the largest expected value.

    Args:
        got: a tensor; where it has no number, the difference is none either (NaN).
        expected: a tensor of the same shape.

    Returns:
        ``None``: ``expected`` has no numbers to compare with.
    """
    got, expected = got.float(), expected.float()
    if not bool(expected.isfinite().all()):
        return None
    scale = expected.abs().max().clamp_min(1e-6)
    return float((got - expected).abs().max() / scale)
