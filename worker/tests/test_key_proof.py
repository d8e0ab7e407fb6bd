"""Both sides prove keys alike; without the package none is."""

from __future__ import annotations

import builtins
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from lazygraph_vllm.keys import Curve
from lazygraph_vllm.protocol.key_proof import prove_key

GOLDEN = json.loads((Path(__file__).parents[2] / "test/golden/key-proofs.json").read_bytes())
CLIENT, SERVER = GOLDEN["client"], GOLDEN["server"]
CURVE = Curve(SERVER["publicKey"], CLIENT["publicKey"], CLIENT["secretKey"])


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=[c["engine"] for c in GOLDEN["cases"]])
def test_golden(case: dict[str, Any]) -> None:
    proof = prove_key(CURVE, case["engine"], case["session"])
    assert proof is not None
    assert (proof.key, proof.mac) == (CLIENT["publicKey"], case["mac"])


def test_each_name_and_process_has_one() -> None:
    proofs = [prove_key(CURVE, *claimed) for claimed in (("a", "b"), ("a", "c"), ("c", "b"))]
    assert len({proof.mac for proof in proofs if proof}) == 3


def test_a_missing_package_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with caplog.at_level(logging.WARNING, "vllm.lazygraph"):
        assert prove_key(CURVE, "a", "b") is None
    assert "expected the package cryptography beside CURVE keys" in caplog.text


@pytest.mark.parametrize("key", ["0" * 40, "#" * 40], ids=["of small order", "no four bytes"])
def test_bad_keys_are_said(key: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "vllm.lazygraph"):
        assert prove_key(Curve(key, CURVE.public_key, CURVE.secret_key), "a", "b") is None
    assert "expected CURVE keys that go together" in caplog.text
