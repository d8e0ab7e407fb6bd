"""The protocol's messages, version 2: the mirror of ``src/wire/protocol.ts``.

Units and meaning of every field are documented there. Frames are msgpack maps with camelCase keys;
``type`` names the message. Both test suites read ``test/golden/frames.json.gz``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union

import msgspec
from msgspec import Meta

from .graph import Graph as Graph
from .graph import StepCount as StepCount
from .texts import ID_CHARS_MAX, TEXT_CHARS_MAX

PROTOCOL_VERSION = 2
# The oldest version that is still spoken, where ``graph.version_for`` allows.
PROTOCOL_VERSION_MIN = 1

FRAME_BYTES_MAX = 1 << 20
GRAPHS_MAX = 4096
TABLE_ROWS_MAX = 4096
ROW_GRAPHS_MAX = 64
TIERS_MAX = 64
STEPS_PER_BATCH_MAX = 512
TOKENS_MAX = 1 << 20
# Of why a frame is refused.
WHY_CHARS_MAX = 300
COMMANDS_WAITING_MAX = 64
# Entries of ``orders.pin`` and of ``orders.exclude``.
RULES_MAX = 256
# A year, of a time for captures.
SECONDS_MAX = 31_536_000
# A day: no start captures longer.
BUDGET_MS_MAX = 86_400_000
RETRY_SECONDS_MAX = 3600

Mode = Literal["eager", "lazy", "idle"]
Reserve = Literal["none", "least", "top", "plan"]
Phase = Literal["loading", "capturing", "serving", "stock", "stopping"]
GraphId = Annotated[str, Meta(min_length=1, max_length=ID_CHARS_MAX)]
Text = Annotated[str, Meta(max_length=TEXT_CHARS_MAX)]
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Seconds = Annotated[float, Meta(ge=0, le=SECONDS_MAX)]
Rules = Annotated[tuple[GraphId, ...], Meta(max_length=RULES_MAX)]
SomeGraphs = Annotated[tuple[GraphId, ...], Meta(min_length=1, max_length=GRAPHS_MAX)]


def _check_apart(names: Sequence[str], field: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"expected {field} to name a graph once, got {name!r} again")
        seen.add(name)


class RankMemory(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What one rank sees of its GPU, in bytes."""

    rank: int
    gpu_uuid: str
    gpu_name: str
    total_bytes: int
    free_bytes: int
    reserved_bytes: int
    pool_bytes: int
    activation_peak_bytes: int
    activation_held_bytes: int | None = None
    # Not held to the peak, as the field before it is.
    cached_bytes: int | None = None


