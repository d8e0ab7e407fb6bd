"""A model's tokenizer in vLLM's own caches, before any server wants it.

vLLM keeps a tokenizer by the words it was asked for with. A text model's is loaded a second time at
each start, by whoever looks for a processor's chat template; what came of that is kept as well.
"""

from __future__ import annotations

import contextlib
import inspect
from types import SimpleNamespace

from .tokenizer_copies import keep_copies


def keep_tokenizer(folder: str) -> None:
    """Load it as ``vllm serve FOLDER`` does that says nothing else about tokenizers.

    Args:
        folder: the model, in the very words of the commands that are to find it.

    Raises:
        Exception: whatever vLLM raises of a folder without a tokenizer.
    """
    from vllm.renderers import hf
    from vllm.tokenizers import registry

    model = SimpleNamespace(
        **{"model": folder, "tokenizer": folder, "skip_tokenizer_init": False},
        **{"runner_type": "generate", "tokenizer_mode": "auto", "hf_config": None},
        **{"tokenizer_revision": None, "code_revision": None, "trust_remote_code": False},
    )
    tokenizer = registry.cached_tokenizer_from_config(model)
    # Versions differ in what they ask for; one without it looks for it at each start.
    look = getattr(hf, "_try_get_processor_chat_template", None)
    if look is not None:
        known = {"revision": None, "code_revision": None, "trust_remote_code": False}
        asked = inspect.signature(look).parameters
        look(tokenizer, **{name: value for name, value in known.items() if name in asked})
    # One of another kind is copied by each server, as ever.
    with contextlib.suppress(Exception):
        keep_copies(tokenizer)
