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
