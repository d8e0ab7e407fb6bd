"""Copies of a kept tokenizer, made before a server asks for them.

vLLM gives each thread that renders prompts a tokenizer of its own: it copies the one in its cache,
copies that, and that one deeply, once for each thread. Every one of these reads the vocabulary
anew, with 128,256 words for tenths of a second, and the engine begins only afterwards. The copies
here come of the same operations on the same object. Each is given away once, and only while the
original is as it was; otherwise a server makes its own.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

DEEP = 2
"""As many as a renderer with one worker wants, which is vLLM's default."""


def keep_copies(tokenizer: Any) -> None:
    """Make those that a renderer asks for, in its order.

    Args:
        tokenizer: in vLLM's cache. vLLM makes a class for each, so nothing else is of that class.

    Raises:
        TypeError: it isn't copied by calling what made it with the original.
        AttributeError: its original isn't of the library ``tokenizers``.
        ValueError: its copy has another original.
    """
    original = _original(tokenizer)
    first = copy.copy(tokenizer)
    second = copy.copy(first)
    if _original(first) is not original or _original(second) is not original:
        raise ValueError("Expected copies that share an original, got another.")
    was = copy.deepcopy(_state(original))

    def unchanged() -> bool:
        return _state(original) == was

    deep = [copy.deepcopy(second) for _ in range(DEEP)]
    _give(tokenizer, "__copy__", [first], unchanged)
    _give(first, "__copy__", [second], unchanged)
    _give(second, "__deepcopy__", deep, unchanged)


def _give(owner: Any, how: str, copies: list[Any], unchanged: Callable[[], bool]) -> None:
    def give(self: Any, *memo: dict[int, Any]) -> Any:
        # What has since become an instance of a subclass is copied in that class's way.
        if self is owner and type(self) is kind and copies and unchanged():
            return copies.pop()
        made_by, arguments = self.__reduce__()
        return made_by(*(copy.deepcopy(arguments, *memo) if memo else arguments))

    kind = type(owner)
    setattr(kind, how, give)


def _original(tokenizer: Any) -> Any:
    kind = type(tokenizer)
    reduced: tuple[Any, ...] = tokenizer.__reduce__() if "<locals>" in kind.__qualname__ else ()
    if len(reduced) != 2 or len(reduced[1]) != 1:
        raise TypeError(f"Expected a tokenizer that vLLM caches, got a {kind.__qualname__}.")
    return reduced[1][0]


def _state(original: Any) -> dict[str, Any]:
    """What its copies depend on; of the vocabulary its size, since nobody takes words out."""
    words = original._tokenizer
    parts = (words.normalizer, words.pre_tokenizer, words.post_processor, words.decoder)
    inner = {
        "words": words.get_vocab_size(),
        "added": words.get_added_tokens_decoder(),
        "limits": (words.padding, words.truncation),
        "parts": [pickle.dumps(part) for part in parts],
    }
    return {**vars(original), "_tokenizer": inner}
