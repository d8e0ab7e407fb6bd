"""A model's classes, by its folder, before any server wants them."""

from __future__ import annotations

import json
from pathlib import Path

from .adapter import replaced


def import_model(folder: str) -> None:
    """Import what vLLM imports for it: the configuration's class and the model's.

    And have vLLM note in its cache what the model's class can do, for which a start without that
    note imports all of vLLM in one more process: so as not to take the GPU, which isn't taken here.

    Args:
        folder: the model, with its `config.json`.

    Raises:
        OSError: there is no such file.
        ValueError: it is no JSON.
        KeyError: neither transformers nor vLLM knows its kind by itself.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from vllm.model_executor.models import registry

    config = json.loads(Path(folder, "config.json").read_text())
    _ = CONFIG_MAPPING[config["model_type"]]
    for architecture in config["architectures"]:
        model = registry.ModelRegistry.models[architecture]
        model.load_model_cls()
        with replaced(registry, "_run_in_subprocess", lambda look: look()):
            model.inspect_model_cls()
