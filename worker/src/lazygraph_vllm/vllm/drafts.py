"""The drafter's side of speculative decoding: its graphs, captured by need. vLLM 0.31 to 0.33.

EAGLE, EAGLE3 and MTP with one module have two graph managers beside the target's: one runs the
drafter over the target's batch, in the target's shape and with the target's attention metadata
("prefill"), one token by token over the requests ("decode", metadata of its own). N-gram drafts and
draft models have none: vLLM runs these without graphs, and only the target's differ, by their query
length. What else vLLM drafts with is left to it.

Every capture is vLLM's own ``speculator.capture()`` run again, so that what a drafter sets around
its captures (MTP's flags of the indexer, baked into a graph) is set around ours. Its managers then
ask us, and get the graphs that are wanted of their list.

Between two steps one thing must not be as at the start. vLLM points every dummy row at request 0,
whose tables are empty before the first one. Later a live request may be in that place: an ungraphed
run would write its drafts' probabilities, by which its next step is accepted, and its blocks of the
KV cache. So here every dummy row belongs to no request (-1), which vLLM's kernels leave out; a
graph records the buffer, not what is in it, and each step fills it first.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from ..rules.difference import largest_difference
from ..rules.pairs import DECODE, PREFILL, Draft, Role

PACKAGE = "vllm.v1.worker.gpu.spec_decode"
# What of ``SpeculativeConfig.method`` is thought through here.
METHODS_WITH_GRAPHS = ("eagle", "eagle3", "mtp")
METHODS = (*METHODS_WITH_GRAPHS, "ngram", "ngram_gpu", "draft_model")
# vLLM's classes, by what they have of graphs.
PAIRED = ("EagleSpeculator", "MTPSpeculator")
WITHOUT_GRAPHS = ("NgramGPUSpeculator", "StandaloneARSpeculator", "PlainDraftModelSpeculator")
MANAGERS: Mapping[Role, str] = {
    PREFILL: "prefill_cudagraph_manager",
    DECODE: "decode_cudagraph_manager",
}
# Of a paired drafter: what is called, read or filled here.
HOOKS = (
    "capture",
    "init_cudagraph_manager",
    "idx_mapping",
    "last_token_indices",
    "current_draft_step",
    "draft_tokens",
    "hidden_states",
    "input_buffers",
    "num_speculative_steps",
    "draft_attn_layer_names",
    "on_prefill_begin",
    "on_prefill_end",
    "on_multi_step_decode_begin",
    "on_multi_step_decode_end",
)

Lists = Mapping[Any, Sequence[Any]]


def speculator_of(runner: Any) -> Any:
    """The drafter of this runner that has graphs; ``None``: there is none."""
    speculator = getattr(runner, "speculator", None)
    return speculator if type(speculator).__name__ in PAIRED else None


def missing(runner: Any) -> str | None:
    """Why this runner's drafts can't be captured by need; ``None`` if they can, or there are none.

    Looked at before anything is changed: the target's graphs must have their partners.
    """
    speculator = getattr(runner, "speculator", None)
    if speculator is None:
        return None
    kind = type(speculator)
    if getattr(runner, "adaptive_verification", None) is not None:
        return "not supported: adaptive verification"
    known = kind.__module__.startswith(PACKAGE) and kind.__name__ in (*PAIRED, *WITHOUT_GRAPHS)
    if not known:
        return f"not supported: speculative decoding by vLLM's {kind.__name__}"
    if kind.__name__ in WITHOUT_GRAPHS:
        return None
    gone = [name for name in (*HOOKS, *MANAGERS.values()) if not hasattr(speculator, name)]
    if gone:
        return f"this vLLM's {kind.__name__} lacks {gone[0]}"
    if not hasattr(runner, "_draft_workspace_lane"):
        return "this vLLM's model runner lacks _draft_workspace_lane"
    return _unlike(runner.cudagraph_manager, getattr(speculator, MANAGERS[PREFILL]))


def _unlike(target: Any, prefill: Any) -> str | None:
    """Why the drafter's graphs are not partners of the target's."""
    if prefill is None:
        return "this vLLM's drafter has no graph manager yet"
    own, theirs = (
        {mode.name: set(descs) for mode, descs in manager._capture_descs.items()}
        for manager in (prefill, target)
    )
    if own == theirs:
        return None
    return "this vLLM plans other graphs for the drafter than for its target"


def planning_speculator(runner: Any) -> Any:
    """One whose managers only say which graphs there will be, before there are any."""
    import copy

    # vLLM's own method, on a copy: its attributes are set there and go with it.
    probe = copy.copy(speculator_of(runner))
    probe.init_cudagraph_manager(runner.vllm_config.compilation_config.cudagraph_mode)
    return probe


def vocabulary(config: Any) -> int:
    """Tokens that a drafter with graphs chooses from; 0: there is none."""
    speculative = getattr(config, "speculative_config", None)
    if speculative is None or speculative.method not in METHODS_WITH_GRAPHS:
        return 0
    return int(speculative.draft_model_config.get_vocab_size())


def _managers(speculator: Any) -> dict[Role, Any]:
    """By role; one token of drafts needs no decode run, and then nothing of it is captured."""
    roles: Sequence[Role] = (PREFILL,) if speculator.num_speculative_steps == 1 else tuple(MANAGERS)
    found: dict[Role, Any] = {role: getattr(speculator, MANAGERS[role]) for role in roles}
    return {role: manager for role, manager in found.items() if manager is not None}


def managers_of(runner: Any) -> list[Any]:
    """The graph managers of this runner's drafter; none where it has none."""
    speculator = speculator_of(runner)
    return [] if speculator is None else list(_managers(speculator).values())


