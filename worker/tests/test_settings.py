from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lazygraph_vllm.settings import HANDSHAKE_MS_MAX, Curve, Settings, SettingsError, load_settings

SERVER = "a" * 40
# Of https://rfc.zeromq.org/spec/26: a pair.
PUBLIC = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
SECRET = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"


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
            {"LAZYGRAPH_ENDPOINT": " tcp://127.0.0.2:1, ipc:///b ,"},
            Settings(mode="idle", endpoint="tcp://127.0.0.2:1, ipc:///b"),
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
                "LAZYGRAPH_SERVER_KEY": SERVER,
                "LAZYGRAPH_PUBLIC_KEY": PUBLIC,
                "LAZYGRAPH_SECRET_KEY": SECRET,
            },
            Settings(mode="idle", curve=Curve(SERVER, PUBLIC, SECRET)),
        ),
    ],
)
def test_values(env: dict[str, str], expected: Settings) -> None:
    assert load_settings(env) == expected


def test_one_can_bind_to_all_addresses_and_connect_to_none_of_them() -> None:
    with pytest.raises(SettingsError, match="to be tcp://HOST:PORT"):
        load_settings({"LAZYGRAPH_ENDPOINT": "tcp://*:5757"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LAZYGRAPH_MODE", "sometimes"),
        ("LAZYGRAPH_MODE", "lazy,idle"),
        ("LAZYGRAPH_ENDPOINT", "127.0.0.1:5757"),
        ("LAZYGRAPH_ENDPOINT", "inproc://x"),
        ("LAZYGRAPH_ENDPOINT", "http://127.0.0.1"),
        ("LAZYGRAPH_ENDPOINT", "tcp://127.0.0.1:1,b:2"),
        ("LAZYGRAPH_ENDPOINT", "tcp://127.0.0.1"),
        ("LAZYGRAPH_ENDPOINT", "tcp://127.0.0.1:"),
        ("LAZYGRAPH_ENDPOINT", "tcp://127.0.0.1:5757x"),
        ("LAZYGRAPH_ENDPOINT", "tcp://127.0.0.1:0"),
        ("LAZYGRAPH_ENDPOINT", "tcp://127.0.0.1:65536"),
        ("LAZYGRAPH_ENDPOINT", "ipc:///good,ipc://"),
        ("LAZYGRAPH_ENDPOINT", "ipc:///" + "x" * 107),
        ("LAZYGRAPH_ENDPOINT", "tcp://[::1]:1,tcp://[::1]:1"),
        ("LAZYGRAPH_ENDPOINT", ",".join(f"tcp://localhost:{port}" for port in range(1, 10))),
        ("LAZYGRAPH_HANDSHAKE_MS", "-1"),
        ("LAZYGRAPH_HANDSHAKE_MS", "0.5"),
        ("LAZYGRAPH_HANDSHAKE_MS", "250ms"),
        ("LAZYGRAPH_HANDSHAKE_MS", "٣"),
        ("LAZYGRAPH_HANDSHAKE_MS", str(HANDSHAKE_MS_MAX + 1)),
        ("LAZYGRAPH_HANDSHAKE_MS", "1" * 5000),
        ("LAZYGRAPH_ENGINE", "e" * 129),
        ("LAZYGRAPH_ENGINE", "🚀" * 65),
        ("LAZYGRAPH_ENGINE", "red\x1b[31m"),
        ("LAZYGRAPH_ENGINE", "no UTF-8 \udcff"),
        ("LAZYGRAPH_VERIFY", "2"),
        ("LAZYGRAPH_DISABLE", "maybe"),
        ("LAZYGRAPH_ALLOW_UNTESTED", "0.27"),
        ("LAZYGRAPH_SERVER_KEY", SERVER),
        ("LAZYGRAPH_PUBLIC_KEY", "short"),
        ("LAZYGRAPH_SECRET_KEY", SECRET),
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
    settings = load_settings({"LAZYGRAPH_ENDPOINT": "tcp://[::1]:1 ,tcp://localhost:1"})
    assert settings is not None
    assert settings.endpoints == ("tcp://[::1]:1", "tcp://localhost:1")


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


def keys(folder: Path, mode: int = 0o600) -> str:
    for name, key in (("server", SERVER), ("public", PUBLIC), ("secret", SECRET)):
        (folder / f"{name}.key").write_text(f"{key}\n")
    (folder / "secret.key").chmod(mode)
    return str(folder)


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://10.0.0.7:5757",
        "tcp://controller:5757",
        "tcp://[fd00::2]:5757",
        "tcp://127.0.0.1.example.org:1",
    ],
)
def test_another_machine_needs_keys(endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="expected CURVE keys for LAZYGRAPH_ENDPOINT") as raised:
        load_settings({"LAZYGRAPH_ENDPOINT": f"ipc:///local,{endpoint}"})
    assert endpoint in str(raised.value)
    env = {"LAZYGRAPH_ENDPOINT": endpoint, "LAZYGRAPH_ENGINE_KEYS": keys(tmp_path)}
    settings = load_settings(env)
    assert settings is not None and settings.curve == Curve(SERVER, PUBLIC, SECRET)
    assert f"secret_key={SECRET!r}" not in repr(settings)


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640])
def test_a_secret_that_its_group_may_read(mode: int, tmp_path: Path) -> None:
    settings = load_settings(
        {"LAZYGRAPH_MODE": "lazy", "LAZYGRAPH_ENGINE_KEYS": keys(tmp_path, mode)}
    )
    assert settings is not None and settings.curve == Curve(SERVER, PUBLIC, SECRET)


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o601])
def test_a_secret_that_others_may_read_is_refused(mode: int, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"secret.key to be a file .* got mode {mode:04o}"):
        load_settings({"LAZYGRAPH_MODE": "lazy", "LAZYGRAPH_ENGINE_KEYS": keys(tmp_path, mode)})


def test_a_folder_that_lacks_a_key(tmp_path: Path) -> None:
    env = {"LAZYGRAPH_MODE": "lazy", "LAZYGRAPH_ENGINE_KEYS": keys(tmp_path)}
    with pytest.raises(SettingsError, match="got both"):
        load_settings({**env, "LAZYGRAPH_PUBLIC_KEY": PUBLIC})
    (tmp_path / "public.key").write_text("short")
    with pytest.raises(SettingsError, match="public.key to be a Z85 key .* got 5 characters"):
        load_settings(env)
    (tmp_path / "server.key").unlink()
    with pytest.raises(SettingsError, match="server.key .* got ENOENT; copy the controller's"):
        load_settings(env)


def test_keys_that_were_swapped_are_told(tmp_path: Path) -> None:
    folder = keys(tmp_path)
    (tmp_path / "public.key").write_text(SECRET)
    (tmp_path / "secret.key").write_text(PUBLIC)
    with pytest.raises(SettingsError, match="to be the secret key of .*, got another one's"):
        load_settings({"LAZYGRAPH_MODE": "lazy", "LAZYGRAPH_ENGINE_KEYS": folder})


def test_what_vllm_loads_in_all_of_its_processes_brings_no_messages_with_it() -> None:
    names = "'lazygraph_vllm.protocol.messages' in sys.modules"
    code = f"import sys, lazygraph_vllm.plugin; print({names})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"
