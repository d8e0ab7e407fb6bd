#!/bin/sh
# PyTorch's page on configuring compile caches says of TORCHINDUCTOR_FX_GRAPH_CACHE, _AUTOGRAD_CACHE
# and _FX_GRAPH_REMOTE_CACHE that 1 enables and any other value disables. Of the first two only 0
# disables: `false` enables. Of TORCHINDUCTOR_FORCE_DISABLE_CACHES it disables all caches. What reads
# them makes booleans of 0 and 1 where a text is wanted, too: of jobs told by a number, 0 and 1 have
# an error for the key of their profile (PGO), and 2 has a key.
# Seen with torch 2.15.0: the output below. With all of 2.14.0, `false` does what is said here, and
# job 1 compiles nothing. Only the lines in question are run, from the wheel of a system whose wheel
# is small.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip download -q --no-deps --only-binary :all: --python-version 3.11 \
  --platform macosx_14_0_arm64 torch==2.15.0

cat >child.py <<'PY'
import ast
import glob
import sys
import types
import zipfile
from pathlib import Path

(WHEEL,) = glob.glob("torch-*.whl")
for name in ("torch", "torch.utils"):  # without what importing them would run
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [f"{WHEEL}/{name.replace('.', '/')}"]
torch = sys.modules["torch"]


def taken(file, *wanted):
    """Some definitions of a file, without the rest."""
    for node in ast.parse(zipfile.ZipFile(WHEEL).read(f"torch/{file}.py")).body:
        if getattr(getattr(node, "target", node), "id", getattr(node, "name", "")) in wanted:
            yield ast.unparse(node)


remote = "fx_graph_remote_cache"
lines = (
    "import sys",
    "from torch.utils._config_module import Config, get_tristate_env, install_config_module",
    *taken("_inductor/config", "fx_graph_cache", remote, f"{remote}_default"),
    *taken("_functorch/config", "enable_autograd_cache"),
    *taken("compiler/config", "force_disable_caches", "job_id"),
    "install_config_module(sys.modules[__name__])",
)
Path("settings.py").write_text("\n".join(lines))
import settings  # noqa: E402

for name in ("fx_graph_cache", "enable_autograd_cache", remote, "force_disable_caches"):
    print("on" if getattr(settings, name) else "off")
torch.compiler = types.SimpleNamespace(config=settings)
names = {"torch": torch, "format_cache_key": str, "warn_once": str}
exec("\n".join(taken("_dynamo/pgo", "get_cache_key")), names)
try:
    print(names["get_cache_key"]())
except AttributeError as error:
    print(error)
PY
cat >parent.py <<'PY'
import os
import subprocess
import sys

VALUES = ("1", "0", "false", "off")
SWITCHES = ("FX_GRAPH_CACHE", "AUTOGRAD_CACHE", "FX_GRAPH_REMOTE_CACHE", "FORCE_DISABLE_CACHES")


def told(**given):
    command = [sys.executable, "child.py"]
    return subprocess.check_output(command, env=os.environ | given, text=True).splitlines()


print("set to:", *VALUES)
columns = [told(**{f"TORCHINDUCTOR_{name}": value for name in SWITCHES}) for value in VALUES]
for name, row in zip(SWITCHES, zip(*columns)):
    print(f"TORCHINDUCTOR_{name}:", *row)
for job in "012":
    print(f"TORCH_COMPILE_JOB_ID={job}:", told(TORCH_COMPILE_JOB_ID=job)[-1])
PY
python3 parent.py | tee output
cat >expected <<'TXT'
set to: 1 0 false off
TORCHINDUCTOR_FX_GRAPH_CACHE: on off on on
TORCHINDUCTOR_AUTOGRAD_CACHE: on off on on
TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE: on off off off
TORCHINDUCTOR_FORCE_DISABLE_CACHES: on off on on
TORCH_COMPILE_JOB_ID=0: 'bool' object has no attribute 'startswith'
TORCH_COMPILE_JOB_ID=1: 'bool' object has no attribute 'startswith'
TORCH_COMPILE_JOB_ID=2: 2
TXT
cmp expected output
