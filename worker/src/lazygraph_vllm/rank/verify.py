"""Checks a captured graph against an ungraphed run of the same padded inputs.

Free of side effects: dummy inputs carry PAD slots, so the KV cache is never written, recurrent
states that are borrowed are put back, and every buffer touched is rebuilt by the next step. Runs
outside the capture context, where all-reduces are real, on the thread that runs the model.
"""

from __future__ import annotations

import math
from typing import Any

from ..rules.difference import largest_difference
from .state import RankState

# Kernels may be chosen differently under capture (split counts of attention), which moves bf16
# values by rounding; a fault by their own size. Relative to the largest magnitude.
RELATIVE_LIMIT = 0.02


def relative_difference(state: RankState, forward_factory: Any, desc: Any) -> float | None:
    """Replay ``desc``, run its inputs ungraphed, and compare all that comes out on this rank.

    On a pipeline's stage these are the stage's own inputs and answers: drawn ones in the place of
    what the stage before would hand on, and what it would hand on itself.

    Args:
        state: what this rank holds.
        forward_factory: the closure that vLLM's own capture was called with.
        desc: which captured graph.

    Returns:
        The largest difference, relative to the largest ungraphed magnitude; NaN where the graph
        wrote nothing. ``None``: the ungraphed run itself has no numbers to compare with, as with
        weights that a sleep gave up and nobody has loaded again.
    """
    import torch

    mode = type(desc.cg_mode)
    manager, buffers = state.manager, state.adapter.output_buffers
    n = desc.num_tokens
    requests = desc.num_reqs or min(n, manager.max_num_reqs)
    with torch.inference_mode(), state.adapter.borrowed_states(state.runner, requests) as states:
        run = forward_factory(desc, True)
        state.adapter.fill_inputs(state.runner, requests, n)
        states.reset()
        run(mode.NONE)
        expected = [each[:n].clone() for each in buffers(manager)]
        # A kernel may write over its input, as norms do with a stage's residual.
        state.adapter.fill_inputs(state.runner, requests, n)
        states.reset()
        if desc.cg_mode.name == "FULL":
            for each in buffers(manager):
                each[:n].fill_(float("nan"))
            manager.graphs[desc].replay()
            got = [each[:n].clone() for each in buffers(manager)]
        else:
            output = _piecewise(manager, run, mode)
            got = [each[:n].clone() for each in state.adapter.answer(output)]
        state.adapter.clear_inputs(state.runner, n)
        torch.cuda.synchronize()
        rows = states.rows(n, requests)
        both = zip(got, expected, strict=True)
        differences = [largest_difference(ours[rows], theirs[rows]) for ours, theirs in both]
    known = [difference for difference in differences if difference is not None]
    if len(known) < len(differences):
        return None
    return math.nan if any(map(math.isnan, known)) else max(known)


def _piecewise(manager: Any, run: Any, mode: Any) -> Any:
    """Run the PIECEWISE replay and keep its output, which vLLM's closure drops."""
    kept: list[Any] = []
    original = manager.run_pw_graph

    def keep(model: Any, inputs: Any) -> Any:
        output = original(model, inputs)
        kept.append(output)
        return output

    manager.run_pw_graph = keep
    try:
        run(mode.PIECEWISE)
    finally:
        del manager.run_pw_graph
    return kept[0]
