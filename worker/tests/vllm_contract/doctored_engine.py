"""An engine on a doctored vLLM, in a process of its own: what our plugin did is printed as JSON.

``python doctored_engine.py '{"FILE": {"OLD": "NEW"}, …}' [WARM_UP]`` replaces text in vLLM's
modules while they are imported, as if the wheel had come like that; ``*`` stands for every module
of vLLM. Then one engine starts with the plugin, serves a request, and stops. WARM_UP is the
executor's method that this vLLM warms up by, where it is another one.
"""

from __future__ import annotations

import importlib.machinery
import json
import logging
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

STEPS = 3
WAIT_SECONDS = 60


class _DoctoredSource(importlib.machinery.SourceFileLoader):
    """Reads a module's file, and gives other text."""

    changes: dict[str, dict[str, str]] = {}

    def get_data(self, path: str) -> bytes:
        data = super().get_data(path)
        if not path.endswith(".py"):
            return data
        for file, texts in self.changes.items():
            if file == "*" or path.endswith(f"/vllm/{file}"):
                for old, new in texts.items():
                    data = data.replace(old.encode(), new.encode())
        return data

    def get_code(self, fullname: str) -> Any:
        # Never from a cache of the undoctored file.
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname.partition(".")[0] != "vllm":
            return None
        spec = super().find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _DoctoredSource(spec.loader.name, spec.loader.path)
        return spec


class _Keep(logging.Handler):
    """Our warnings, from a handler of our own: vLLM decides where its logger sends them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def serve(warm_up: str | None) -> dict[str, Any]:
    """Start an engine, let it serve, stop it; what came of it."""
    import pytest

    import builders
    import conftest
    import cuda_stand_in
    from lazygraph_vllm import plugin

    keep = _Keep()
    gpu = cuda_stand_in.Gpu()
    with pytest.MonkeyPatch.context() as patch:
        cuda_stand_in.install(gpu, patch)
        # Only now: importing vLLM sets up logging anew, which takes handlers away.
        logging.getLogger("vllm.lazygraph").addHandler(keep)
        plugin.register()
        config = builders.make_config()
        wrapper = builders.Wrapper(builders.make_runner(config))
        executor = builders.make_executor(config, wrapper)
        if warm_up is None:
            builders.bring_up(executor)
        else:
            executor.initialize_from_config([None])
            getattr(executor, warm_up)()
        core = builders.make_core(executor, gpu.events)
        errors: list[BaseException] = []

        def loop() -> None:
            try:
                core.run_busy_loop()
            except SystemExit:
                pass
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        core.input_queue.put_nowait(builders.request("r", steps=STEPS))
        core.scheduler.wait_for_steps(STEPS, WAIT_SECONDS)
        conftest.stop(SimpleNamespace(core=core, thread=thread))
        runner = wrapper.worker.model_runner
        return {
            "lines": keep.lines,
            "steps": core.scheduler.steps,
            "full": len(runner.cudagraph_manager.graphs),
            "ours": hasattr(runner, "lazygraph"),
            "errors": [f"{type(e).__name__}: {e}" for e in errors],
        }


if __name__ == "__main__":
    _DoctoredSource.changes = json.loads(sys.argv[1])
    sys.meta_path.insert(0, _Finder)
    tests = Path(__file__).parent
    sys.path[:0] = [str(tests), str(tests.parent), str(tests.parents[1] / "testing" / "src")]
    print("\n" + json.dumps(serve(sys.argv[2] if len(sys.argv) > 2 else None)))