class Drafter:
    """The graphs of one rank's drafter.

    Attributes:
        managers: vLLM's graph managers, by role.
        planned: vLLM's descriptors of each one's graphs, by mode.
    """

    def __init__(self, speculator: Any, runner: Any, identify: Callable[[Any], str]) -> None:
        """Nothing is changed before ``take_over``.

        Args:
            speculator: vLLM's, with managers.
            runner: vLLM's ``GPUModelRunner``.
            identify: a descriptor's id.
        """
        self.speculator = speculator
        self.managers = _managers(self.speculator)
        self.planned: dict[Role, dict[Any, list[Any]]] = {
            role: {mode: list(descs) for mode, descs in manager._capture_descs.items()}
            for role, manager in self.managers.items()
        }
        self._runner = runner
        self._identify = identify
        self._descs: dict[Draft, Any] = {
            Draft(role, identify(desc)): desc
            for role, lists in self.planned.items()
            for descs in lists.values()
            for desc in descs
        }
        self._factories: dict[Role, Any] = {}
        self._wanted: frozenset[Draft] = frozenset()
        self._only_warms = False
        self._done: list[Draft] = []

    # -------------------------------------------------------------- what there is

    @property
    def layers(self) -> int:
        """Decoder layers of the drafter."""
        return max(1, len(self.speculator.draft_attn_layer_names))

    @property
    def decode_passes(self) -> int:
        """How often one decode graph runs the drafter: all of its steps, or one."""
        fused = getattr(self.speculator, "supports_decode_metadata_update", None)
        if fused is None:  # 0.31
            fused = getattr(self.speculator, "use_fused_multi_step_decode", False)
        return max(1, self.speculator.num_speculative_steps - 1) if fused else 1

    @property
    def has_decodes(self) -> bool:
        """Whether it has decode graphs at all."""
        return any(self.planned.get(DECODE, {}).values())

    def drafts(self, role: Role) -> list[Draft]:
        """All planned graphs of a role, largest first."""
        return [draft for draft in self._descs if draft.role == role]

    def desc(self, draft: Draft) -> Any:
        """VLLM's descriptor."""
        return self._descs[draft]

    def holds(self, draft: Draft) -> bool:
        """Whether it is there, as far as vLLM's manager can say: pieces belong to no manager."""
        desc = self._descs[draft]
        return desc.cg_mode.name == "PIECEWISE" or desc in self.managers[draft.role].graphs

    # -------------------------------------------------------------- taking over

    def take_over(self, dispatch: Mapping[Role, Callable[[Any], Any]]) -> None:
        """From now on these managers capture what is wanted and dispatch by ``dispatch``."""
        for role, manager in self.managers.items():
            manager.lazygraph_capture = self._hook(role)
            manager.lazygraph_dispatch = dispatch[role]

    # -------------------------------------------------------------- capturing

    def capture(self, drafts: Collection[Draft], *, only_warm: bool = False) -> None:
        """Capture these graphs, as vLLM would, inside ``Adapter.capturing``.

        Args:
            drafts: which; one that is there already is left as it is.
            only_warm: run them without graphs instead, to compile kernels and size workspaces.

        Raises:
            DraftsError: vLLM did not come to all of them.
        """
        from vllm.v1.worker.workspace import use_workspace_lane

        self._wanted, self._only_warms, self._done = frozenset(drafts), only_warm, []
        try:
            with _quiet(self.speculator), use_workspace_lane(self._runner._draft_workspace_lane):
                self.speculator.capture()
        finally:
            left = self._wanted.difference(self._done)
            self._wanted, self._only_warms = frozenset(), False
        if left:
            names = ", ".join(sorted(f"{draft.role} {draft.graph}" for draft in left))
            raise DraftsError(f"vLLM's drafter did not capture {names}")

    def _hook(self, role: Role) -> Callable[[Any, Any, str], None]:
        """Stands in for this manager's ``CudaGraphManager.capture``."""

        def capture(original: Any, create_forward_fn: Any, progress_bar_desc: str) -> None:
            manager = self.managers[role]
            self._factories[role] = create_forward_fn
            self.disown()
            chosen = {
                mode: some
                for mode, descs in self.planned[role].items()
                if (some := [d for d in descs if Draft(role, self._identify(d)) in self._wanted])
            }
            drafts = [Draft(role, self._identify(d)) for descs in chosen.values() for d in descs]
            if self._only_warms:
                for draft in drafts:
                    desc = self._descs[draft]
                    create_forward_fn(desc, True)(type(desc.cg_mode).NONE)
            elif drafts:
                manager._capture_descs = chosen
                try:
                    original(manager, create_forward_fn, progress_bar_desc)
                finally:
                    manager._capture_descs = self.planned[role]
            self._done += drafts

        return capture

    def disown(self) -> None:
        """Let no dummy row belong to a request: see the module."""
        self.speculator.idx_mapping.fill_(-1)

    def forget(self, draft: Draft) -> None:
        """Drop what was recorded; the pieces of a PIECEWISE graph go with its target's."""
        self.managers[draft.role].graphs.pop(self._descs[draft], None)

    # -------------------------------------------------------------- checking a graph

    def difference(self, draft: Draft) -> float | None:
        """Run one graph, and its inputs without it: the largest relative difference.

        Hidden states are compared, and drafts of those that the run leaves none of: a graph whose
        argmax falls differently on a tie is no wrong one, so few of them may differ.

        Returns:
            ``None``: the run without a graph has no numbers to compare with.
        """
        import torch
        from vllm.v1.worker.workspace import use_workspace_lane

        desc, manager = self._descs[draft], self.managers[draft.role]
        requests = desc.num_reqs or min(desc.num_tokens, manager.max_num_reqs)
        mode = type(desc.cg_mode)
        graphed = mode.PIECEWISE if desc.cg_mode.name == "PIECEWISE" else None
        with (
            torch.inference_mode(),
            use_workspace_lane(self._runner._draft_workspace_lane),
            self._around(draft.role, requests),
        ):
            outputs: list[tuple[Any, Any]] = []
            for recorded in (False, True):
                # What a run reads it also writes: both begin with the same.
                run = self._factories[draft.role](desc, True)
                self._fill(draft.role, desc.num_tokens, requests)
                if not recorded:
                    run(mode.NONE)
                elif graphed is not None:
                    run(graphed)
                else:
                    manager.graphs[desc].replay()
                drawn = self.speculator
                outputs.append(
                    (
                        drawn.hidden_states[:requests].clone(),
                        drawn.draft_tokens[:requests].clone(),
                    )
                )
            torch.cuda.synchronize()
        (expected, tokens), (got, got_tokens) = outputs
        worst = largest_difference(got, expected)
        if worst is None:
            return None
        if float((tokens != got_tokens).float().mean()) > TOKENS_APART_MAX:
            return float("inf")
        return float("inf") if math.isnan(worst) else worst

    @contextlib.contextmanager
    def _around(self, role: Role, requests: int) -> Iterator[None]:
        """What vLLM does around such a run, at a capture and in a step."""
        name = "prefill" if role == PREFILL else "multi_step_decode"
        getattr(self.speculator, f"on_{name}_begin")(requests)
        try:
            yield
        finally:
            getattr(self.speculator, f"on_{name}_end")(requests)

    def _fill(self, role: Role, n: int, requests: int) -> None:
        import torch

        speculator = self.speculator
        generator = torch.Generator(device="cpu").manual_seed(n)
        vocabulary = self._runner.vllm_config.model_config.get_vocab_size()
        ids = torch.randint(0, vocabulary, (n,), generator=generator)
        buffers, hidden = speculator.input_buffers, speculator.hidden_states
        buffers.input_ids[:n].copy_(ids)
        buffers.positions[:n].copy_(torch.arange(n) % 97)
        hidden[:n].copy_(torch.randn(n, *hidden.shape[1:], generator=generator) * 0.02)
        last = torch.arange(1, requests + 1) * (n // requests) - 1
        speculator.last_token_indices[:requests].copy_(last)
        speculator.current_draft_step.fill_(int(role == DECODE))
        speculator.draft_tokens.fill_(-1)
        self.disown()


# A graph that wrote nothing, or mixed up its rows, differs in nearly all of them.
TOKENS_APART_MAX = 0.25


class DraftsError(RuntimeError):
    """VLLM's drafter did other than it was asked; the text says what."""


@contextlib.contextmanager
def _quiet(speculator: Any) -> Iterator[None]:
    """VLLM says at each capture that it captures for the speculator: true, and once is enough."""
    import logging
    import sys

    modules = [sys.modules.get(kind.__module__) for kind in type(speculator).__mro__]
    loggers = {log for module in modules if (log := getattr(module, "logger", None)) is not None}
    before = {log: log.level for log in loggers if isinstance(log, logging.Logger)}
    for log in before:
        log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for log, level in before.items():
            log.setLevel(level)
