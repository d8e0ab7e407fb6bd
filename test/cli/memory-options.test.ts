import { describe, expect, test } from "vitest";
import { MEMORY_OPTIONS, memoryOptions } from "../../src/cli/memory-options.ts";
import { parseOptions } from "../../src/cli/options.ts";
import { createController } from "../../src/controller/controller.ts";
import type { MemoryOptions } from "../../src/memory/options.ts";

const MIB = 1024 * 1024;
const parse = (argv: readonly string[], command: readonly string[] = []): MemoryOptions =>
  memoryOptions(parseOptions(argv, MEMORY_OPTIONS), {}, command);

describe("on the command line", () => {
  test("sizes have units, and what isn't given isn't set", () => {
    expect(parse([])).toEqual({});
    expect(parse(["--reserve", "plan"])).toEqual({ reserve: "plan" });
    expect(parse(["--memory-margin", "512MiB"])).toEqual({ marginBytes: 512 * MIB });
    expect(parse(["--memory-margin=1.5GiB"])).toEqual({ marginBytes: 1536 * MIB });
    expect(parse(["--memory-margin", "0MiB"])).toEqual({ marginBytes: 0 });
    expect(parse(["--reserve=top", "--reserve-bytes=1.5GiB"])).toEqual({
      ...{ reserve: "top", reserveBytes: 1536 * MIB },
    });
  });

  test.for([
    [["--reserve", "all"], "Expected --reserve to be none, least, top or plan"],
    [
      ["--memory-margin", "512"],
      "Expected --memory-margin to be a size in MiB or GiB, such as 512MiB",
    ],
    [["--memory-margin", "-1GiB"], "Expected --memory-margin to be a size"],
    [["--memory-margin", "9999GiB"], "at most 1024GiB"],
    [
      ["--reserve=plan", "--reserve-bytes", "many"],
      "Expected --reserve-bytes to be a size in MiB or GiB",
    ],
    [
      ["--reserve-bytes", "1GiB"],
      'Expected --reserve-bytes to be given beside --reserve top or plan, got "1GiB"',
    ],
    [["--reserve=least", "--reserve-bytes=1GiB"], "to be given beside --reserve top or plan"],
  ] as const)("%j: one sentence", ([argv, sentence]) => {
    expect(() => parse(argv)).toThrow(sentence);
  });

  test("the variable that the engine reads counts, and is checked as the engine checks it", () => {
    const exported = (value: string, ...argv: string[]): MemoryOptions =>
      memoryOptions(parseOptions(argv, MEMORY_OPTIONS), { LAZYGRAPH_RESERVE: value });
    expect(exported(" Plan")).toEqual({ reserve: "plan" });
    expect(exported("plan", "--reserve=top")).toEqual({ reserve: "top" });
    expect(exported("plan", "--reserve-bytes=1GiB").reserveBytes).toBe(1024 * MIB);
    expect(exported(" ")).toEqual({});
    const sentence = 'Expected LAZYGRAPH_RESERVE to be none, least, top or plan, got "all".';
    expect(() => exported("all")).toThrow(sentence);
    expect(() => exported("all", "--reserve=top")).toThrow(sentence);
  });

  test.for([
    [["vllm", "serve", "M", "--gpu-memory-utilization", "0.985"], 0.985],
    [["vllm", "serve", "M", "--gpu-memory-utilization=0.5"], 0.5],
    [["vllm", "serve", "M", "--gpu_memory_utilization", "0.5"], 0.5],
    [["sh", "-c", "vllm serve M --gpu-memory-utilization 0.5"], 0.5],
    [["sh", "-c", "vllm serve M"], 0.92],
    [["vllm", "serve", "M"], 0.92],
    [["vllm", "serve", "M", "--gpu-memory-utilization", "much"], undefined],
    [["./my-engine"], undefined],
  ] as const)("the share of the GPU that %j asks for", ([command, utilization]) => {
    expect(parse([], command).utilization).toBe(utilization);
  });
});

describe("as an option of the controller", () => {
  test.for([
    [{ reserve: "all" }, "Expected memory.reserve to be one of none, least, top, plan"],
    [{ marginBytes: -1 }, "Expected memory.marginBytes to be a whole number from 0 to"],
    [{ marginBytes: 1.5 }, "Expected memory.marginBytes to be a whole number"],
    [
      { reserve: "plan", reserveBytes: -1 },
      "Expected memory.reserveBytes to be a whole number from 0",
    ],
    [
      { reserve: "least", reserveBytes: 9 },
      'Expected memory.reserveBytes to be given beside reserve "top" or "plan", got 9',
    ],
    [{ reserveBytes: 9 }, "Expected memory.reserveBytes to be given beside reserve"],
    [{ gpu: "yes" }, "Expected memory.gpu to be true or false"],
    [{ utilization: 92 }, "Expected memory.utilization to be a number above 0 and up to 1"],
    [{ margin: 1 }, "Expected a known option of memory"],
    ["plan", "Expected memory to be an object"],
  ] as const)("%j: one sentence", ([memory, sentence]) => {
    const wrong = { memory: memory as MemoryOptions };
    expect(() => createController(wrong)).toThrow(sentence);
  });

  test("sound ones are taken", async () => {
    const memory = {
      reserve: "top",
      reserveBytes: 0,
      marginBytes: 0,
      gpu: false,
      utilization: 0.9,
    } as const;
    await createController({ memory }).close();
    await createController({
      memory: { marginBytes: undefined } as unknown as MemoryOptions,
    }).close();
  });
});
