"""The entry point that vLLM calls in every process."""

from __future__ import annotations

import logging

from .settings import SettingsError, load_settings
from .timeline.install import install as install_timeline

logger = logging.getLogger("vllm.lazygraph")


def register() -> None:
    """Install the hooks if the environment asks for them. Starts nothing, imports nothing heavy."""
    install_timeline()  # of stock too, and first: what ours replaces is timed as vLLM's own
    try:
        settings = load_settings()
    except SettingsError as error:
        logger.warning("lazygraph: running as stock: %s", error)
        return
    if settings is None:
        return
    from .vllm.engine_hooks import install

    install(settings)
