import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { HEAP_GROWTH_PERCENT, heapGrowthFlags } from "../../src/cli/heap-growth.ts";

test("a process that was started with a growth of its own keeps it", () => {
  const ours = [`--heap-growing-percent=${HEAP_GROWTH_PERCENT}`];
  expect(heapGrowthFlags([])).toEqual(ours);
  expect(heapGrowthFlags(["--expose-gc", "--max-semi-space-size=8"])).toEqual(ours);
  expect(heapGrowthFlags(["--heap-growing-percent=20"])).toEqual([]);
  expect(heapGrowthFlags(["--heap_growing_percent", "20"])).toEqual([]);
});

/** Full collections of a process that set these flags, and whose heap grows by 100 MB from then on. */
function fullCollections(flags: readonly string[]): number {
  const script = `
    import { setFlagsFromString } from "node:v8";
    for (const flag of ${JSON.stringify(flags)}) setFlagsFromString(flag);
    const held = [];
    for (let round = 0; round < 600; round += 1) {
      for (let n = 0; n < 2000; n += 1) held.push({ round, n, text: "t" + n });
      await new Promise((resolve) => setImmediate(resolve));
    }
    if (held.length !== 1_200_000) throw new Error("Expected all of it to be held.");`;
  // Collections by what is allocated, and not by when a helper thread has had its turn.
  const steady = [
    "--single-threaded-gc",
    "--max-semi-space-size=1",
    "--initial-old-space-size=4",
    "--trace-gc",
  ];
  const args = [...steady, "--input-type=module", "--eval", script];
  const said = execFileSync(process.execPath, args, { encoding: "utf8" });
  return said.split("\n").filter((line) => line.includes("Mark-Compact")).length;
}

test("set in a running process it has the heap grow further between full collections", () => {
  // V8's own choice varies with its measurements: against a growth that is smaller than any of them.
  const least = fullCollections(["--heap-growing-percent=10"]);
  const ours = fullCollections(heapGrowthFlags([]));
  expect(ours).toBeLessThan(least);
});
