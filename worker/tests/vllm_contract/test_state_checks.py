"""Recurrent states of live requests, as the GPU check of captures beside traffic looks at them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import checks
import pytest
import state_checks
import torch
from vllm.v1.kv_cache_interface import MambaSpec

import builders
import replaying
import test_configuration
from lazygraph_vllm.vllm import options, states

BLOCKS = 8
configure = test_configuration.configure


class Tables:
    """Of two groups; request 0 has blocks 3 and 5, request 2 blocks 4 and 6."""

    def __init__(self) -> None:
        rows = torch.zeros(2, 3, 2, dtype=torch.int32)
        rows[:, 0, 0], rows[:, 2, 0] = torch.tensor([3, 5]), torch.tensor([4, 6])
        self.block_tables = [SimpleNamespace(gpu=group) for group in rows]
        self.inputs = torch.zeros(2, 4, 2, dtype=torch.int32)

    def get_dummy_block_tables(self, requests: int) -> Any:
        return tuple(group[:requests].zero_() for group in self.inputs)


@pytest.fixture
def worker() -> Any:
    recurrent = object.__new__(MambaSpec)
    states = [torch.zeros(BLOCKS, 2, 3), torch.full((BLOCKS, 4), float("nan"))]
    runner = SimpleNamespace(
        block_tables=Tables(),
        req_states=SimpleNamespace(req_id_to_index={"a": 2, "b": 0}),
        kv_cache_config=SimpleNamespace(
            kv_cache_groups=[
                SimpleNamespace(kv_cache_spec=object(), layer_names=["attention"]),
                SimpleNamespace(kv_cache_spec=recurrent, layer_names=["delta"]),
            ]
        ),
        vllm_config=SimpleNamespace(
            compilation_config=SimpleNamespace(
                static_forward_context={"delta": SimpleNamespace(kv_cache=states)}
            )
        ),
    )
    return SimpleNamespace(model_runner=runner, states=states)


def spoiling(block: int) -> Any:
    """A capture that writes to one block's state; block 0 is nobody's."""

    def capture(worker: Any, graph: str) -> str | None:
        worker.states[0][block, 1, 2] += 0.5
        return None if graph == "FULL:8" else f"no memory for {graph}"

    return capture


class OneRank:
    """An engine of one rank."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker

    def collective_rpc(self, call: Any, args: tuple[Any, ...]) -> list[Any]:
        return [call(self.worker, *args)]


@pytest.mark.parametrize(("block", "touched"), [(0, 0), (3, 0), (4, 0), (5, 1), (6, 1)])
def test_only_a_live_requests_state_counts(worker: Any, block: int, touched: int) -> None:
    assert state_checks.watched(worker, spoiling(block), "FULL:8") == (None, touched, 4)


def test_with_prefix_caching_all_of_a_live_requests_blocks_count(worker: Any) -> None:
    table = worker.model_runner.block_tables.block_tables[1].gpu
    # Request 2 has passed the end of its first block, which request 0 has found as well.
    table[2, 1], table[0, 1] = 7, 6
    # What row 1 held before is nobody's.
    table[1, 0] = 2
    for block, touched in ((6, 1), (7, 1), (5, 1), (2, 0), (0, 0)):
        told = state_checks.watched(worker, spoiling(block), "FULL:8")
        assert told == (None, touched, 6), block


def test_with_prefix_caching_the_control_lends_the_block_that_is_written(worker: Any) -> None:
    runner = worker.model_runner
    runner.block_tables.block_tables[1].gpu[2, 1] = 7
    runner.model_state = SimpleNamespace(_mamba_state_idx_gpu=torch.tensor([-1, 0, 1]))
    state_checks.lend_blocks_in_use(worker)
    assert runner.block_tables.get_dummy_block_tables(3)[1].tolist() == [[5, 5], [7, 7], [5, 5]]


def test_what_captures_touch_is_told_by_graph(worker: Any) -> None:
    watch = state_checks.Watch(OneRank(worker), spoiling(5))
    assert watch.capture("FULL:8") == [None]
    assert watch.capture("FULL:4") == ["no memory for FULL:4"]
    assert watch.told() == {"states": 8, "touched": {"FULL:8": 1, "FULL:4": 1}}


def test_a_request_that_ends_between_two_captures_is_no_matter(worker: Any) -> None:
    watch = state_checks.Watch(OneRank(worker), spoiling(0))
    watch.capture("FULL:8")
    del worker.model_runner.req_states.req_id_to_index["a"]
    watch.capture("FULL:8")
    assert watch.told() == {"states": 6, "touched": {}}


def test_the_control_lends_blocks_of_live_requests(worker: Any) -> None:
    tables = worker.model_runner.block_tables
    assert tables.get_dummy_block_tables(3)[1].count_nonzero() == 0
    state_checks.lend_blocks_in_use(worker)
    attention, delta = tables.get_dummy_block_tables(3)
    assert attention[:, 0].tolist() == [3, 4, 3]
    assert delta.tolist() == [[5, 5], [6, 6], [5, 5]]


