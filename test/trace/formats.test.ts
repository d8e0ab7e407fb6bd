import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { scheduleOf } from "../../src/bench/load.ts";
import { TraceSummarizer } from "../../src/trace/summary.ts";
import {
  readTrace,
  type TraceAbout,
  type TraceOptions,
  type TraceRequest,
} from "../../src/trace/trace.ts";
import { temporaryFolder } from "../helpers/folder.ts";

const sample = (name: string): string => fileURLToPath(new URL(`samples/${name}`, import.meta.url));

interface Read {
  readonly about: TraceAbout | undefined;
  /** `[seconds, prompt tokens, output tokens]` */
  readonly rows: readonly (readonly [number, number, number])[];
  readonly requests: readonly TraceRequest[];
  /** `line: reason` */
  readonly skips: readonly string[];
}

async function read(file: string, options: TraceOptions = {}): Promise<Read> {
  let about: TraceAbout | undefined;
  const skips: string[] = [];
  const requests: TraceRequest[] = [];
  for await (const request of readTrace(file, {
    ...options,
    onFormat: (told) => {
      about = told;
    },
    onSkip: (skip, line) => skips.push(`${line}: ${skip}`),
  })) {
    requests.push(request);
  }
  const rows = requests.map(
    ({ atSeconds, promptTokens, outputTokens }) =>
      [Number(atSeconds.toFixed(6)), promptTokens, outputTokens] as const,
  );
  return { about, rows, requests, skips };
}

async function fileOf(text: string, name: string): Promise<string> {
  const file = join(await temporaryFolder(), name);
  await writeFile(file, text);
  return file;
}

const AZURE_CODE = [
  [0, 4808, 10],
  [0.052, 3180, 8],
  [0.098189, 110, 27],
  [0.140684, 7433, 14],
  [0.444994, 34, 12],
  [0.539187, 374, 14],
] as const;

