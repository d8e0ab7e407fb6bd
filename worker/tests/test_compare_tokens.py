"""The token check itself: it must fail with a fault in place."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "gpu" / "compare_tokens.py"


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare_tokens", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def a_run(changed: dict[str, int] | None = None) -> dict[str, Any]:
    """952 sequences a pass; `changed` says how many of a pass are different."""
    tokens = {
        name: [[i, 1 if i < (changed or {}).get(name, 0) else 0] for i in range(952)]
        for name in ("before", "during", "after")
    }
    return {"tokens": tokens}


def test_exact_means_every_sequence_in_every_pass(compare: ModuleType) -> None:
    stock = [a_run()]
    reference = compare.yardstick(stock)
    same = compare.verdict(compare.rows_against(stock, a_run()), reference, exact=True)
    one = compare.verdict(compare.rows_against(stock, a_run({"after": 1})), reference, exact=True)
    assert same["passes"] and not one["passes"]


def test_within_what_stock_differs_from_itself(compare: ModuleType) -> None:
    stock = [a_run(), a_run({"during": 100})]
    reference = compare.yardstick(stock)
    within = compare.verdict(
        compare.rows_against(stock, a_run({"during": 110})), reference, exact=False
    )
    beyond = compare.verdict(
        compare.rows_against(stock, a_run({"after": 200})), reference, exact=False
    )
    assert within["passes"] and not beyond["passes"]
    assert within["limits"]["sequencesDiffer"] < 200


def test_first_tokens_count_for_themselves(compare: ModuleType) -> None:
    stock = [a_run({"before": 300}), a_run()]
    broken = a_run()
    broken["tokens"]["after"] = [[i + 1, 0] if i < 50 else [i, 0] for i in range(952)]
    rows = compare.rows_against(stock, broken)
    assert not compare.verdict(rows, compare.yardstick(stock), exact=False)["passes"]


def test_files_of_other_lengths_are_refused(compare: ModuleType) -> None:
    with pytest.raises(SystemExit, match="as many sequences"):
        compare.differing([[1]], [[1], [2]])