def test_who_replaced_the_dummy_tables_before_finds_the_replacement_again(worker: Any) -> None:
    runner = worker.model_runner
    state_checks.lend_blocks_in_use(worker)
    careless = runner.block_tables.get_dummy_block_tables
    with states.borrow(runner, 3):
        assert runner.block_tables.get_dummy_block_tables is not careless
    assert runner.block_tables.get_dummy_block_tables is careless


def test_otherwise_vllms_own_are_back(worker: Any) -> None:
    runner = worker.model_runner
    with states.borrow(runner, 3):
        assert "get_dummy_block_tables" in vars(runner.block_tables)
    assert "get_dummy_block_tables" not in vars(runner.block_tables)


@pytest.fixture
def mamba2(gpu: Any, pristine: None, configure: Any, worker: Any, monkeypatch: Any) -> Any:
    """A rank whose states move on as Mamba2's, by vLLM's own metadata."""
    from vllm.forward_context import get_forward_context
    from vllm.v1.attention.backends.mamba2_attn import Mamba2AttentionBackend
    from vllm.v1.worker.gpu.block_table import BlockTables
    from vllm.v1.worker.gpu.model_states.mamba_hybrid import MambaHybridModelState
    from vllm.v1.worker.utils import AttentionGroup

    replaying.install(monkeypatch)
    for module in ("utils.torch_utils", "v1.attention.backends.utils"):
        monkeypatch.setattr(f"vllm.{module}.PIN_MEMORY", False)
    shape = test_configuration.SHAPES["granite-4.0-h-4l"]
    config = configure(shape, enable_prefix_caching=False, max_num_seqs=8)
    states = torch.zeros(12, 3), torch.zeros(12, 4)
    config.compilation_config.static_forward_context["delta"] = SimpleNamespace(
        kv_cache=states, get_state_shape=None, get_attn_backend=lambda: Mamba2AttentionBackend
    )
    runner, known = builders.make_runner(config), worker.model_runner
    [_, group] = known.kv_cache_config.kv_cache_groups
    group.kv_cache_spec = MambaSpec(9, shapes=((3,), (4,)), dtypes=(torch.float32,) * 2)
    runner.kv_cache_config.kv_cache_groups = [group]
    layers = AttentionGroup(Mamba2AttentionBackend, ["delta"], group.kv_cache_spec, 0)
    layers.create_metadata_builders(config, runner.device, None)
    runner.attn_groups = [[layers]]
    runner.model_state = MambaHybridModelState(config, runner.model, None, runner.device)
    runner.req_states = known.req_states
    runner.block_tables = tables = BlockTables.__new__(BlockTables)
    tables.cp_size, tables._num_dirty_rows = 1, 0
    tables.block_tables = known.block_tables.block_tables[1:]
    tables.input_block_tables = [torch.zeros(8, 2, dtype=torch.int32)]
    tables.slot_mappings = torch.zeros(1, 16, dtype=torch.int64)

    def mix(x: Any) -> Any:
        told = get_forward_context().attn_metadata["delta"]
        for given in (told.state_indices_tensor_d, told.state_indices_tensor_p):
            blocks = given.flatten().long()
            for state in states:
                x.add_(state[blocks].sum())
                state[blocks] += (blocks > 0)[:, None]
        return x

    runner.model.pieces.insert(1, mix)
    wrapper = builders.Wrapper(runner)
    builders.bring_up_rank(wrapper, verify=True)
    for state in states:
        state.fill_(9)
    wrapper.worker.rank = 0
    return wrapper.worker


@test_configuration.tried
def test_captures_beside_mamba2s_live_requests_and_their_next_step(mamba2: Any) -> None:
    graphs = (runner := mamba2.model_runner).lazygraph.state
    assert not options.chosen(runner)

    def captured() -> set[tuple[Any, ...]]:
        for name in list(graphs.captured):
            graphs.purge(name)
        return {state_checks.watched(mamba2, checks.capture, name) for name in graphs.descs}

    assert captured() == {(None, 0, 4)}
    # This bed's pieces don't keep their input, as a PIECEWISE replay would need.
    assert {graphs.verified[name] for name in graphs.descs if "FULL" in name} == {0.0}
    # Their next step.
    state_checks.lend_blocks_in_use(mamba2)
    runner.lazygraph.capturer._forward_factory(desc := graphs.descs["FULL:2"], True)
    step = torch.inference_mode()(lambda *_: runner.cudagraph_manager.graphs[desc].replay())
    assert state_checks.watched(mamba2, step, "") == (None, 4, 4)
    assert captured() == {(None, 4, 4), (None, 2, 4)}
