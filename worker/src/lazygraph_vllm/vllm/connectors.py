"""Captures on an engine whose KV cache is offloaded to host memory. vLLM 0.31 to 0.33.

Two of vLLM's KV connectors do that, and both only start copies on streams of their own and ask
later whether they are done. Who makes their calls of CUDA is what matters here: while a stream is
captured, an event that another thread asks about, or memory that it pins, ends the capture.

- ``OffloadingConnector`` makes all of them on the thread that runs the model, in the step: before
  the forward pass, after it, or in a step without one. Between two steps there are none.
- ``SimpleCPUOffloadConnector`` hands its copies to a thread, in the order of a queue. That thread
  is let finish what it has; nobody but a step gives it more.

Copies that are under way are waited for: before it captures, ``rank/capture`` synchronises the
device. Stores that were put off to the next step are numbers of blocks until then. A capture writes
no block (its slots are padding), so that neither copies nor what they read or write can tell that
there was one.

A connector may also hang in every attention layer. In the graphs of these two there is nothing of
it, and during a capture it is switched off as vLLM itself does for its dummy runs.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

OFFLOADING = "OffloadingConnector"
SIMPLE = "SimpleCPUOffloadConnector"
CONNECTORS = (OFFLOADING, SIMPLE)
# Its own tier and no other: further ones have threads and devices of their own.
HOST_SPEC = "CPUOffloadingSpec"
HOST_WORKER = "CPUOffloadingWorker"
HOST_BACKEND = "DmaCopyBackend"
# How long the thread of copies may take to hand over to CUDA what it was given.
FENCE_SECONDS_MAX = 2.0


class ConnectorError(RuntimeError):
    """A KV connector is not in a state to capture beside; nothing was changed."""


# ------------------------------------------------------------------ configuration


def name_of(config: Any) -> str | None:
    """The KV connector of vLLM's ``VllmConfig``; ``None``: it has none, or one without a name."""
    name = getattr(config.kv_transfer_config, "kv_connector", None)
    return None if name is None else str(name)


def foreign(config: Any) -> str | None:
    """Why this KV connector is none that offloads to host memory; ``None``: it is, or is none."""
    transfer = config.kv_transfer_config
    if transfer is None:
        return None
    name = name_of(config)
    known = " and ".join(CONNECTORS)
    if getattr(transfer, "kv_connector_module_path", None):
        return f"the KV connector {name} of a module of its own, only vLLM's {known} are known"
    if name not in CONNECTORS:
        return f"the KV connector {name}, only {known} are known"
    role = getattr(transfer, "kv_role", "kv_both")
    if role != "kv_both":
        return f"the KV connector {name} in the role {role}, expected kv_both"
    return None


def other_tier(config: Any) -> str | None:
    """The tier besides host memory that KV blocks are offloaded to; ``None``: there is none."""
    extra = getattr(config.kv_transfer_config, "kv_connector_extra_config", None) or {}
    name = name_of(config)
    if name == OFFLOADING and (spec := extra.get("spec_name", HOST_SPEC)) != HOST_SPEC:
        return str(spec)
    if name == SIMPLE and (backend := extra.get("kv_offload_backend", "cpu")) != "cpu":
        return str(backend)
    return None


# ------------------------------------------------------------------ on a rank


