import { expect, test } from "vitest";
import { withoutSecrets } from "../../src/cli/without-secrets.ts";

test.for([
  ["vllm serve MODEL --port 8000", "vllm serve MODEL --port 8000"],
  ["vllm serve MODEL --api-key abc --port 1", "vllm serve MODEL --api-key … --port 1"],
  ["vllm serve MODEL --api-key=a=b", "vllm serve MODEL --api-key=…"],
  ["env HF_TOKEN=abc vllm serve MODEL", "env HF_TOKEN=… vllm serve MODEL"],
  ["vllm serve --hf-token --port 1", "vllm serve --hf-token --port 1"],
] as const)("%s", ([command, shown]) => {
  expect(withoutSecrets(command.split(" "))).toBe(shown);
});

test("in a shell's one word, and of an option that takes several", () => {
  const script = "exec  env HF_TOKEN=abc vllm serve M --api-key 'abc' 'abcd'\n--port 1";
  expect(withoutSecrets(["bash", "-lc", script, "sh"])).toBe(
    "bash -lc exec  env HF_TOKEN=… vllm serve M --api-key … …\n--port 1 sh",
  );
  expect(withoutSecrets(["vllm", "serve", "--api-key", "abc", "abcd", "--seed", "1"])).toBe(
    "vllm serve --api-key … … --seed 1",
  );
  expect(withoutSecrets(["vllm", "serve", "--hf-token", "abc", "MODEL"])).toBe(
    "vllm serve --hf-token … MODEL",
  );
  expect(withoutSecrets(["vllm", "--password", "a b", "--api-key=a b", "--chat", "a b"])).toBe(
    "vllm --password … --api-key=… --chat a b",
  );
});
