/**
 * The addon's reading of free memory against CUDA's own, as an engine reports it (mem_get_info), in
 * a process that takes and gives back memory. Prints JSON; exit code 1 if they differ.
 *
 *   node --import tsx bench/gpu/addon-agrees.ts [ROUNDS]
 *
 * PYTHON (default python3) must have torch; the first visible GPU is used. Hypothesis: they differ
 * by at most 1 MiB plus the change of CUDA's readings around it; refuted by `worst`.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { MIB } from "../../src/base/units.ts";
import { openGpuMemory } from "../../src/gpu/memory.ts";

const HOLDER = `
import sys, torch
held = []
print(f"GPU-{torch.cuda.get_device_properties(0).uuid}", flush=True)
for line in sys.stdin:
    size = int(line)
    if size > 0:
        held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
    elif size < 0:
        held.clear(); torch.cuda.empty_cache()
    torch.cuda.synchronize()
    print(torch.cuda.mem_get_info()[0], flush=True)
`;

const rounds = Number(process.argv[2] ?? "40");
const memory = await openGpuMemory({ sources: ["nvml"] });
if (!memory.available) {
  console.error(memory.message);
  process.exit(1);
}
const holder = spawn(process.env["PYTHON"] ?? "python3", ["-c", HOLDER], {
  stdio: ["pipe", "pipe", "inherit"],
});
const lines = createInterface({ input: holder.stdout })[Symbol.asyncIterator]();

async function next(): Promise<string> {
  const { value, done } = await lines.next();
  if (done === true) throw new Error("The process that holds GPU memory has ended; see above.");
  return value;
}

async function ask(bytes: number): Promise<number> {
  holder.stdin.write(`${bytes}\n`);
  return Number(await next());
}

const uuid = await next();
const differences: number[] = [];
let agreed = 0;
for (let round = 0; round < rounds; round += 1) {
  // Nothing to 4 GiB, now and then all back.
  await ask(round % 8 === 7 ? -1 : round % 8 === 0 ? 0 : 2 ** (20 + 2 * (round % 7)));
  const before = await ask(0);
  const { freeBytes } = await memory.read(uuid);
  const after = await ask(0);
  const off = Math.max(0, Math.abs(freeBytes - before) - Math.abs(after - before));
  differences.push(off);
  if (off <= MIB) agreed += 1;
}
holder.stdin.end();
await once(holder, "exit");
await memory.close();
const worst = Math.max(...differences);
console.log(JSON.stringify({ what: "addon-agrees", rounds, agreed, worstBytes: worst }));
process.exitCode = agreed === rounds ? 0 : 1;
