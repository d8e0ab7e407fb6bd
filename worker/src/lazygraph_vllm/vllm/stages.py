"""What a rank's part of the model takes in and answers: of a whole model, or of a pipeline's stage.

With pipeline parallelism each rank runs some of the layers. All stages but the first read what the
one before hands on (hidden states and residual) from buffers of the runner that never move, and a
real step copies into them first. All but the last answer with such tensors in the place of hidden
states: a FULL graph's replay writes them into buffers of the manager, from which vLLM's worker
sends them. Nothing of a model's run reaches over to another stage: sends, receives and the way back
of sampled tokens lie outside it, and so outside every graph.
"""

from __future__ import annotations

from typing import Any

# What is read here where there are several stages.
MANAGER_HOOKS = ("is_last_pp_rank", "intermediate_tensors")
RUNNER_HOOKS = ("is_first_pp_rank", "intermediate_tensors")


def missing(runner: Any) -> str | None:
    """What this vLLM lacks for captures on a pipeline's stage, as a sentence; ``None``: nothing."""
    if runner.vllm_config.parallel_config.pipeline_parallel_size == 1:
        return None
    owners = ((runner.cudagraph_manager, MANAGER_HOOKS), (runner, RUNNER_HOOKS))
    for owner, names in owners:
        if gone := [name for name in names if not hasattr(owner, name)]:
            return f"this vLLM lacks {type(owner).__name__}.{gone[0]}"
    if runner.is_first_pp_rank == (runner.intermediate_tensors is None):
        return None
    return "this vLLM's model runner hands a stage its input in another way"


def hands_on(manager: Any) -> bool:
    """Whether another stage comes after this one."""
    return not getattr(manager, "is_last_pp_rank", True)


# ------------------------------------------------------------------ answers


def buffers(manager: Any) -> list[Any]:
    """What a FULL graph writes: hidden states and those that a drafter reads, or what is handed on.

    Each is as long as the largest graph has tokens.
    """
    if hands_on(manager):
        return answer(manager.intermediate_tensors)
    return [manager.hidden_states, *getattr(manager, "aux_hidden_states", ())]


def answer(output: Any) -> list[Any]:
    """What a run of the model returned, in the order of ``buffers``."""
    if (handed := getattr(output, "tensors", None)) is not None:
        return [handed[name] for name in sorted(handed)]
    if isinstance(output, tuple):
        hidden, more = output
        return [hidden, *more]
    return [output]


def only_a_run_tells(runner: Any) -> bool:
    """Whether the buffers can't be made before the model has answered once, at any size."""
    drafted = getattr(runner, "use_aux_hidden_state_outputs", False)
    return hands_on(runner.cudagraph_manager) or bool(drafted)


def size_buffers(runner: Any, tokens: int) -> None:
    """Make the buffers for so many tokens, as vLLM's first run makes them for its own."""
    import torch

    manager, model = runner.cudagraph_manager, runner.vllm_config.model_config

    def sized(each: Any) -> Any:
        return each.new_empty((tokens, *each.shape[1:]))

    if hands_on(manager):
        known = manager.intermediate_tensors
        manager.intermediate_tensors = type(known)(
            {name: sized(each) for name, each in known.items()}
        )
        return
    if aux := getattr(manager, "aux_hidden_states", ()):
        manager.aux_hidden_states = [sized(each) for each in aux]
    manager.hidden_states = torch.empty(
        (tokens, model.get_hidden_size()), dtype=model.dtype, device=runner.device
    )


# ------------------------------------------------------------------ inputs


def draw_handed(runner: Any, tokens: int, generator: Any) -> None:
    """Draw what the stage before would hand on; nothing on the first one."""
    import torch

    handed = getattr(runner, "intermediate_tensors", None)
    if handed is None:
        return
    for _, buffer in sorted(handed.items()):
        rows = buffer[:tokens]
        rows.copy_(torch.randn(rows.shape, generator=generator))


def clear_handed(runner: Any, tokens: int) -> None:
    """Leave none of it to the next capture, whose dummy batch zeroes all inputs but these.

    A graph of as many tokens would be captured on what its own check draws, and one that replays
    nothing would have left the right answer behind.
    """
    if (handed := getattr(runner, "intermediate_tensors", None)) is not None:
        for _, buffer in handed.items():
            buffer[:tokens].zero_()
