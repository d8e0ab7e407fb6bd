from __future__ import annotations

import pytest

from lazygraph_vllm.settings import HANDSHAKE_MS_MAX, Curve, Settings, SettingsError, load_settings

KEY = "a" * 40


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"LAZYGRAPH_MODE": ""},
        {"LAZYGRAPH_MODE": " ", "LAZYGRAPH_ENDPOINT": ""},
        {"LAZYGRAPH_MODE": "lazy", "LAZYGRAPH_DISABLE": "1"},
        {"LAZYGRAPH_MODE": "nonsense", "LAZYGRAPH_DISABLE": "TRUE"},
        {"LAZYGRAPH_VERIFY": "1"},
    ],
)
def test_nothing_to_do(env: dict[str, str]) -> None:
    assert load_settings(env) is None


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"LAZYGRAPH_MODE": "eager"}, Settings(mode="eager")),
        ({"LAZYGRAPH_MODE": " Lazy "}, Settings(mode="lazy")),
        (
            {"LAZYGRAPH_ENDPOINT": "tcp://127.0.0.1:5757"},
            Settings(mode="idle", endpoint="tcp://127.0.0.1:5757"),
        ),
        (
            {"LAZYGRAPH_ENDPOINT": " tcp://a:1, ipc:///b ,"},
            Settings(mode="idle", endpoint="tcp://a:1, ipc:///b"),
        ),
        (
            {"LAZYGRAPH_ENDPOINT": "ipc:///run/lazygraph", "LAZYGRAPH_MODE": "lazy"},
            Settings(mode="lazy", endpoint="ipc:///run/lazygraph"),
        ),
        (
            {"LAZYGRAPH_MODE": "idle", "LAZYGRAPH_HANDSHAKE_MS": "0"},
            Settings(mode="idle", handshake_ms=0),
        ),
        (
            {"LAZYGRAPH_MODE": "idle", "LAZYGRAPH_HANDSHAKE_MS": str(HANDSHAKE_MS_MAX)},
            Settings(mode="idle", handshake_ms=HANDSHAKE_MS_MAX),
        ),
        ({"LAZYGRAPH_MODE": "idle", "LAZYGRAPH_HANDSHAKE_MS": ""}, Settings(mode="idle")),
        ({"LAZYGRAPH_MODE": "idle", "LAZYGRAPH_RESERVE": ""}, Settings(mode="idle")),
        (
            {"LAZYGRAPH_MODE": "idle", "LAZYGRAPH_RESERVE": " Plan"},
            Settings(mode="idle", reserve="plan"),
        ),
        (
            {"LAZYGRAPH_MODE": "idle", "LAZYGRAPH_ENGINE": "e" * 128},
            Settings(mode="idle", engine="e" * 128),
        ),
        (
            {
                "LAZYGRAPH_MODE": "idle",
                "LAZYGRAPH_VERIFY": "yes",
                "LAZYGRAPH_ALLOW_UNTESTED": "on",
                "LAZYGRAPH_DISABLE": "off",
            },
            Settings(mode="idle", verify=True, allow_untested=True),
        ),
        (
            {
                "LAZYGRAPH_MODE": "idle",
                "LAZYGRAPH_SERVER_KEY": KEY,
                "LAZYGRAPH_PUBLIC_KEY": KEY,
                "LAZYGRAPH_SECRET_KEY": KEY,
            },
            Settings(mode="idle", curve=Curve(KEY, KEY, KEY)),
        ),
    ],
)
def test_values(env: dict[str, str], expected: Settings) -> None:
    assert load_settings(env) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LAZYGRAPH_MODE", "sometimes"),
        ("LAZYGRAPH_MODE", "lazy,idle"),
        ("LAZYGRAPH_ENDPOINT", "127.0.0.1:5757"),
        ("LAZYGRAPH_ENDPOINT", "inproc://x"),
        ("LAZYGRAPH_ENDPOINT", "http://127.0.0.1"),
        ("LAZYGRAPH_ENDPOINT", "tcp://a:1,b:2"),
        ("LAZYGRAPH_ENDPOINT", "tcp://a:1,tcp://a:1"),
        ("LAZYGRAPH_ENDPOINT", ",".join(f"tcp://a:{port}" for port in range(1, 10))),
        ("LAZYGRAPH_HANDSHAKE_MS", "-1"),
        ("LAZYGRAPH_HANDSHAKE_MS", "0.5"),
        ("LAZYGRAPH_HANDSHAKE_MS", "250ms"),
        ("LAZYGRAPH_HANDSHAKE_MS", "٣"),
        ("LAZYGRAPH_HANDSHAKE_MS", str(HANDSHAKE_MS_MAX + 1)),
        ("LAZYGRAPH_ENGINE", "e" * 129),
        ("LAZYGRAPH_ENGINE", "red\x1b[31m"),
        ("LAZYGRAPH_VERIFY", "2"),
        ("LAZYGRAPH_DISABLE", "maybe"),
        ("LAZYGRAPH_ALLOW_UNTESTED", "0.27"),
        ("LAZYGRAPH_SERVER_KEY", KEY),
        ("LAZYGRAPH_PUBLIC_KEY", "short"),
        ("LAZYGRAPH_SECRET_KEY", KEY),
    ],
)
def test_a_bad_value_is_one_sentence_that_names_the_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings({"LAZYGRAPH_MODE": "idle", name: value})
    sentence = str(error.value)
    keys = ("LAZYGRAPH_SERVER_KEY", "LAZYGRAPH_PUBLIC_KEY", "LAZYGRAPH_SECRET_KEY")
    assert name in sentence or (name in keys and any(k in sentence for k in keys))
    assert sentence.startswith("expected ") and "got " in sentence
    assert "\n" not in sentence and "\x1b" not in sentence


def test_endpoints_are_tried_in_the_order_given() -> None:
    settings = load_settings({"LAZYGRAPH_ENDPOINT": "tcp://b:1 ,tcp://a:1"})
    assert settings is not None and settings.endpoints == ("tcp://b:1", "tcp://a:1")


def test_keys_never_appear_in_a_message() -> None:
    with pytest.raises(SettingsError) as error:
        load_settings({"LAZYGRAPH_MODE": "idle", "LAZYGRAPH_SECRET_KEY": "s3cret" * 7})
    assert "s3cret" not in str(error.value)


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAZYGRAPH_MODE", "lazy")
    monkeypatch.delenv("LAZYGRAPH_ENDPOINT", raising=False)
    settings = load_settings()
    assert settings is not None and settings.mode == "lazy"


def test_a_name_may_hold_whatever_the_protocol_allows() -> None:
    name = "Büro\u00a07 / ∎"
    settings = load_settings({"LAZYGRAPH_MODE": "idle", "LAZYGRAPH_ENGINE": name})
    assert settings is not None and settings.engine == name
