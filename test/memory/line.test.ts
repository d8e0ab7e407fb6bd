import { expect, test } from "vitest";
import {
  type MemoryFigures,
  memoryAdvice,
  memoryLine,
  verdictOf,
} from "../../src/engine/memory-line.ts";
import type { Headroom } from "../../src/memory/guard.ts";

const MIB = 1024 * 1024;

function figures(freeMib: number | undefined, more: Partial<MemoryFigures> = {}): MemoryFigures {
  const spokenForBytes = 500 * MIB;
  const headroom: Headroom | undefined =
    freeMib === undefined
      ? undefined
      : {
          gpu: "GPU-1",
          totalBytes: 100_000 * MIB,
          freeBytes: freeMib * MIB,
          spokenForBytes,
          claim: { peakBytes: spokenForBytes, marginBytes: 0 },
          bytes: freeMib * MIB - spokenForBytes,
        };
  return {
    engine: "e",
    graphsCaptured: 2,
    takenBytes: 678 * MIB,
    headroom,
    forecast: { bytes: 300 * MIB, errorBytes: 40 * MIB, graphs: 100, provisional: true },
    reserve: undefined,
    utilization: undefined,
    ...more,
  };
}

const START =
  "e: 2 graphs took 678.0 MiB; the other 100 will take about 300.0 MiB ± 40.0 MiB (provisional)";

test.for([
  [900, "fits", ": they fit"],
  [
    830,
    "short-serving",
    ": they fit now and may run out of memory later, at the first full load; captures stop before " +
      "that. To have them all, start with --reserve plan, or lower --gpu-memory-utilization by 0.001",
  ],
  [
    700,
    "short-serving",
    ": they fit now and will run out of memory later, at the first full load; captures stop " +
      "before that. To have them all, start with --reserve plan, or lower " +
      "--gpu-memory-utilization by 0.002",
  ],
  [
    320,
    "short-capturing",
    ": memory may run out while they are captured; captures stop before that. To have them all, " +
      "start with --reserve plan, or lower --gpu-memory-utilization by 0.006",
  ],
  [
    100,
    "short-capturing",
    ": memory will run out while they are captured; captures stop before that. To have them all, " +
      "start with --reserve plan, or lower --gpu-memory-utilization by 0.008",
  ],
] as const)("with %d MiB free: %s", ([freeMib, verdict, end]) => {
  const at = figures(freeMib);
  expect(verdictOf(at.forecast, at.headroom)).toBe(verdict);
  expect(memoryLine(at)).toBe(
    `${START}; ${freeMib.toFixed(1)} MiB are free, 500.0 MiB of it for serving${end}`,
  );
});

test("nothing left, nothing known", () => {
  const none = { bytes: 0, errorBytes: 0, graphs: 0, provisional: false };
  expect(memoryLine(figures(900, { forecast: none }))).toBe(
    "e: 2 graphs took 678.0 MiB; none is left; 900.0 MiB are free, 500.0 MiB of it for serving",
  );
  expect(memoryLine(figures(undefined))).toBe(`${START}; free memory is unknown`);
  expect(memoryLine(figures(undefined, { graphsCaptured: 1 }))).toMatch(/^e: 1 graph took 678\.0/);
  expect(verdictOf(none, undefined)).toBe("none-left");
  expect(verdictOf(figures(1).forecast, undefined)).toBe("unknown");
});

test("advice names the value where it is known, and no reservation that there is already", () => {
  expect(memoryAdvice(figures(700, { utilization: 0.985 }))).toBe(
    "start with --reserve plan, or start vLLM with --gpu-memory-utilization 0.983",
  );
  expect(memoryAdvice(figures(700, { reserve: "plan", utilization: 0.985 }))).toBe(
    "start vLLM with --gpu-memory-utilization 0.983",
  );
  expect(memoryAdvice(figures(900))).toBeUndefined();
  expect(memoryAdvice(figures(undefined))).toBeUndefined();
});
