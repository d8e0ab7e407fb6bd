import { expect, test } from "vitest";
import {
  type CacheFingerprint,
  configFileOf,
  decidingOptions,
  decidingVariables,
  differences,
  differencesText,
  modelOf,
} from "../../src/caches/fingerprint.ts";
import { formatManifest, parseManifest } from "../../src/caches/manifest.ts";

const HERE: CacheFingerprint = {
  ...{ python: "3.12.3", packages: { vllm: "0.33.0", torch: "2.12.0" } },
  ...{ gpu: "NVIDIA H200 (9.0)", driver: "580.1", model: "0123456789abcdef" },
  options: ["--tensor-parallel-size 2"],
  variables: { VLLM_USE_AOT_COMPILE: "1" },
};

test("options in any order and by any of their names, without those that compile nothing else", () => {
  const words = ["serve", "MODEL", "--port", "80", "-tp", "2", "--dtype=bfloat16"];
  const others = ["serve", "MODEL", "--dtype", "bfloat16", "--api-key=secret"];
  const more = ["--tensor_parallel_size", "2", "--served-model-name", "a", "b"];
  expect(decidingOptions(words)).toEqual(["--dtype bfloat16", "--tensor-parallel-size 2"]);
  expect(decidingOptions([...others, ...more])).toEqual(decidingOptions(words));
  expect(decidingOptions(["serve", "MODEL", "--no-enable-prefix-caching"])).toEqual([
    "--no-enable-prefix-caching",
  ]);
});

test("a level of optimization, in the four spellings that vLLM takes", () => {
  const spellings = [["-O3"], ["-O=3"], ["-O", "3"], ["--optimization-level", "3"]];
  for (const words of spellings) {
    expect(decidingOptions(["serve", "M", ...words])).toEqual(["--optimization-level 3"]);
  }
  expect(decidingOptions(["serve", "M", "-cc", "{}"])).toEqual(["--compilation-config {}"]);
});

test("the file of options, by either spelling", () => {
  expect(configFileOf(decidingOptions(["serve", "M", "--config", "a b.yaml"]))).toBe("a b.yaml");
  expect(configFileOf(decidingOptions(["serve", "M", "--config=c.yaml"]))).toBe("c.yaml");
  expect(configFileOf(decidingOptions(["serve", "M", "--config-format", "x"]))).toBeUndefined();
});

test("a negative number is a value, not an option", () => {
  expect(decidingOptions(["serve", "M", "--max-logprobs", "-1", "--enforce-eager"])).toEqual([
    "--enforce-eager",
    "--max-logprobs -1",
  ]);
});

test("the model, however it is named", () => {
  expect(modelOf(["serve", "MODEL", "--port", "1"])).toBe("MODEL");
  expect(modelOf(["serve", "--model", "MODEL"])).toBe("MODEL");
  expect(modelOf(["--model=MODEL"])).toBe("MODEL");
  expect(modelOf(["serve", "--port", "1"])).toBeUndefined();
});

test("vLLM's variables but for places, addresses and secrets", () => {
  const environment = {
    ...{ VLLM_USE_AOT_COMPILE: "1", VLLM_CACHE_ROOT: "/x", VLLM_API_KEY: "k", HOME: "/root" },
    ...{ VLLM_LOGGING_LEVEL: "DEBUG", VLLM_TUNED_CONFIG_FOLDER: "/y", VLLM_ATTENTION: "FLASH" },
    // A pod's own; and two of vLLM's key.
    ...{ VLLM_NIXL_SIDE_CHANNEL_HOST: "10.0.0.1", VLLM_DP_MASTER_IP: "10.0.0.1" },
    ...{ VLLM_PLUGINS: "lazygraph", VLLM_ENGINE_READY_TIMEOUT_S: "1200" },
  };
  expect(decidingVariables(environment)).toEqual({
    ...{ VLLM_ATTENTION: "FLASH", VLLM_ENGINE_READY_TIMEOUT_S: "1200" },
    ...{ VLLM_PLUGINS: "lazygraph", VLLM_USE_AOT_COMPILE: "1" },
  });
});

test("what differs is told by its name, on either side", () => {
  expect(differences(HERE, HERE)).toEqual([]);
  const other: CacheFingerprint = {
    ...{ ...HERE, packages: { vllm: "0.32.0", torch: "2.12.0", triton: "3.5" }, gpu: "NVIDIA L4" },
    options: [],
  };
  const found = differences(other, HERE);
  expect(found).toEqual([
    { what: "GPU", pack: "NVIDIA L4", here: "NVIDIA H200 (9.0)" },
    { what: "vllm", pack: "0.32.0", here: "0.33.0" },
    { what: "triton", pack: "3.5", here: "none" },
    { what: "--tensor-parallel-size", pack: "none", here: "2" },
  ]);
  expect(differencesText(found.slice(0, 2))).toBe(
    "GPU NVIDIA L4 (here NVIDIA H200 (9.0)), vllm 0.32.0 (here 0.33.0)",
  );
  const many = Array.from({ length: 9 }, (_, at) => ({ what: `V${at}`, pack: "a", here: "b" }));
  expect(differencesText(many)).toMatch(/V4 a \(here b\) and 4 more$/);
});

test("a manifest is read as it was written, and nothing else is one", () => {
  const manifest = { fingerprint: HERE, folder: "/var/cache/llama" };
  expect(parseManifest(formatManifest(manifest))).toEqual(manifest);
  const damaged = [
    ...["", "[]", "{}", formatManifest(manifest).slice(0, 200)],
    formatManifest(manifest).replace('"formatVersion": 1', '"formatVersion": 2'),
    formatManifest(manifest).replace('"2.12.0"', "2.12"),
    formatManifest(manifest).replace('"/var/cache/llama"', "7"),
  ];
  expect(damaged.map(parseManifest)).toEqual(damaged.map(() => undefined));
});
