"""A CUDA graph that replays, on the CPU stand-in.

It notes every operation of torch between the begin and the end of a capture and does them again on
the same tensors when replayed: what was in Python only is baked in, as on a GPU.
"""

from __future__ import annotations

from typing import Any


def install(patch: Any) -> None:
    """Over the CUDA stand-in; ``patch`` is pytest's ``monkeypatch``."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Operations(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.done: list[tuple[Any, ...]] = []

        def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            result = func(*args, **kwargs)
            self.done.append((func, args, kwargs, result))
            return result

    class Recorded(torch.cuda.CUDAGraph):  # type: ignore[misc]
        def capture_begin(self, *args: Any, pool: Any = None, **kwargs: Any) -> None:
            super().capture_begin(*(args or (pool,)), **kwargs)
            self._operations = Operations()
            self._operations.__enter__()

        def capture_end(self) -> None:
            self._operations.__exit__(None, None, None)
            super().capture_end()

        def replay(self) -> None:
            super().replay()
            for func, args, kwargs, before in self._operations.done:
                again = func(*args, **kwargs)
                if isinstance(again, torch.Tensor) and again.data_ptr() != before.data_ptr():
                    before.copy_(again)

    patch.setattr(torch.cuda, "CUDAGraph", Recorded)
