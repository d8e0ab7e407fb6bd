"""What the environment asks of the plugin.

Variables don't start with ``VLLM_``: vLLM warns about unknown ones of that name, and its
``--additional-config`` would enter the hash of the compile cache.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .keys import Curve, SettingsError, check_endpoint_has_keys, load_curve
from .protocol.texts import ID_CHARS_MAX, shortened

__all__ = ["Curve", "Settings", "SettingsError", "load_settings"]

Mode = Literal["eager", "lazy", "idle"]
MODES: tuple[Mode, ...] = ("eager", "lazy", "idle")
Reserve = Literal["none", "least", "top", "plan"]
RESERVES: tuple[Reserve, ...] = ("none", "least", "top", "plan")
OtherGpus = Literal["run", "stock"]
OTHER_GPUS: tuple[OtherGpus, ...] = ("run", "stock")

HANDSHAKE_MS_MAX = 60_000
ENDPOINTS_MAX = 8
# What fits into a socket's address on Linux.
SOCKET_PATH_BYTES_MAX = 107


@dataclass(frozen=True)
class Settings:
    """Validated settings of one engine process."""

    mode: Mode
    # One address, or several in order with commas between them; see ``endpoints``.
    endpoint: str | None = None
    engine: str | None = None
    handshake_ms: int = 250
    verify: bool = False
    allow_untested: bool = False
    curve: Curve | None = None
    # What is kept back from the KV cache for graphs; a controller's welcome overrides it.
    reserve: Reserve = "least"
    # What to do on a GPU that was not tried: capture and say so, or leave the engine to vLLM.
    other_gpus: OtherGpus = "run"

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The controller's address, then its standbys', in the order in which they are tried."""
        return tuple(e.strip() for e in (self.endpoint or "").split(",") if e.strip())


def _is_address(endpoint: str) -> bool:
    """Whether one can connect there: for any other libzmq ends the link's thread with an error."""
    if endpoint.startswith("ipc://"):
        return 0 < len(os.fsencode(endpoint.removeprefix("ipc://"))) <= SOCKET_PATH_BYTES_MAX
    port = re.fullmatch(r"tcp://[^\s/*]+:([0-9]{1,5})", endpoint)
    return port is not None and 1 <= int(port[1]) <= 65535


def _check_endpoints(endpoints: tuple[str, ...], curve: Curve | None) -> None:
    for endpoint in endpoints:
        if not endpoint.startswith(("tcp://", "ipc://")):
            raise SettingsError(
                f"expected LAZYGRAPH_ENDPOINT to start with tcp:// or ipc://, got {endpoint!r}"
            )
        if not _is_address(endpoint):
            raise SettingsError(
                "expected LAZYGRAPH_ENDPOINT to be tcp://HOST:PORT with a port of 1 to 65535, or "
                f"ipc://PATH with a path of 1 to {SOCKET_PATH_BYTES_MAX} bytes, got {endpoint!r}"
            )
        check_endpoint_has_keys(endpoint, curve)
    if len(endpoints) > ENDPOINTS_MAX:
        raise SettingsError(
            f"expected LAZYGRAPH_ENDPOINT to have at most {ENDPOINTS_MAX} addresses, "
            f"got {len(endpoints)}"
        )
    if len(set(endpoints)) < len(endpoints):
        raise SettingsError(
            f"expected LAZYGRAPH_ENDPOINT to name each address once, got {','.join(endpoints)!r}"
        )


def _flag(env: Mapping[str, str], name: str) -> bool:
    value = env.get(name, "0").strip().lower()
    if value in ("1", "true", "yes", "on"):
        return True
    if value in ("", "0", "false", "no", "off"):
        return False
    raise SettingsError(f"expected {name} to be 0 or 1, got {value!r}")


def load_settings(env: Mapping[str, str] | None = None) -> Settings | None:
    """Read the settings; ``None`` means the plugin has nothing to do.

    Raises:
        SettingsError: a variable has a value we can't use.
    """
    env = os.environ if env is None else env
    if _flag(env, "LAZYGRAPH_DISABLE"):
        return None
    mode = env.get("LAZYGRAPH_MODE", "").strip().lower()
    endpoint = env.get("LAZYGRAPH_ENDPOINT", "").strip(" ,\t\n") or None
    if not mode and endpoint is None:
        return None
    mode = mode or "idle"
    if mode not in MODES:
        raise SettingsError(f"expected LAZYGRAPH_MODE to be eager, lazy or idle, got {mode!r}")
    raw_ms = env.get("LAZYGRAPH_HANDSHAKE_MS", "").strip() or "250"
    # Python takes no more than 4,300 digits for a number.
    if re.fullmatch(r"0*[0-9]{1,5}", raw_ms) is None or int(raw_ms[-5:]) > HANDSHAKE_MS_MAX:
        raise SettingsError(
            f"expected LAZYGRAPH_HANDSHAKE_MS to be 0 to {HANDSHAKE_MS_MAX} milliseconds, "
            f"got {raw_ms[:80]!r}"
        )
    engine = env.get("LAZYGRAPH_ENGINE", "").strip() or None
    if engine is not None and any(unicodedata.category(c) in ("Cc", "Cs") for c in engine):
        raise SettingsError(
            f"expected LAZYGRAPH_ENGINE to be UTF-8 without control characters, "
            f"got {engine[:128]!r}"
        )
    if engine is not None and engine != shortened(engine, ID_CHARS_MAX):
        raise SettingsError(
            "expected LAZYGRAPH_ENGINE to have at most 128 characters (UTF-16), "
            f"got {len(engine.encode('utf-16-le')) // 2}"
        )
    reserve = env.get("LAZYGRAPH_RESERVE", "").strip().lower() or "least"
    if reserve not in RESERVES:
        raise SettingsError(
            f"expected LAZYGRAPH_RESERVE to be none, least, top or plan, got {reserve!r}"
        )
    other_gpus = env.get("LAZYGRAPH_OTHER_GPUS", "").strip().lower() or "run"
    if other_gpus not in OTHER_GPUS:
        raise SettingsError(f"expected LAZYGRAPH_OTHER_GPUS to be run or stock, got {other_gpus!r}")
    settings = Settings(
        mode=mode,
        endpoint=endpoint,
        engine=engine,
        handshake_ms=int(raw_ms[-5:]),
        verify=_flag(env, "LAZYGRAPH_VERIFY"),
        allow_untested=_flag(env, "LAZYGRAPH_ALLOW_UNTESTED"),
        curve=load_curve(env),
        reserve=reserve,
        other_gpus=other_gpus,
    )
    _check_endpoints(settings.endpoints, settings.curve)
    return settings