class Captured(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A captured graph and what it cost."""

    graph: str
    ms: float
    bytes: int


class Reserved(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What was taken off the KV cache, on each rank."""

    mode: Reserve
    # For graphs.
    bytes: int
    # Tokens of the KV cache that all of it costs.
    kv_tokens: int
    # For what serving takes beyond vLLM's budget, where the utilisation leaves too little for it.
    serving_bytes: int = 0


class _Message(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="type", omit_defaults=True
):
    """Base of all messages: its ``type`` field is the tag given by each subclass."""


class Orders(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What its operator ordered for an engine, which tells it to the next controller."""

    serial: Count = 0
    mode: Mode | None = None
    frozen: Text | None = None
    settle_within_seconds: Seconds | None = None
    pin: Rules | None = None
    exclude: Rules | None = None
    graphs_max: Annotated[int, Meta(ge=1, le=GRAPHS_MAX)] | None = None


class KeyProof(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """That the sender of a ``hello`` has the secret key to this public one."""

    key: str
    mac: str


# ------------------------------------------------------------------ engine → controller


class Hello(_Message, tag="hello", frozen=True, kw_only=True):
    """First message of a session."""

    version_min: int
    version_max: int
    engine: str
    session: str
    plugin_version: str
    vllm_version: str
    model: str
    host: str
    pid: int
    phase: Phase
    mode: Mode
    tensor_parallel: int
    pipeline_parallel: int
    simulated: str | None = None
    # Which of our adapters to vLLM serves this engine.
    adapter: str | None = None
    # It takes ``sleep`` and ``wake``; absent: it doesn't.
    sleeps: bool | None = None
    # The highest one that has welcomed us; absent: none has.
    incarnation: int | None = None
    # What it was told last.
    orders: Orders | None = None
    # Whose it is; absent: it has no keys, or can't prove one.
    proof: KeyProof | None = None


class Inventory(_Message, tag="inventory", frozen=True, kw_only=True):
    """Everything the scheduler needs, sent before the first capture."""

    phase: Phase
    graphs: tuple[Graph, ...]
    captured: tuple[Captured, ...]
    ranks: tuple[RankMemory, ...]
    cudagraph_mode: str
    layers: int
    # Its attention is multi-head latent; absent: it is not.
    latent: bool | None = None
    max_requests: int
    max_batched_tokens: int
    kv_cache_tokens: int
    epoch: int
    unsupported: str | None = None
    reserve: Reserved | None = None
    tiers: tuple[tuple[str, ...], ...] | None = None
    # What of the engine sleeps, such as ``weights``; absent: nothing.
    asleep: tuple[str, ...] | None = None
    # Why it captures no more; absent: it may.
    frozen: str | None = None
    # Since the time for captures began: at ready, or with the last order of a mode.
    settling_seconds: float | None = None


class PhaseSeconds(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A phase of the start, and what of it was in nothing inside it."""

    name: str
    seconds: float


class Ready(_Message, tag="ready", frozen=True, kw_only=True):
    """Sent once, when the engine starts to serve."""

    capture_seconds: float
    captured: tuple[Captured, ...]
    ranks: tuple[RankMemory, ...]
    epoch: int
    # Of ``capture_seconds``, those in warm-up runs.
    warm_up_seconds: float | None = None
    # Graphs of ``start`` left out because its budget was used.
    skipped: tuple[str, ...] | None = None
    # What the start spent so far, by phase; absent: it wasn't timed.
    phases: tuple[PhaseSeconds, ...] | None = None


Outcome = Literal["captured", "already", "deferred", "refused", "failed"]
Refusal = Literal["headroom", "other"]


class Result(_Message, tag="result", frozen=True, kw_only=True):
    """Answer to a capture command."""

    command: int
    graph: str
    outcome: Outcome
    reason: str | None = None
    refusal: Refusal | None = None
    stall_ms: float
    ms: float
    bytes: int
    ranks: tuple[RankMemory, ...]
    epoch: int


class Dropped(_Message, tag="dropped", frozen=True, kw_only=True):
    """Answer to a drop command."""

    command: int
    outcome: Literal["dropped", "refused", "deferred", "failed"]
    graphs: tuple[str, ...]
    freed_bytes: int
    reason: str | None = None
    ranks: tuple[RankMemory, ...]
    epoch: int


class Slept(_Message, tag="slept", frozen=True, kw_only=True):
    """Answer to a sleep or a wake."""

    command: int
    outcome: Literal["asleep", "awake", "refused", "failed"]
    # What sleeps now.
    asleep: tuple[str, ...]
    seconds: float
    # Of graphs that were dropped, the smallest over the ranks.
    freed_bytes: int = 0
    reason: str | None = None
    ranks: tuple[RankMemory, ...]
    epoch: int


class Telemetry(_Message, tag="telemetry", frozen=True, kw_only=True):
    """Demand since the last batch."""

    sequence: int
    dropped: int
    steps: tuple[StepCount, ...]
    running: int
    waiting: int


class Edge(_Message, tag="edge", frozen=True, kw_only=True):
    """The engine ran out of work, or has work again."""

    state: Literal["idle", "busy"]
    running: int
    waiting: int


class Heartbeat(_Message, tag="heartbeat", frozen=True, kw_only=True):
    """Sent both ways."""

    ranks: tuple[RankMemory, ...] | None = None
    # How an engine stands, so that its controller sees when a message was lost.
    phase: Phase | None = None
    mode: Mode | None = None
    epoch: int | None = None
    captured: Count | None = None
    state: Literal["idle", "busy"] | None = None
    orders: Count | None = None
    frozen: bool = False
    asleep: bool = False


class Problem(_Message, tag="problem", frozen=True, kw_only=True):
    """A message that is valid msgpack but not valid for this engine."""

    code: str
    message: str


class Goodbye(_Message, tag="goodbye", frozen=True, kw_only=True):
    """The engine ends."""

    reason: str


FromEngine = Union[  # noqa: UP007 - msgspec wants one union object
    Hello, Inventory, Ready, Result, Dropped, Slept, Telemetry, Edge, Heartbeat, Problem, Goodbye
]

# ------------------------------------------------------------------ controller → engine


class Welcome(_Message, tag="welcome", frozen=True, kw_only=True):
    """Accepts a hello."""

    version: Annotated[int, Meta(ge=0, le=65535)]
    incarnation: Count
    heartbeat_ms: Annotated[int, Meta(ge=10, le=600_000)]
    mode: Mode
    reserve: Reserve | None = None
    reserve_bytes: Count | None = None
    margin_bytes: Count | None = None
    # In the place of those before; absent: they stay.
    orders: Orders | None = None


class Refuse(_Message, tag="refuse", frozen=True, kw_only=True):
    """Ends the session for good."""

    code: Annotated[str, Meta(max_length=ID_CHARS_MAX)]
    message: Text


class Later(_Message, tag="later", frozen=True, kw_only=True):
    """There is no place now: say hello again after a while."""

    code: Annotated[str, Meta(max_length=ID_CHARS_MAX)]
    message: Text
    retry_seconds: Annotated[int, Meta(ge=1, le=RETRY_SECONDS_MAX)]


class Start(_Message, tag="start", frozen=True, kw_only=True):
    """Which graphs to capture before ready, in this order."""

    graphs: Annotated[tuple[GraphId, ...], Meta(max_length=GRAPHS_MAX)]
    tiers: Annotated[tuple[SomeGraphs, ...], Meta(max_length=TIERS_MAX)] | None = None
    exclude: Annotated[tuple[GraphId, ...], Meta(max_length=GRAPHS_MAX)] | None = None
    graphs_max: Annotated[int, Meta(ge=1, le=GRAPHS_MAX)] | None = None
    # Then these, as many as the budget holds: milliseconds of capture, warm-up runs included, or
    # our own rule. Version 2.
    more: Annotated[tuple[GraphId, ...], Meta(max_length=GRAPHS_MAX)] | None = None
    budget_ms: Annotated[int, Meta(ge=0, le=BUDGET_MS_MAX)] | None = None

    def __post_init__(self) -> None:
        """A graph has one pool, and is excluded once."""
        _check_apart([name for tier in self.tiers or () for name in tier], "tiers")
        _check_apart(self.exclude or (), "exclude")


class Capture(_Message, tag="capture", frozen=True, kw_only=True):
    """One graph, on all ranks, between two steps."""

    command: Count
    graph: GraphId
    when_idle: bool
    need_bytes: Count | None = None


class Drop(_Message, tag="drop", frozen=True, kw_only=True):
    """All captured graphs of one or more tiers, on all ranks, between two steps."""

    command: Count
    graphs: SomeGraphs

    def __post_init__(self) -> None:
        """A graph goes once."""
        _check_apart(self.graphs, "graphs")


class DispatchRow(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """For steps of up to ``up_to`` tokens: graphs in order of preference."""

    up_to: Annotated[int, Meta(ge=0, le=TOKENS_MAX)]
    graphs: Annotated[tuple[GraphId, ...], Meta(max_length=ROW_GRAPHS_MAX)]


Rows = Annotated[tuple[DispatchRow, ...], Meta(max_length=TABLE_ROWS_MAX)]


class Dispatch(_Message, tag="dispatch", frozen=True, kw_only=True):
    """Which graph serves which step."""

    uniform: Rows
    mixed: Rows


class Freeze(_Message, tag="freeze", frozen=True, kw_only=True):
    """Ends captures until the mode changes."""

    reason: Text
    orders: Orders | None = None


class SetMode(_Message, tag="mode", frozen=True, kw_only=True):
    """Changes the mode of a running engine."""

    mode: Mode
    orders: Orders | None = None
    # How long ago the time for captures began, by the controller's word.
    settling_seconds: Seconds | None = None


class Sleep(_Message, tag="sleep", frozen=True, kw_only=True):
    """Gives memory back once what runs has ended: level 1 keeps the weights on the host."""

    command: Count
    level: Annotated[int, Meta(ge=1, le=2)]
    # The graphs' memory, too.
    drop_graphs: bool = False


class Wake(_Message, tag="wake", frozen=True, kw_only=True):
    """Serves again."""

    command: Count
    # Absent: after a sleep of level 2 that we were told.
    reload_weights: bool | None = None


class Resync(_Message, tag="resync", frozen=True, kw_only=True):
    """Asks for a fresh inventory; with ``hello`` for a new hand-shake before it."""

    hello: bool = False


ToEngine = Union[  # noqa: UP007
    Welcome,
    Refuse,
    Later,
    Start,
    Capture,
    Drop,
    Dispatch,
    Freeze,
    SetMode,
    Sleep,
    Wake,
    Resync,
    Heartbeat,
]


class FrameError(ValueError):
    """A frame that is not a valid message; the text says what was expected and what came."""


_encoder = msgspec.msgpack.Encoder()
_to_engine = msgspec.msgpack.Decoder(ToEngine)
_from_engine = msgspec.msgpack.Decoder(FromEngine)
_any = msgspec.msgpack.Decoder()
_TO_ENGINE_TYPES = frozenset(
    (
        "welcome",
        "refuse",
        "later",
        "start",
        "capture",
        "drop",
        "dispatch",
        "freeze",
        "mode",
        "sleep",
        "wake",
        "resync",
        "heartbeat",
    )
)


def encode(message: FromEngine | ToEngine) -> bytes:
    """Encode one message as one frame.

    An error's text may quote a path whose bytes are no UTF-8: that is no end of the link.
    """
    try:
        return _encoder.encode(message)
    except UnicodeEncodeError:
        return _encoder.encode(_as_utf_8(msgspec.to_builtins(message)))


def _as_utf_8(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {key: _as_utf_8(each) for key, each in value.items()}
    return [_as_utf_8(each) for each in value] if isinstance(value, list | tuple) else value


def decode_to_engine(frame: bytes) -> ToEngine | None:
    """Decode a frame from the controller; ``None`` for a type this version doesn't know.

    Raises:
        FrameError: not a valid message.
    """
    if len(frame) > FRAME_BYTES_MAX:
        raise FrameError(f"expected a frame of at most {FRAME_BYTES_MAX} bytes, got {len(frame)}")
    try:
        return _to_engine.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if _unknown_type(frame):
            return None
        # It may quote what came, all of it.
        why = str(error)[:WHY_CHARS_MAX]
        raise FrameError(
            f"expected a message of protocol {PROTOCOL_VERSION}, got: {why}"
        ) from error


def decode_from_engine(frame: bytes) -> FromEngine:
    """Decode a frame that an engine sent; for tests."""
    return _from_engine.decode(frame)


def _unknown_type(frame: bytes) -> bool:
    try:
        value: Any = _any.decode(frame)
    except Exception:
        return False
    kind = value.get("type") if isinstance(value, dict) else None
    return isinstance(kind, str) and kind not in _TO_ENGINE_TYPES
