/** What `doctor -- vllm serve …` prints. Pure: an answer in, text out. */

import { printable } from "../base/printable.ts";
import type { Preflight } from "./preflight.ts";

const VERDICTS = {
  true: "captured lazily",
  false: "runs as stock",
  null: "can't be told",
} as const;
const REASON_CHARS_MAX = 600;
const NAME_COLUMNS = 10;

export function preflightText(command: readonly string[], answer: Preflight): string {
  const rows: readonly (readonly [string, string | undefined])[] = [
    ["command", command.join(" ")],
    ["verdict", VERDICTS[`${answer.lazily}`]],
    ["why", answer.reason],
    ["untried", answer.untested.join("; ") || undefined],
    ["ignored", answer.ignored.join("; ") || undefined],
    ["vllm", versionText(answer)],
    ["python", answer.python],
    ["model", answer.traits.join(", ") || undefined],
    ["gpus", gpusText(answer)],
    ["graphs", graphsText(answer.planned)],
  ];
  return rows
    .filter((row): row is readonly [string, string] => row[1] !== undefined)
    .map(([name, text]) => `${name.padEnd(NAME_COLUMNS)}${printable(text, REASON_CHARS_MAX)}`)
    .join("\n");
}

function versionText({ vllm, plugin, adapter }: Preflight): string | undefined {
  const parts = [
    // What the plugin's own settings decide is told without it.
    vllm ?? (plugin === undefined ? undefined : "not asked"),
    adapter === undefined ? undefined : `adapter ${adapter}`,
    plugin === undefined ? undefined : `plugin ${plugin}`,
  ].filter((part) => part !== undefined);
  return parts.length === 0 ? undefined : parts.join(", ");
}

/** Ranks mostly have the same: `8 × NVIDIA H200`. */
function gpusText({ gpus, gpuReason }: Preflight): string | undefined {
  if (gpus.length === 0) return gpuReason === undefined ? undefined : `not known: ${gpuReason}`;
  const counts = new Map<string, number>();
  for (const gpu of gpus) counts.set(gpu, (counts.get(gpu) ?? 0) + 1);
  return [...counts].map(([gpu, count]) => (count === 1 ? gpu : `${count} × ${gpu}`)).join(", ");
}

/** The attention backend, which vLLM chooses as it starts, may allow fewer kinds. */
function graphsText(planned: Preflight["planned"]): string | undefined {
  if (planned === undefined) return undefined;
  const kinds = Object.entries(planned);
  const total = kinds.reduce((sum, [, count]) => sum + count, 0);
  return `at most ${total}: ${kinds.map(([kind, count]) => `${count} ${kind}`).join(", ")}`;
}
