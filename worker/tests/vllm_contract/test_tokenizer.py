"""That vLLM finds a tokenizer which a launcher has loaded where it looks for its own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import small_model
from lazygraph_vllm.vllm.tokenizer import keep_tokenizer
from lazygraph_vllm.vllm.tokenizer_copies import keep_copies


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


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The originals of which vLLM makes a tokenizer, a copy's too."""
    from vllm.tokenizers import hf

    originals: list[Any] = []
    make = hf.get_cached_tokenizer

    def noted(original: Any) -> Any:
        originals.append(original)
        return make(original)

    monkeypatch.setattr(hf, "get_cached_tokenizer", noted)
    return originals


def renderer_of(folder: str, **differences: Any) -> Any:
    """The renderer of a server without multimodal inputs, and its threads' tokenizers."""
    from vllm.renderers.hf import HfRenderer
    from vllm.tokenizers import registry

    model = config_of(folder)
    facts: dict[str, Any] = dict.fromkeys(
        ("supports_multimodal_inputs", "is_multimodal_model"), False
    )
    facts |= {"renderer_num_workers": 1} | differences
    for name, value in facts.items():
        setattr(model, name, value)
    config = SimpleNamespace(model_config=model, parallel_config=SimpleNamespace())
    config.parallel_config._api_process_rank = 0
    return HfRenderer(config, registry.cached_tokenizer_from_config(model))


def pool_of(renderer: Any) -> list[Any]:
    """Of vLLM's own pool, which is nowhere but in its closures."""
    method = type(renderer.tokenizer).encode
    cells = dict(zip(method.__code__.co_freevars, method.__closure__, strict=True))
    borrow = cells["_borrow_from_pool"].cell_contents.__wrapped__
    cells = dict(zip(borrow.__code__.co_freevars, borrow.__closure__, strict=True))
    return list(cells["tokenizer_pool"].cell_contents.queue)


def test_a_renderer_makes_no_copies_of_one_that_was_kept(folder: str, made: list[Any]) -> None:
    from vllm.tokenizers import registry

    keep_tokenizer(folder)
    made.clear()
    renderer = renderer_of(folder)
    assert made == []
    # Another one has to: those are given away once.
    other = renderer_of(folder)
    assert len(made) == 4
    kept = registry.cached_tokenizer_from_config(config_of(folder))
    ours, stock = pool_of(renderer), pool_of(other)
    assert len(ours) == len(stock) == 2
    owners = {id(each._tokenizer) for each in (kept, *ours, *stock)}
    assert len(owners) == 5
    assert renderer.tokenizer._tokenizer is kept._tokenizer is other.tokenizer._tokenizer
    for each, theirs in zip((renderer.tokenizer, *ours), (other.tokenizer, *stock), strict=True):
        assert each.get_vocab() == theirs.get_vocab()
        assert (len(each), each.max_token_id) == (len(theirs), theirs.max_token_id)
        left, right = vars(each).copy(), vars(theirs).copy()
        assert left.pop("_tokenizer").to_str() == right.pop("_tokenizer").to_str()
        assert left == right
        assert each("some words").input_ids == theirs("some words").input_ids


def test_without_it_a_renderer_makes_four(folder: str, made: list[Any]) -> None:
    """Positive control."""
    renderer_of(folder)
    assert len(made) == 1 + 4


def test_one_that_has_changed_is_copied_as_it_is_now(folder: str, made: list[Any]) -> None:
    from vllm.renderers import hf

    keep_tokenizer(folder)
    made.clear()
    # vLLM adds a word to the first copy, and so to what all of them are made from.
    renderer = renderer_of(folder, enable_prompt_embeds=True)
    assert len(made) == 3
    words = [each.get_vocab() for each in pool_of(renderer)]
    assert all(hf.PROMPT_EMBEDS_PLACEHOLDER_TOKEN in each for each in words)


def test_what_vllm_does_not_cache_is_left_alone() -> None:
    from transformers import PreTrainedTokenizerFast

    before = dict(vars(PreTrainedTokenizerFast))
    with pytest.raises(TypeError, match="that vLLM caches"):
        keep_copies(PreTrainedTokenizerFast.__new__(PreTrainedTokenizerFast))
    assert dict(vars(PreTrainedTokenizerFast)) == before