describe("the formats that people have", () => {
  test.each([
    ["azure-code.csv.xz", { format: "azure" }, AZURE_CODE, []],
    ["azure-code.csv.zst", { format: "azure" }, AZURE_CODE, []],
    [
      "azure-week-2024.csv",
      { format: "azure" },
      [
        [0, 2162, 5],
        [0.007405, 2399, 6],
        [0.99007, 76, 15],
        [1.00707, 2399, 6],
      ],
      [],
    ],
    [
      "azure-lmm-2025.csv",
      { format: "azure-multimodal" },
      [
        [0, 1088, 40],
        [0.8, 320, 12],
      ],
      [],
    ],
    [
      "burstgpt_1.csv",
      { format: "burstgpt" },
      [
        [0, 472, 18],
        [40, 1087, 230],
        [113, 417, 276],
      ],
      ["5: failed request"],
    ],
    ["burstgpt_3.csv", { format: "burstgpt" }, [[0, 472, 18]], []],
    [
      "mooncake.jsonl",
      { format: "mooncake", blockTokens: 512 },
      [
        [0, 1300, 500],
        [0, 1024, 490],
        [3, 600, 12],
      ],
      [],
    ],
    [
      "bailian.jsonl",
      { format: "timed-trace", blockTokens: 16 },
      [
        [0, 40, 132],
        [2.5, 60, 7],
      ],
      [],
    ],
    [
      "vllm-timed-trace.jsonl",
      { format: "timed-trace", blockTokens: 16 },
      [
        [0, 33, 4],
        [1.5, 16, 9],
      ],
      [],
    ],
    [
      "otlp.jsonl",
      { format: "otlp" },
      [
        [0, 55, 8],
        [1.5, 96, 12],
        [2.25, 210, 34],
      ],
      ["1: other span", "2: other span", "2: failed request"],
    ],
  ])("%s", async (name, about, rows, skips) => {
    const got = await read(sample(name));
    expect(got.about).toEqual(about);
    expect(got.rows).toEqual(rows);
    expect(got.skips).toEqual(skips);
    // What a benchmark sends is the same.
    const schedule = await scheduleOf({ arrivals: "trace", trace: sample(name) });
    expect(schedule.map(({ promptTokens, outputTokens }) => [promptTokens, outputTokens])).toEqual(
      rows.map(([, ...lengths]) => lengths),
    );
  });

  test("ids of blocks stay with their requests", async () => {
    const { requests } = await read(sample("mooncake.jsonl"));
    expect(requests.map(({ hashIds }) => hashIds)).toEqual([
      [0, 1, 2],
      [0, 14],
      [0, 29],
    ]);
  });

  test("times of two zones are one time", async () => {
    const header = "TIMESTAMP,ContextTokens,GeneratedTokens";
    const rows = ["2024-05-10 12:00:00+02:00,1,1", "2024-05-10 06:30:01-0330,1,1"];
    const { rows: got } = await read(await fileOf([header, ...rows].join("\n"), "zones.csv"));
    expect(got).toEqual([
      [0, 1, 1],
      [1, 1, 1],
    ]);
  });

  test("rows of one block, and without any, tell neither format: a later one does", async () => {
    const row = (seconds: number, tokens: number, blocks?: number): string =>
      JSON.stringify({
        timestamp: seconds,
        input_length: tokens,
        output_length: 5,
        ...(blocks === undefined
          ? {}
          : { hash_ids: Array.from({ length: blocks }, (_, at) => at) }),
      });
    const untold = [row(0, 16, 1), "", row(1, 160), row(1, 160, 0)];
    const timed = await read(await fileOf([...untold, row(2, 160, 10)].join("\n"), "t.jsonl"));
    expect(timed.about).toEqual({ format: "timed-trace", blockTokens: 16 });
    expect(timed.rows.at(-1)).toEqual([2, 160, 5]);
    expect(timed.rows).toHaveLength(4);
    expect(timed.skips).toEqual(["2: blank line"]);
    const mooncake = await read(await fileOf([...untold, row(2, 160, 1)].join("\n"), "m.jsonl"));
    expect(mooncake.about).toEqual({ format: "mooncake", blockTokens: 512 });
    expect(mooncake.rows.at(-1)).toEqual([0.002, 160, 5]);
    // No more than a thousand are held until one tells.
    const many = [...Array.from({ length: 1000 }, () => row(0, 16, 1)), row(2, 160, 10)];
    const late = await read(await fileOf(many.join("\n"), "late.jsonl"));
    expect(late.about).toMatchObject({ format: "mooncake" });
    expect(late.rows).toHaveLength(1001);
  });

  test("columns of a CSV as one JSON object", async () => {
    const columns = {
      "Response tokens": [18, 0, "276"],
      Timestamp: [5, 45, 118.5],
      "Request tokens": [472, 9, 417],
    };
    const file = await fileOf(`\n${JSON.stringify(columns)}\n\n`, "columns.json");
    const { about, rows, skips } = await read(file);
    expect(about).toEqual({ format: "burstgpt" });
    expect(rows).toEqual([
      [0, 472, 18],
      [113.5, 417, 276],
    ]);
    expect(skips).toEqual(["3: failed request"]);
  });

  test("the unit of JSON lines can be told", async () => {
    const { rows } = await read(sample("mooncake.jsonl"), { timeUnit: "s" });
    expect(rows.at(-1)).toEqual([3000, 600, 12]);
  });
});

describe("what is no request", () => {
  const blank = "seconds,prompt_tokens,output_tokens\n0,100,10\n\n1,30,4\n \n,,\n2,7,0\n3,0,7\n\n";

  test("is left out and told, line by line", async () => {
    const { rows, skips } = await read(await fileOf(blank, "blank.csv"));
    expect(rows).toEqual([
      [0, 100, 10],
      [1, 30, 4],
    ]);
    expect(skips).toEqual([
      "3: blank line",
      "5: blank line",
      "6: blank line",
      "7: failed request",
      "8: failed request",
      "9: blank line",
    ]);
  });

  test.each([
    [
      "a blank line",
      "0,100,10\n\n1,30,4\n",
      "line 3: expected a request that was answered, got a blank line.",
    ],
    [
      "a failed one",
      "0,100,10\n1,30,0\n",
      "line 3: expected a request that was answered, got a failed request.",
    ],
  ])("strict refuses %s", async (_, rows, sentence) => {
    const file = await fileOf(`seconds,prompt_tokens,output_tokens\n${rows}`, "strict.csv");
    await expect(read(file, { strict: true })).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_TRACE",
      message: expect.stringContaining(sentence),
    });
  });

  test("the first that is one is second 0", async () => {
    const file = await fileOf("Timestamp,Request tokens,Response tokens\n5,9,0\n7,9,9\n", "b.csv");
    expect((await read(file)).rows).toEqual([[0, 9, 9]]);
  });
});

test("requests out of order are sorted when asked", async () => {
  const file = await fileOf("seconds,prompt_tokens,output_tokens\n5,1,1\n2,2,2\n9,3,3\n", "o.csv");
  expect((await read(file, { sort: true })).rows).toEqual([
    [0, 2, 2],
    [3, 1, 1],
    [7, 3, 3],
  ]);
});

