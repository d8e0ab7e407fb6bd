"""bench/gpu/random_weights.py and page_cache.py: files as Hugging Face has them, cached or not."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import page_cache

BENCH = Path(__file__).resolve().parents[2] / "bench" / "gpu"
CONFIG = {
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "tie_word_embeddings": False,
}


def run(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / script), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def header(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def written(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    (folder / "config.json").write_text(json.dumps(config))
    done = run("random_weights.py", str(folder), "--shard-bytes", "60000")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_files_hold_each_tensor_once_and_their_index_says_where(tmp_path: Path) -> None:
    told = written(tmp_path, CONFIG)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(files) > 1
    found: dict[str, str] = {}
    total = 0
    for path in files:
        head, data = header(path)
        head.pop("__metadata__")
        ends = [0]
        for name, about in head.items():
            begin, end = about["data_offsets"]
            count = 1
            for length in about["shape"]:
                count *= length
            # One after the other, as the format wants them.
            assert (begin, end - begin) == (ends[-1], 2 * count)
            ends.append(end)
            found[name] = path.name
        assert ends[-1] == len(data)
        total += len(data)
    assert found == index["weight_map"]
    assert len(found) == 3 + 2 * 9
    assert told["bytes"] == total == index["metadata"]["total_size"]


def test_values_are_small_numbers_norms_are_one_and_no_two_tensors_are_alike(
    tmp_path: Path,
) -> None:
    written(tmp_path, CONFIG)
    values: dict[str, list[float]] = {}
    for path in tmp_path.glob("model-*.safetensors"):
        head, data = header(path)
        head.pop("__metadata__")
        for name, about in head.items():
            begin, end = about["data_offsets"]
            halves = struct.unpack(f"<{(end - begin) // 2}H", data[begin:end])
            values[name] = [struct.unpack("<f", struct.pack("<I", h << 16))[0] for h in halves]
    for name, numbers in values.items():
        if name.endswith("norm.weight"):
            assert set(numbers) == {1.0}
        else:
            assert max(map(abs, numbers)) <= 0.0351
            assert abs(sum(numbers) / len(numbers)) < 0.005
    assert (
        values["model.layers.0.mlp.gate_proj.weight"] != values["model.layers.0.mlp.up_proj.weight"]
    )


def test_tied_embeddings_have_no_head_of_their_own(tmp_path: Path) -> None:
    written(tmp_path, CONFIG | {"tie_word_embeddings": True})
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert "lm_head.weight" not in index["weight_map"]


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_moe"}')
    done = run("random_weights.py", str(tmp_path))
    assert done.returncode == 1
    assert "Expected a Llama's config.json, got 'qwen3_moe'" in done.stderr


def test_a_file_is_read_into_the_page_cache_and_put_out_of_it(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"x" * (8 << 20))
    assert run("page_cache.py", "warm", str(file)).returncode == 0
    with open(file, "rb") as opened:
        assert page_cache.cached_share(opened.fileno()) == 1
        cold = run("page_cache.py", "cold", str(file))
        left = page_cache.cached_share(opened.fileno())
    # In memory alone nothing can be dropped, and the script has to say so.
    assert (cold.returncode == 0) == (left <= page_cache.SHARE_COLD_MAX)
    assert ("Expected no page of" in cold.stderr) == (cold.returncode == 1)


def test_other_words_are_a_usage_error(tmp_path: Path) -> None:
    assert run("page_cache.py", "hot", str(tmp_path)).returncode == 2
