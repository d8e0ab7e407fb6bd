"""How long texts may be. Apart from the messages, whose imports not every process of vLLM needs."""

from __future__ import annotations

TEXT_CHARS_MAX = 2048
ID_CHARS_MAX = 128


def shortened(text: str, units: int = TEXT_CHARS_MAX) -> str:
    """A text's beginning, at most as long as controllers take it, which count UTF-16 units."""
    return text.encode("utf-16-le", "replace")[: 2 * units].decode("utf-16-le", "ignore")
