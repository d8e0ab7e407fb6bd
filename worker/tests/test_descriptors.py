"""Ids of graphs, from descriptors as vLLM 0.26 and 0.33 have them."""

from __future__ import annotations

import dataclasses
import enum
import itertools
from typing import Any

import pytest

from lazygraph_vllm.protocol.graph import version_for
from lazygraph_vllm.rank.descriptors import (
    DescriptorError,
    by_id,
    describe_graph,
    graph_id,
    unknown_fields,
    unsupported,
)


class Mode(enum.Enum):
    """Of vLLM's ``CUDAGraphMode``, what a descriptor may have."""

    PIECEWISE = 1
    FULL = 2


@dataclasses.dataclass(frozen=True)
class Descriptor026:
    """``BatchExecutionDescriptor`` of vLLM 0.26."""

    cg_mode: Mode
    num_tokens: int
    num_reqs: int | None
    uniform_token_count: int | None = None
    num_active_loras: int = 0


@dataclasses.dataclass(frozen=True)
class Descriptor033:
    """``BatchExecutionDescriptor`` of vLLM 0.33."""

    cg_mode: Mode
    num_tokens: int
    num_reqs: int | None
    uniform_token_count: int | None = None
    max_query_len: int | None = None
    num_active_loras: int = 0
    num_ubatches: int = 1


@dataclasses.dataclass(frozen=True)
class Descriptor099(Descriptor033):
    """Of a version to come."""

    sparse: bool = False
    groups: tuple[int, ...] = dataclasses.field(default_factory=tuple)


FULL, PIECEWISE = Mode.FULL, Mode.PIECEWISE


@pytest.mark.parametrize("descriptor", [Descriptor026, Descriptor033])
@pytest.mark.parametrize(
    ("mode", "tokens", "requests", "uniform", "name"),
    [
        (FULL, 24, 24, 1, "FULL:24"),
        (FULL, 24, 6, 4, "FULL:24:u4"),
        (FULL, 8, 8, None, "FULL:8:mixed"),
        (FULL, 512, 256, None, "FULL:512:mixed"),
        (PIECEWISE, 512, None, None, "PIECEWISE:512"),
        (PIECEWISE, 512, 8, None, "PIECEWISE:512:r8"),
    ],
)
def test_ids_of_0_26_stay_what_they_were(
    descriptor: Any, mode: Mode, tokens: int, requests: Any, uniform: Any, name: str
) -> None:
    assert graph_id(descriptor(mode, tokens, requests, uniform)) == name


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"num_active_loras": 2}, "FULL:24:l2"),
        ({"num_ubatches": 2}, "FULL:24:b2"),
        ({"uniform_token_count": None, "max_query_len": 4}, "FULL:24:mixed:q4"),
        ({"num_reqs": 12}, "FULL:24:r12"),
        (
            {
                "uniform_token_count": 4,
                "num_reqs": 6,
                "max_query_len": 4,
                "num_active_loras": 8,
                "num_ubatches": 2,
            },
            "FULL:24:u4:q4:l8:b2",
        ),
    ],
)
def test_what_is_not_at_its_default_is_in_the_id(fields: dict[str, Any], name: str) -> None:
    base = Descriptor033(FULL, 24, 24, 1)
    assert graph_id(dataclasses.replace(base, **fields)) == name


def test_no_two_descriptors_of_an_engine_share_an_id() -> None:
    """All that vLLM may plan at once, with one limit of requests: every id is another one."""
    descs = [
        Descriptor033(mode, tokens, requests, uniform, longest, loras, ubatches)
        for tokens, loras, ubatches in itertools.product((8, 16, 24), (0, 1, 2), (1, 2))
        for mode, requests, uniform, longest in (
            (PIECEWISE, None, None, None),
            (FULL, tokens, 1, None),
            (FULL, tokens // 2, 2, None),
            (FULL, min(tokens, 16), None, None),
            (FULL, min(tokens, 16), None, 4),
        )
    ]
    assert list(by_id(descs).values()) == descs


def test_two_descriptors_of_one_id_are_an_error_and_not_one_graph() -> None:
    one, other = Descriptor033(FULL, 24, 24), Descriptor033(FULL, 24, 12)
    assert by_id([one, one]) == {"FULL:24:mixed": one}
    with pytest.raises(DescriptorError, match="expected each graph to have an id of its own"):
        by_id([one, other])
    assert "id of its own" in (unsupported([one, other]) or "")


def test_a_graph_has_every_field() -> None:
    graph = describe_graph(Descriptor033(FULL, 24, 6, 4, 4, 8, 2))
    assert (graph.kind, graph.tokens, graph.requests, graph.uniform) == ("FULL", 24, 6, 4)
    assert (graph.query_length, graph.loras, graph.microbatches) == (4, 8, 2)
    plain = describe_graph(Descriptor026(PIECEWISE, 512, None))
    assert (plain.query_length, plain.loras, plain.microbatches) == (None, 0, 1)


def test_only_graphs_of_a_case_need_the_newer_protocol() -> None:
    plain = [describe_graph(Descriptor033(FULL, 24, 24, 1))]
    assert version_for([]) == version_for(plain) == 1
    for fields in ({"num_active_loras": 1}, {"max_query_len": 4}, {"num_ubatches": 2}):
        case = describe_graph(Descriptor033(FULL, 24, 24, 1, **fields))
        assert version_for([*plain, case]) == 2


def test_a_field_that_is_not_known_matters_only_away_from_its_default() -> None:
    plain = Descriptor099(FULL, 24, 24, 1)
    assert unknown_fields(plain) == () and unsupported([plain]) is None
    odd = dataclasses.replace(plain, sparse=True, groups=(1,))
    assert unknown_fields(odd) == ("sparse", "groups")
    assert unsupported([plain, odd]) == (
        "a descriptor has the field sparse = True, which lazygraph doesn't know"
    )


def test_a_field_without_a_default_is_never_at_it() -> None:
    @dataclasses.dataclass(frozen=True)
    class Strict(Descriptor033):
        lane: int = dataclasses.field(kw_only=True)

    assert unknown_fields(Strict(FULL, 24, 24, 1, lane=0)) == ("lane",)
