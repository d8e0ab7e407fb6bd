"""Both sides of the protocol read the same golden frames."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lazygraph_vllm.protocol.graph import covers
from lazygraph_vllm.protocol.messages import (
    FRAME_BYTES_MAX,
    ROW_GRAPHS_MAX,
    TABLE_ROWS_MAX,
    Capture,
    Captured,
    Dispatch,
    DispatchRow,
    FrameError,
    FromEngine,
    Graph,
    Problem,
    RankMemory,
    StepCount,
    ToEngine,
    decode_from_engine,
    decode_to_engine,
    encode,
)

FRAMES = Path(__file__).parents[2] / "test" / "golden" / "frames.json.gz"
GOLDEN = json.loads(gzip.decompress(FRAMES.read_bytes()))


def named(cases: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[c["name"] for c in cases])


def frame_of(case: dict[str, Any]) -> bytes:
    frame = bytes.fromhex(case["hex"])
    return frame + bytes(case.get("paddedBytes", len(frame)) - len(frame))


@named(GOLDEN["frames"])
def test_a_golden_frame_means_what_it_says(case: dict[str, Any]) -> None:
    decode = decode_to_engine if case["direction"] == "to-engine" else decode_from_engine
    message = decode(frame_of(case))
    assert message is not None
    assert msgspec.msgpack.decode(encode(message)) == case["message"]


def test_every_message_has_a_golden_frame() -> None:
    for union, direction in ((FromEngine, "from-engine"), (ToEngine, "to-engine")):
        tags = {t.__struct_config__.tag for t in union.__args__}
        seen = {c["message"]["type"] for c in GOLDEN["frames"] if c["direction"] == direction}
        assert tags == seen, direction


# An engine never receives the other direction: those checks are the controller's.
FOREIGN = [c for c in GOLDEN["foreign"] if c["direction"] == "to-engine"]


@named(FOREIGN)
def test_a_foreign_frame_ends_as_stated(case: dict[str, Any]) -> None:
    if case["outcome"] == "error":
        with pytest.raises(FrameError) as error:
            decode_to_engine(frame_of(case))
        assert str(error.value).startswith("expected ")
    elif case["outcome"] == "unknown":
        assert decode_to_engine(frame_of(case)) is None
    else:
        message = decode_to_engine(frame_of(case))
        assert message is not None and msgspec.msgpack.decode(encode(message)) == case["message"]


def test_the_foreign_frames_cover_each_outcome() -> None:
    assert {c["outcome"] for c in FOREIGN} == {"error", "unknown", "message"}


@pytest.mark.parametrize(
    ("change", "fine"),
    [
        ({"command": 0}, True),
        ({"command": 2**53 - 1}, True),
        ({"command": 2**53}, False),
        ({"command": -1}, False),
        ({"command": 1.0}, False),
        ({"graph": "g" * 128}, True),
        ({"graph": "g" * 129}, False),
        ({"graph": ""}, False),
        ({"whenIdle": None}, False),
    ],
)
def test_bounds_of_a_capture(change: dict[str, Any], fine: bool) -> None:
    fields = {"type": "capture", "command": 1, "graph": "FULL:1", "whenIdle": True, **change}
    frame = msgspec.msgpack.encode(fields)
    if fine:
        assert isinstance(decode_to_engine(frame), Capture)
    else:
        with pytest.raises(FrameError):
            decode_to_engine(frame)


@pytest.mark.parametrize(
    ("rows", "graphs", "fine"),
    [
        (TABLE_ROWS_MAX, 1, True),
        (TABLE_ROWS_MAX + 1, 1, False),
        (1, ROW_GRAPHS_MAX, True),
        (1, ROW_GRAPHS_MAX + 1, False),
    ],
)
def test_bounds_of_a_table(rows: int, graphs: int, fine: bool) -> None:
    row = [{"upTo": n + 1, "graphs": ["g"] * graphs} for n in range(rows)]
    frame = msgspec.msgpack.encode({"type": "dispatch", "uniform": row, "mixed": []})
    if fine:
        assert isinstance(decode_to_engine(frame), Dispatch)
    else:
        with pytest.raises(FrameError):
            decode_to_engine(frame)


def test_a_frame_of_the_largest_size_is_decoded_and_one_byte_more_is_not() -> None:
    def frame(size: int) -> bytes:
        body = {"type": "heartbeat", "padding": b""}
        over = len(msgspec.msgpack.encode({**body, "padding": bytes(1 << 16)})) - (1 << 16)
        return msgspec.msgpack.encode({**body, "padding": bytes(size - over)})

    assert len(frame(FRAME_BYTES_MAX)) == FRAME_BYTES_MAX
    assert decode_to_engine(frame(FRAME_BYTES_MAX)) is not None
    with pytest.raises(FrameError, match=f"at most {FRAME_BYTES_MAX} bytes"):
        decode_to_engine(frame(FRAME_BYTES_MAX + 1))


def test_deep_nesting_is_an_error_and_not_a_crash() -> None:
    frame = b"\x82\xa4type\xa9heartbeat\xa1x" + b"\x91" * 100_000 + b"\xc0"
    with pytest.raises(FrameError):
        decode_to_engine(frame)


COVERS = json.loads(
    gzip.decompress((Path(__file__).parents[2] / "test/golden/covers.json.gz").read_bytes())
)


@named(COVERS)
def test_which_steps_a_graph_covers_is_one_rule_on_both_sides(case: dict[str, Any]) -> None:
    counts = {"served": "", "count": 1, "seconds": 0, "timed": 0, "contextTokens": 0}
    step = msgspec.convert({**counts, **case["step"]}, StepCount)
    assert covers(msgspec.convert(case["graph"], Graph), step) is case["covers"]


def test_what_ranks_answer_can_be_pickled() -> None:
    for value in (
        Graph(id="FULL:8", kind="FULL", tokens=8, requests=8, uniform=1),
        Captured(graph="FULL:8", ms=1.5, bytes=-3),
        StepCount(
            tokens=1, requests=1, uniform=1, served="", count=1, seconds=0, timed=0,
            context_tokens=0,
        ),
        RankMemory(
            rank=1, gpu_uuid="GPU-1", gpu_name="x", total_bytes=2**40, free_bytes=1,
            reserved_bytes=1, pool_bytes=1, activation_peak_bytes=1,
        ),
        Dispatch(uniform=(DispatchRow(up_to=8, graphs=("FULL:8",)),), mixed=()),
    ):  # fmt: skip
        assert pickle.loads(pickle.dumps(value)) == value


def test_a_text_that_is_no_utf_8_is_sent_with_marks_in_it() -> None:
    frame = encode(Problem(code="C", message="no such file: \udcff"))
    assert decode_from_engine(frame) == Problem(code="C", message="no such file: ?")
