"""Why a server can't be forked: a stable code and one sentence, which the client passes on."""

from __future__ import annotations

UNREACHABLE = "ERR_LAZYGRAPH_LAUNCHER_UNREACHABLE"
REQUEST = "ERR_LAZYGRAPH_LAUNCHER_REQUEST"
PYTHON = "ERR_LAZYGRAPH_LAUNCHER_PYTHON"
CHANGED = "ERR_LAZYGRAPH_LAUNCHER_CHANGED"
NOT_ALLOWED = "ERR_LAZYGRAPH_LAUNCHER_NOT_ALLOWED"
VARIABLE = "ERR_LAZYGRAPH_LAUNCHER_VARIABLE"
CUDA = "ERR_LAZYGRAPH_LAUNCHER_CUDA"
BUSY = "ERR_LAZYGRAPH_LAUNCHER_BUSY"
FAILED = "ERR_LAZYGRAPH_LAUNCHER_FAILED"
ADDRESS_IN_USE = "ERR_LAZYGRAPH_ADDRESS_IN_USE"

SENTENCE_CHARS_MAX = 600


class RefusedError(Exception):
    """What was expected, what came and what to do, as a sentence."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code

    def answer(self) -> dict[str, str]:
        """As the socket carries it."""
        return {"error": str(self)[:SENTENCE_CHARS_MAX], "code": self.code}