describe("bad JSON lines are one sentence with file, line and expectation", () => {
  const row = (fields: object): string =>
    JSON.stringify({ timestamp: 0, input_length: 9, output_length: 9, ...fields });
  const columns = (seconds: unknown, prompts: readonly unknown[] = [1]): string =>
    JSON.stringify({ seconds, prompt_tokens: prompts, output_tokens: [1] });
  test.each([
    ["half a line", `${row({})}\n{"timestamp": 1,\n`, "line 2: expected one JSON object a line"],
    ["a list", `${row({})}\n[1]\n`, 'line 2: expected one JSON object a line, got "[1]".'],
    ["other fields", '{"prompt": "x"}\n', 'line 1: expected an object with "timestamp"'],
    ["no length", `${row({})}\n{"timestamp": 1}\n`, "line 2: expected tokens from 1 to 1048576"],
    ["no time", row({ timestamp: "noon" }), "line 1: expected a number of milliseconds from 0 up"],
    ["ids of text", row({ hash_ids: ["a"] }), 'line 1: expected "hash_ids" to be a list of whole'],
    ["no UTF-8", `${row({})}\n\uD800`, "line 2: expected one JSON object a line"],
    ["spans, then none", `{"resourceSpans": []}\n${row({})}\n`, 'an object with "resourceSpans"'],
    ["spans without a list", '{"resourceSpans": 1}', 'expected "resourceSpans" to be a list'],
    ["uneven columns", columns([0, 1]), "expected columns of one length, got 2 and 1 values."],
    ["no column", columns({ 0: 0 }), `expected "seconds" to be a list, got "{\\"0\\":0}".`],
    ["a hole", columns([0], [null]), 'line 2: expected 3 values and no hole, got "0,,1".'],
    ["Python's NaN", columns([99]).replace("99", "NaN"), "(Unexpected token 'N'"],
    ["a list in one", columns([0], [[5]]), 'line 2: expected tokens from 1 to 1048576, got "[5]"'],
    ["columns, then more", `${columns([0])}\n${row({})}`, "line 2: expected nothing after the"],
    ["no request among spans", '{"resourceSpans": []}', "expected at least one request"],
  ])("%s", async (_, text, sentence) => {
    await expect(read(await fileOf(text, "bad.jsonl"))).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_TRACE",
      message: expect.stringContaining(sentence),
    });
  });

  test("a line without end is not held", async () => {
    const file = await fileOf(`${row({})}\n${" ".repeat(17 * 1024 * 1024)}`, "long.jsonl");
    await expect(read(file)).rejects.toMatchObject({
      message: expect.stringContaining("line 2: expected lines of at most 16777216 characters"),
    });
  });
});

describe("the summary", () => {
  const summaryOf = (requests: readonly TraceRequest[]) => {
    const summarizer = new TraceSummarizer();
    for (const request of requests) summarizer.add(request);
    return summarizer.summary();
  };

  test("lengths, rates and the busiest minute", () => {
    const at = [0, 1, 59.9, 60, 61, 61.5, 119, 120];
    const summary = summaryOf(
      at.map((atSeconds, index) => ({ atSeconds, promptTokens: index + 1, outputTokens: 2 })),
    );
    expect(summary).toEqual({
      requests: 8,
      seconds: 120,
      requestsPerSecond: 8 / 120,
      busiestMinute: 4,
      promptTokens: { total: 36, mean: 4.5, p50: 4, p90: 8, p99: 8, max: 8 },
      outputTokens: { total: 16, mean: 2, p50: 2, p90: 2, p99: 2, max: 2 },
    });
  });

  test("Mooncake's own example of two requests shares twelve blocks", () => {
    const head = [46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57];
    const { prefixes } = summaryOf([
      { atSeconds: 0, promptTokens: 6955, outputTokens: 52, hashIds: [...head, 2353, 2354] },
      { atSeconds: 3.053, promptTokens: 6472, outputTokens: 26, hashIds: [...head, 2366] },
    ]);
    expect(prefixes).toEqual({ blocks: 27, distinctBlocks: 15, reusedShare: 12 / 27 });
  });

  test("a block after a new one is no prefix", () => {
    const { prefixes } = summaryOf([
      { atSeconds: 0, promptTokens: 1, outputTokens: 1, hashIds: [1, 2] },
      { atSeconds: 0, promptTokens: 1, outputTokens: 1, hashIds: [3, 2] },
    ]);
    expect(prefixes?.reusedShare).toBe(0);
  });
});
