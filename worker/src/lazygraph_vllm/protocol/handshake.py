"""What failed CURVE hand-shakes mean, and when to try again. Pure.

libzmq tells of a failure in one of three ways, by who noticed it first: a protocol error (one side
has keys and the other none), a refusal by the other side, or just a hang-up. After the first two it
never connects again by itself, after the third every 50 ms for ever. So each failed connection is
taken down here, and made anew ever more slowly: somebody may mend the keys while the engine serves.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

Failure = Literal["mechanism", "refused", "hang-up"]

RETRY_SECONDS_FIRST = 0.05
RETRY_SECONDS_MAX = 30.0
# A proxy whose controller is being restarted hangs up too: the engine must be back soon.
HANG_UP_SECONDS_MAX = 1.0
# One may be a controller that is being stopped.
HANG_UPS_TOLD = 2

CODE = "ERR_LAZYGRAPH_KEYS"


class Handshakes:
    """Counts the failures in a row of one connection."""

    def __init__(self, endpoint: str, has_keys: bool) -> None:
        """Begin without failures.

        Args:
            endpoint: for sentences.
            has_keys: whether this side uses CURVE.
        """
        self._endpoint = endpoint
        self._has_keys = has_keys
        self._failures: Counter[Failure] = Counter()
        self._told: Failure | None = None

    def succeeded(self) -> None:
        """Forget the failures."""
        self._failures.clear()
        self._told = None

    def failed(self, failure: Failure) -> tuple[float, str | None]:
        """Count one more.

        Returns:
            Seconds until the next try, and a sentence where there is something new to tell.
        """
        longest = HANG_UP_SECONDS_MAX if failure == "hang-up" else RETRY_SECONDS_MAX
        seconds = min(longest, RETRY_SECONDS_FIRST * 2 ** min(self._failures[failure], 16))
        self._failures[failure] += 1
        if failure == "hang-up" and (
            self._failures[failure] < HANG_UPS_TOLD or self._told is not None
        ):
            return seconds, None
        if failure == self._told:
            return seconds, None
        self._told = failure
        return seconds, f"{self._sentence(failure)} It is tried again. [{CODE}]"

    def _sentence(self, failure: Failure) -> str:
        at = f"the controller at {self._endpoint}"
        if failure == "refused":
            return (
                f"Expected {at} to know this engine's public key, but it refused it: run "
                "`lazygraph keys allow` there."
            )
        if not self._has_keys and failure == "hang-up":
            return (
                f"Expected {at} to end its hand-shake with an engine without CURVE keys, but it "
                "hung up: if it wants keys, set LAZYGRAPH_ENGINE_KEYS; a proxy hangs up as well "
                "while its controller is away."
            )
        if not self._has_keys:
            return (
                f"Expected {at} to take an engine without CURVE keys, but it wants them: set "
                "LAZYGRAPH_ENGINE_KEYS."
            )
        if failure == "mechanism":
            return (
                f"Expected {at} to have CURVE keys, as this engine does, but it has none: start "
                "it with --keys, or leave out the engine's."
            )
        return (
            f"Expected {at} to have the public key that this engine has of it, but it hung up in "
            "the hand-shake: compare the engine's server.key (LAZYGRAPH_SERVER_KEY) with "
            "`lazygraph keys show` there."
        )
