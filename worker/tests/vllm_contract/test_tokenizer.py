"""That vLLM finds a tokenizer which a launcher has loaded where it looks for its own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM isn't installed here: its own caches are the test bed")
pytestmark = pytest.mark.vllm_contract

import small_model  # noqa: E402
from lazygraph_vllm.vllm.tokenizer import keep_tokenizer  # noqa: E402


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model with a tokenizer of 256 bytes."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return small_model.write(tmp_path)


def config_of(folder: str) -> Any:
    """What ``vllm serve FOLDER`` makes of it."""
    from vllm.engine.arg_utils import EngineArgs

    args = EngineArgs(model=folder)
    return SimpleNamespace(
        **{"model": args.model, "tokenizer": args.tokenizer or args.model, "hf_config": None},
        **{"skip_tokenizer_init": args.skip_tokenizer_init, "tokenizer_mode": args.tokenizer_mode},
        **{"runner_type": "generate" if args.runner == "auto" else args.runner},
        **{"tokenizer_revision": args.tokenizer_revision, "code_revision": args.code_revision},
        trust_remote_code=args.trust_remote_code,
    )


def test_a_server_finds_it_by_its_own_words(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.renderers import hf
    from vllm.tokenizers import registry

    keep_tokenizer(folder)
    before = registry.cached_get_tokenizer.cache_info()
    tokenizer = registry.cached_tokenizer_from_config(config_of(folder))
    after = registry.cached_get_tokenizer.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)
    # Nor is it loaded once more for a chat template.
    monkeypatch.setattr(hf, "cached_get_processor", lambda *_, **__: pytest.fail("loaded again"))
    template = hf.resolve_chat_template(
        tokenizer, chat_template=None, tools=None, model_config=config_of(folder)
    )
    assert template == "{{ messages }}"


def test_without_it_both_are_loaded(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control."""
    from vllm.renderers import hf
    from vllm.tokenizers import registry

    before = registry.cached_get_tokenizer.cache_info()
    tokenizer = registry.cached_tokenizer_from_config(config_of(folder))
    assert registry.cached_get_tokenizer.cache_info().misses == before.misses + 1
    asked = []
    monkeypatch.setattr(hf, "cached_get_processor", lambda name, **_: asked.append(name))
    hf.resolve_chat_template(
        tokenizer, chat_template=None, tools=None, model_config=config_of(folder)
    )
    assert asked == [folder]


def test_a_folder_without_a_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises((OSError, ValueError)):
        keep_tokenizer(str(tmp_path))
