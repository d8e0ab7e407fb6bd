"""The plugin's decoder under fuzzing: frames on stdin, each after its length, a sum on stdout.

Whatever a frame is, it is a message that can be written again with the same meaning, of a type that
is not known, or refused with a ``FrameError`` of bounded length. Everything else is a fault.
"""

from __future__ import annotations

import json
import struct
import sys
from collections import Counter

from lazygraph_vllm.protocol.messages import FrameError, decode_to_engine, encode

SENTENCE_CHARS_MAX = 1000
FAULTS_MAX = 20


def outcome_of(frame: bytes) -> str:
    """``messages``, ``unknown`` or ``refused``; any other answer is a fault."""
    try:
        message = decode_to_engine(frame)
    except FrameError as error:
        length = len(str(error))
        return "refused" if length <= SENTENCE_CHARS_MAX else f"{length} characters of why"
    except BaseException as error:  # whatever it is, it would end the link's thread
        return f"it raised {type(error).__name__}: {error}"
    if message is None:
        return "unknown"
    try:
        again = decode_to_engine(encode(message))
    except Exception as error:
        return f"it can't be written again: {error}"
    return "messages" if again == message else "it means something else"


def main() -> None:
    counts = Counter({"frames": 0, "messages": 0, "unknown": 0, "refused": 0})
    faults: list[dict[str, str]] = []
    stream = sys.stdin.buffer
    while len(head := stream.read(4)) == 4:
        frame = stream.read(struct.unpack("<I", head)[0])
        counts["frames"] += 1
        outcome = outcome_of(frame)
        if outcome in counts:
            counts[outcome] += 1
        elif len(faults) < FAULTS_MAX:
            faults.append({"hex": frame[:4096].hex(), "why": outcome[:200]})
    print(json.dumps({**counts, "faults": faults}))


if __name__ == "__main__":
    main()
