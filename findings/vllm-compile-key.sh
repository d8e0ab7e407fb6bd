#!/bin/sh
# vLLM keeps a compiled model by a key that has every variable of its own, but for a list of those it
# knows to be harmless: VLLM_NIXL_SIDE_CHANNEL_HOST is on it, and VLLM_NIXL_SIDE_CHANNEL_PORT, which has to
# differ between engines of one host, is not. So each of them compiles anew beside a full cache; so does
# one that is given more time to get ready because it compiled too long, and, where the cache was filled
# outside vLLM's image, the image, which sets VLLM_USAGE_SOURCE and where it was built.
# Seen with vLLM 0.33.0, and 0.26.0: the output below. Its variables are read in the wheel: all of it
# would need torch, without which three of them are left out here. What differs between two caches is in
# their cache_key_factors.json.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip download -q --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 \
  vllm==0.33.0

cat >key.py <<'PY'
import glob
import os
import sys
import types
import zipfile

wheel = zipfile.ZipFile(glob.glob("vllm-*.whl")[0])
backend = wheel.read("vllm/compilation/backends.py").decode()
assert "env_factors = envs.compile_factors()" in backend
assert "factors = [env_hash, config_hash, code_hash, compiler_hash]" in backend
sys.modules["vllm.config.utils"] = types.SimpleNamespace(normalize_value=str)
envs = sys.modules["envs"] = types.ModuleType("envs")
exec(wheel.read("vllm/envs.py"), vars(envs))

for name in list(os.environ):
    if name.startswith("VLLM_"):
        del os.environ[name]
first = envs.compile_factors()
for name, value in {
    "VLLM_HOST_IP": "192.0.2.1",
    "VLLM_NIXL_SIDE_CHANNEL_HOST": "192.0.2.1",
    "VLLM_NIXL_SIDE_CHANNEL_PORT": "5601",
    "VLLM_EC_SIDE_CHANNEL_HOST": "192.0.2.1",
    "VLLM_ENGINE_READY_TIMEOUT_S": "1200",
    "VLLM_LOG_MODEL_INSPECTION": "1",
    "VLLM_USAGE_SOURCE": "production-docker-image",
    "VLLM_IMAGE_TAG": "vllm/vllm-openai:latest",
}.items():
    os.environ[name] = value
    print(name, "kept" if envs.compile_factors() == first else "compiled anew")
    del os.environ[name]
PY
python/bin/python key.py 2>python.log | tee output
cat >expected <<'TXT'
VLLM_HOST_IP kept
VLLM_NIXL_SIDE_CHANNEL_HOST kept
VLLM_NIXL_SIDE_CHANNEL_PORT compiled anew
VLLM_EC_SIDE_CHANNEL_HOST compiled anew
VLLM_ENGINE_READY_TIMEOUT_S compiled anew
VLLM_LOG_MODEL_INSPECTION compiled anew
VLLM_USAGE_SOURCE compiled anew
VLLM_IMAGE_TAG compiled anew
TXT
cmp expected output
