"""What a launcher decides about a request, and whom it listens to."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from lazygraph_vllm.launcher import client, refusal
from lazygraph_vllm.launcher.__main__ import default_socket
from lazygraph_vllm.launcher.listener import _user
from lazygraph_vllm.launcher.refusal import RefusedError
from lazygraph_vllm.launcher.request import (
    Own,
    Request,
    check,
    child_environment,
    differing,
    model_of,
    parse,
    vllm_words,
)

REQUEST = Request(
    argv=["/opt/vllm/bin/vllm", "serve", "org/model"],
    env={"PATH": "/bin"},
    cwd="/",
    cpus=[0],
    umask=0o022,
    nice=0,
    limits={"7": [1024, 4096]},
    ignored=[],
    prefix="/opt/vllm",
    version="3.12",
    namespaces=["mnt:[1]", "pid:[2]", "net:[3]"],
    gid=1000,
)
OWN = Own(
    prefix=REQUEST.prefix,
    version=REQUEST.version,
    namespaces=REQUEST.namespaces,
    gid=REQUEST.gid,
    env={"PATH": "/usr/bin", "HF_HOME": "/models"},
    read=frozenset({"PATH", "HF_HOME", "VLLM_TARGET_DEVICE"}),
)

COMMANDS = json.loads((Path(__file__).parents[2] / "test/golden/vllm-commands.json").read_bytes())


def refused(request: Request, own: Own = OWN) -> str:
    with pytest.raises(RefusedError) as caught:
        check(request, own)
    sentence = str(caught.value)
    assert sentence.startswith("Expected ") and sentence.endswith(".")
    return caught.value.code


def test_a_request_survives_its_way_over_the_socket() -> None:
    assert parse(json.dumps(dataclasses.asdict(REQUEST)).encode()) == REQUEST


@pytest.mark.parametrize(
    "change",
    [
        {"argv": []},
        {"argv": "vllm serve"},
        {"env": {"A": 1}},
        {"cpus": [True]},
        {"umask": "022"},
        {"limits": {"x": [1, 2]}},
        {"limits": {"7": [1]}},
        {"namespaces": None},
    ],
)
def test_fields_of_other_types_are_refused(change: dict[str, object]) -> None:
    body = dataclasses.asdict(REQUEST) | change
    with pytest.raises(RefusedError) as caught:
        parse(json.dumps(body).encode())
    assert caught.value.code == refusal.REQUEST


def test_what_fits_gets_the_words_for_main() -> None:
    fits = dataclasses.replace(REQUEST, env={"PATH": "/other", "HF_HOME": "/models"})
    assert check(fits, OWN) == ["serve", "org/model"]


def test_each_way_of_not_fitting_has_its_code() -> None:
    fits = dataclasses.replace(REQUEST, env={"HF_HOME": "/models"})
    assert refused(REQUEST) == refusal.VARIABLE  # HF_HOME isn't set
    assert refused(dataclasses.replace(fits, prefix="/usr")) == refusal.PYTHON
    assert refused(dataclasses.replace(fits, version="3.13")) == refusal.PYTHON
    by_module = ["python3", "-um", "vllm.entrypoints.cli.main", "serve", "org/model"]
    assert check(dataclasses.replace(fits, argv=by_module), OWN) == by_module[3:]
    by_script = ["python3", "-u", "/opt/vllm/bin/vllm", "serve", "org/model"]
    assert check(dataclasses.replace(fits, argv=by_script), OWN) == by_script[3:]
    by_module[1] = "-Oum"
    assert refused(dataclasses.replace(fits, argv=by_module)) == refusal.PYTHON
    assert refused(dataclasses.replace(fits, namespaces=["mnt:[9]"])) == refusal.NOT_ALLOWED
    assert refused(dataclasses.replace(fits, gid=7)) == refusal.NOT_ALLOWED
    assert refused(dataclasses.replace(fits, argv=["/bin/sh", "serve"])) == refusal.NOT_ALLOWED
    only = dataclasses.replace(OWN, models=("other",))
    assert refused(fits, only) == refusal.NOT_ALLOWED


@pytest.mark.parametrize("case", COMMANDS, ids=lambda case: case["command"])
def test_vllms_words_as_the_doctor_has_them(case: dict[str, Any]) -> None:
    env, argv = client.without_env(case["command"].split())
    if "file" not in case or case.get("spawned"):
        with pytest.raises(RefusedError):
            vllm_words(argv)
        return
    assert vllm_words(argv) == case["words"].split()
    assert case.get("variables", {}).items() <= env.items()


def test_the_model_that_words_name() -> None:
    assert model_of(["serve", "a"]) == "a"
    assert model_of(["serve", "a", "--model", "b"]) == "a"  # as vLLM does
    assert model_of(["serve", "--model", "b"]) == "b"
    assert model_of(["serve", "--port", "1"]) is None
    assert model_of(["serve", "a", "--config=file"]) is None


def test_variables_of_a_processs_start_count_unseen() -> None:
    env = {"HF_HOME": "/models", "OMP_NUM_THREADS": "1", "PYTHONPATH": "/x", "SHLVL": "3"}
    assert differing(env, OWN) == ["OMP_NUM_THREADS", "PYTHONPATH"]
    # A script's word, which no interpreter reads.
    assert differing({**OWN.env, "PYTHON": "python3.12"}, OWN) == []


def test_a_servers_variables_are_its_clients_and_what_imports_do() -> None:
    assert child_environment({"A": "1", "B": "2"}, {"B": "set", "C": "new", "A": None}) == {
        "VLLM_WORKER_MULTIPROC_METHOD": "fork",
        "B": "set",
        "C": "new",
    }
    asked = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    assert child_environment(asked, {})["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"


def test_the_kernel_says_whose_a_peer_is() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert _user(ours) == os.getuid()


def test_a_client_talks_to_no_socket_of_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        client.connect(str(path)).close()
        monkeypatch.setattr(client.os, "getuid", lambda: os.geteuid() + 1)
        with pytest.raises(client.NotForkedError, match="Expected a socket of this user"):
            client.connect(str(path))


def test_a_default_socket_is_in_a_folder_of_its_users_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = Path(default_socket())
    assert path == Path(default_socket())
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.parent.chmod(0o777)
    with pytest.raises(RefusedError, match="only this user can enter"):
        default_socket()


def test_a_request_nested_without_end_is_refused_as_any_other() -> None:
    with pytest.raises(RefusedError, match="Expected a request with"):
        parse(b"[" * 200_000)


@pytest.mark.parametrize("runtime", ["/nowhere", "/dev/null"])
def test_a_folder_for_sockets_that_cannot_be_made_is_told(
    runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    with pytest.raises(RefusedError, match=f"Expected to make {runtime}/lazygraph-"):
        default_socket()
