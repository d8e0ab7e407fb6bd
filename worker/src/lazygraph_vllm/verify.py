"""Checks a captured graph against an ungraphed run of the same padded inputs.

Free of side effects: dummy inputs carry PAD slots, so the KV cache is never written, and every
buffer touched is rebuilt by the next step. Runs outside the capture context, where all-reduces
are real: on each rank, on the thread that runs the model, right after the capture.
"""

from __future__ import annotations

from typing import Any

from .rank_state import RankState

# Kernels may be chosen differently under capture (split counts of attention), which moves bf16
# values by rounding; a fault moves them by their own size. Relative to the largest magnitude.
RELATIVE_LIMIT = 0.02


def relative_difference(state: RankState, forward_factory: Any, desc: Any) -> float:
    """Replay ``desc``, run its inputs ungraphed, and compare all hidden states on this rank.

    Args:
        state: what this rank holds.
        forward_factory: the closure that vLLM's own capture was called with.
        desc: which captured graph.

    Returns:
        The largest difference, relative to the largest ungraphed magnitude; NaN where the graph
        wrote nothing.
    """
    import torch

    mode = type(desc.cg_mode)
    manager = state.manager
    n = desc.num_tokens
    with torch.inference_mode():
        run = forward_factory(desc, True)
        _fill_inputs(state.runner, n)
        run(mode.NONE)
        expected = manager.hidden_states[:n].clone()
        if desc.cg_mode.name == "FULL":
            manager.hidden_states[:n].fill_(float("nan"))
            manager.graphs[desc].replay()
            got = manager.hidden_states[:n].clone()
        else:
            got = _piecewise(manager, run, mode)[:n].clone()
        torch.cuda.synchronize()
        scale = expected.abs().max().float().clamp_min(1e-6)
        return float((got.float() - expected.float()).abs().max() / scale)


def _fill_inputs(runner: Any, tokens: int) -> None:
    """The dummy batch is all zeros, which would hide mixed-up rows: draw tokens and positions."""
    import torch

    generator = torch.Generator(device="cpu").manual_seed(tokens)
    vocabulary = runner.vllm_config.model_config.get_vocab_size()
    ids = torch.randint(0, vocabulary, (tokens,), generator=generator)
    buffers = runner.input_buffers
    buffers.input_ids[:tokens].copy_(ids)
    buffers.positions[:tokens].copy_(torch.arange(tokens) % 97)


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
