"""The GPU checks of KV offloading with vLLM's own connectors and configuration, without a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import checks
import offload_checks
import pytest

import connectors_bed as bed
from connectors_bed import OFFLOADING, SIMPLE, jobs, one_step
from lazygraph_vllm.vllm import connectors
from lazygraph_vllm.vllm.allowed import OFFLOADERS, config_reason, traits
from test_configuration import LLAMA
from test_preflight import host  # noqa: F401
from vllm_facts import AT

pytestmark = [
    pytest.mark.skipif(AT < (0, 31), reason="KV offloading runs as stock before vLLM 0.31"),
]

BENCH = Path(__file__).resolve().parents[3] / "bench" / "gpu"

BOTH = pytest.mark.parametrize("kind", [OFFLOADING, SIMPLE])
FAMILIES = {f["name"]: f for f in json.loads((BENCH / "families.json").read_text())["families"]}


@pytest.fixture
def device(gpu: Any, pristine: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    return bed.install(gpu, monkeypatch)


def settle(worker: Any) -> None:
    assert connectors.why_not_now(worker.model_runner) is None


def run_copies(kind: str, worker: Any, wrapper: Any) -> list[int]:
    """A store and a load of three blocks; how many copies were under way after each."""
    counts = []
    for job in (jobs(kind, store={5: 0, 6: 1, 7: 2}), jobs(kind, load={0: 9, 1: 10, 2: 11})):
        worker.model_runner.jobs.append(job)
        one_step(wrapper)
        one_step(wrapper)  # a store may be put off to the next step
        settle(worker)
        counts.append(offload_checks.under_way(worker))
    return counts


@BOTH
def test_copies_are_counted_and_seen_under_way(kind: str, device: Any) -> None:
    wrapper = bed.start(kind, device)
    worker = wrapper.worker
    offload_checks.watch_copies(worker)
    assert offload_checks.under_way(worker) == 0
    first, both = run_copies(kind, worker, wrapper)
    assert first == 1 and both == 2
    assert offload_checks.copies_seen(worker) == {
        "loads": 1,
        "loadedBlocks": 3,
        "stores": 1,
        "spoiled": 0,
    }
    device.run()
    assert (worker.model_runner.cache[9:12] == worker.model_runner.cache[5:8]).all()
    one_step(wrapper)
    assert offload_checks.under_way(worker) == 0


@BOTH
def test_the_control_loads_in_another_order(kind: str, device: Any) -> None:
    wrapper = bed.start(kind, device)
    worker = wrapper.worker
    offload_checks.watch_copies(worker, spoil=True)
    run_copies(kind, worker, wrapper)
    device.run()
    cache = worker.model_runner.cache
    assert offload_checks.copies_seen(worker)["spoiled"] == 1
    assert (cache[9:12] == cache[5:8].flip(0)).all() and not (cache[9] == cache[5]).all()


@BOTH
def test_a_capture_of_the_check_says_what_was_under_way(kind: str, device: Any) -> None:
    wrapper = bed.start(kind, device)
    worker = wrapper.worker
    worker.rank = 0
    before = worker.model_runner.cache.clone()
    worker.model_runner.jobs.append(jobs(kind, load={0: 9}))
    one_step(wrapper)
    settle(worker)
    before[9] = worker.model_runner.host[0]
    captured = set(worker.model_runner.lazygraph.state.captured)
    assert offload_checks.next_capture(worker) == {"underWay": 1, "error": None}
    assert len(set(worker.model_runner.lazygraph.state.captured) - captured) == 1
    assert (worker.model_runner.cache == before).all()


def test_the_other_control_writes_blocks_in_use(
    device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bed, "BLOCK_TOKENS", 16)
    wrapper = bed.start(OFFLOADING, device)
    worker = wrapper.worker
    worker.rank = 0
    before = worker.model_runner.cache.clone()
    offload_checks.write_live_blocks(worker)
    for _ in range(6):
        assert offload_checks.next_capture(worker)["error"] is None
    assert not (worker.model_runner.cache == before).all()
    assert (worker.model_runner.cache[0] == before[0]).all(), "block 0 belongs to nobody"


@pytest.mark.parametrize(
    ("name", "kind"), [("offload-8b", OFFLOADING), ("offload-simple-8b", SIMPLE)]
)
@pytest.mark.parametrize("limits", [{}, offload_checks.LIMITS])
@pytest.mark.usefixtures("host")
def test_vllm_takes_the_engines_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str, limits: dict[str, Any]
) -> None:
    from vllm.engine.arg_utils import EngineArgs

    family = FAMILIES[name]
    (tmp_path / family["shape"]).mkdir()
    shape = LLAMA | {"max_position_embeddings": 8192}
    (tmp_path / family["shape"] / "config.json").write_text(json.dumps(shape))
    for variable, value in family.get("env", {}).items():
        monkeypatch.setenv(variable, value)
    options = checks.engine_options(family, tmp_path, **limits)
    config = EngineArgs(**options).create_engine_config()
    assert connectors.name_of(config) == kind
    assert config.cache_config.enable_prefix_caching is True
    extra = config.kv_transfer_config.kv_connector_extra_config
    assert extra["cpu_bytes_to_use"] == 3 << 30
    from vllm.version import __version__

    assert config_reason(config, __version__, allow_untested=True) is None
    assert OFFLOADERS[kind] in traits(config)
    assert config.compilation_config.cudagraph_mode.has_full_cudagraphs()


class Core:
    """Stands in for ``LLM`` and its engine: each request takes three steps, whatever it asks."""

    def __init__(self) -> None:
        self.llm_engine = self
        self.left: dict[str, int] = {}
        self.most = 0
        self.called: list[Any] = []

    def add_request(self, name: str, prompt: dict[str, Any], params: Any) -> None:
        assert name not in self.left and prompt["prompt_token_ids"] and params.max_tokens >= 24
        self.left[name] = 3
        self.most = max(self.most, len(self.left))

    def has_unfinished_requests(self) -> bool:
        return bool(self.left)

    def step(self) -> list[Any]:
        for name in self.left:
            self.left[name] -= 1
        done = [name for name, steps in self.left.items() if steps == 0]
        for name in done:
            del self.left[name]
        answer = [SimpleNamespace(token_ids=[7])]
        return [SimpleNamespace(request_id=n, finished=True, outputs=answer) for n in done]

    def collective_rpc(self, call: Any, args: tuple[Any, ...] = ()) -> list[Any]:
        self.called.append(call)
        if call is offload_checks.next_capture:
            return [{"underWay": len(self.called) % 2, "error": None}]
        return [{"loads": 0}]


@pytest.mark.parametrize(("part", "captures"), [("ours", True), ("stock", False)])
def test_every_prompt_is_asked_once_a_pass(part: str, captures: bool) -> None:
    engine = Core()
    told = offload_checks.run_tokens(engine, part)
    names = set(offload_checks.prompts())
    assert [set(tokens) for tokens in told["passes"].values()] == [names] * 4
    assert engine.most == offload_checks.CONCURRENT
    made = engine.called.count(offload_checks.next_capture)
    assert made == told["capturedInTraffic"] and (made > 10) == captures
    assert (0 < told["amongCopies"] < made) == captures