def missing(runner: Any) -> str | None:
    """What this vLLM lacks for captures beside a connector, as a sentence; ``None``: nothing."""
    if getattr(runner.vllm_config, "kv_transfer_config", None) is None:
        return None
    active = getattr(runner, "kv_connector", None)
    for name in ("set_disabled", "_disabled", "kv_connector"):
        if not hasattr(active, name):
            return f"this vLLM's KV connector of a model runner lacks {name}"
    connector: Any = active.kv_connector  # type: ignore[union-attr]
    if not hasattr(connector, "has_connector_metadata"):
        return "this vLLM's KV connectors lack has_connector_metadata"
    kind = type(connector).__name__
    if kind == OFFLOADING:
        worker = getattr(getattr(connector, "connector_worker", None), "worker", None)
        return _expected(worker, HOST_WORKER)
    if kind == SIMPLE:
        handler = getattr(connector, "worker_handler", None)
        if handler is None:
            return None  # it does nothing: prefix caching is off
        backend = getattr(handler, "_backend", None)
        if reason := _expected(backend, HOST_BACKEND):
            return reason
        gone = [name for name in ("launch_copy", "_thread") if not hasattr(backend, name)]
        # One that is stuck before anything was captured leaves this engine to vLLM.
        return f"this vLLM's {HOST_BACKEND} lacks {gone[0]}" if gone else why_not_now(runner)
    return f"not supported: the KV connector {kind}"


def _expected(found: Any, name: str) -> str | None:
    kind = type(found).__name__
    return None if kind == name else f"this vLLM offloads by {kind}, expected {name}"


def why_not_now(runner: Any) -> str | None:
    """Why nothing may be captured beside this runner's connector now, as a sentence.

    Waits until the connector's thread has nothing left to call CUDA for, at the longest
    ``FENCE_SECONDS_MAX``. What it has started may still be under way on the device.
    """
    active = _active(runner)
    if active is None:
        return None
    connector = active.kv_connector
    if connector.has_connector_metadata():
        return "the KV connector is in the middle of a step"
    backend = _backend(active)
    return None if backend is None else why_never(runner) or _settle(backend)


def why_never(runner: Any) -> str | None:
    """Why nothing can be captured beside this runner's connector any more, as a sentence."""
    backend = _backend(_active(runner))
    if backend is None or (backend._thread is not None and backend._thread.is_alive()):
        return None
    return "the KV connector's thread of copies has ended"


@contextlib.contextmanager
def apart(runner: Any) -> Iterator[None]:
    """Inside, the connector calls nothing and is called by nothing.

    Raises:
        ConnectorError: it can't be had quiet; see ``why_not_now``.
    """
    active = _active(runner)
    if active is None:
        yield
        return
    if reason := why_not_now(runner):
        raise ConnectorError(reason)
    was_disabled = active._disabled
    if not was_disabled:
        active.set_disabled(True)
    try:
        yield
    finally:
        if not was_disabled:
            active.set_disabled(False)


def _active(runner: Any) -> Any:
    """VLLM's wrapper of a connector; ``None`` where there is no connector behind it."""
    active = getattr(runner, "kv_connector", None)
    return active if hasattr(active, "kv_connector") else None


def _backend(active: Any) -> Any:
    """What has a thread for copies, of this wrapper's connector; ``None``: nothing."""
    connector = getattr(active, "kv_connector", None)
    return getattr(getattr(connector, "worker_handler", None), "_backend", None)


class _Fence:
    """Stands in for a list of finished copies: what is put into it says that the queue is done."""

    def __init__(self) -> None:
        self.passed = threading.Event()

    def append(self, _: Any) -> None:
        """Called by the connector's thread, after its last call of CUDA for this copy."""
        self.passed.set()


def _settle(backend: Any) -> str | None:
    """Let the thread of copies finish its queue; why it doesn't."""
    earlier = getattr(backend, "lazygraph_fence", None)
    if earlier is not None and not earlier.passed.is_set():
        # It was waited for once: whoever asks again must not hold the engine up again.
        return "the KV connector's thread of copies doesn't answer"
    fence = backend.lazygraph_fence = _Fence()
    # A copy of no block, by vLLM's own queue: it comes after all that were given before.
    backend.launch_copy([], [], is_store=False, event_idx=-1, events_list=fence)
    if fence.passed.wait(FENCE_SECONDS_MAX):
        return None
    return (
        f"the KV connector's thread of copies didn't answer within {FENCE_SECONDS_MAX:g} s: "
        "look for its error in vLLM's log"
    )
