"""An unexpected shape of vLLM must not keep an engine from starting."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from lazygraph_vllm.engine import agent as engine
from test_stock import assert_stock, started

pytestmark = pytest.mark.usefixtures("pristine", "gpu")


def broken(*_: Any, **__: Any) -> None:
    raise AttributeError("no such field")


def test_a_configuration_we_cannot_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "config_reason", broken)
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    assert_stock(started(monkeypatch))
    assert "running as stock: can't read the configuration: AttributeError" in caplog.text


def test_graphs_we_cannot_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lazygraph_vllm.rank.pairs.describe_graph", broken)
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    assert_stock(started(monkeypatch))
    assert "running as stock: can't read its graphs: AttributeError" in caplog.text
