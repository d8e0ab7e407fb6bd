import { execFileSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { beforeEach, describe, expect, test } from "vitest";
import { readTrace, type TraceOptions, type TraceRequest } from "../../src/trace/trace.ts";
import { temporaryFolder } from "../helpers/folder.ts";

const conversation = fileURLToPath(
  new URL("../../traces/azure-llm-2023-conversation.json.xz", import.meta.url),
);

let folder: string;
beforeEach(async () => {
  folder = await temporaryFolder();
});

async function read(file: string, options?: TraceOptions): Promise<TraceRequest[]> {
  const requests: TraceRequest[] = [];
  for await (const request of readTrace(file, options)) requests.push(request);
  return requests;
}

/** Of the shipped one, as rows and packed, as most traces are. */
async function gzipped(): Promise<Buffer> {
  const rows = (await read(conversation)).map(
    (request) => `${request.atSeconds},${request.promptTokens},${request.outputTokens}\n`,
  );
  return gzipSync(`${SECONDS}\n${rows.join("")}`);
}

test("a shipped trace by its name, which is no path of this folder", async () => {
  const named = await read("azure-llm-2023-conversation", { requests: 5 });
  expect(named).toEqual(await read(conversation, { requests: 5 }));
  await expect(read("no-such-trace")).rejects.toMatchObject({
    code: "ERR_LAZYGRAPH_TRACE",
    message:
      "Expected no-such-trace to be a readable trace file, got ENOENT: there is no such file, so check its name.",
  });
});

async function fileOf(content: string | Uint8Array, name = "trace.csv"): Promise<string> {
  const file = join(folder, name);
  await writeFile(file, content);
  return file;
}

const SECONDS = "seconds,prompt_tokens,output_tokens";
const TIMESTAMP = "TIMESTAMP,ContextTokens,GeneratedTokens";

describe("traces", () => {
  test("the conversation trace is whole", async () => {
    const requests = await read(conversation);
    expect(requests).toHaveLength(19_366);
    expect(requests[0]).toEqual({ atSeconds: 0, promptTokens: 374, outputTokens: 44 });
    expect(requests[1]?.atSeconds).toBeCloseTo(4.314579, 5);
    expect(requests.at(-1)?.atSeconds).toBeCloseTo(3501.721937, 5);
    expect(requests.reduce((sum, r) => sum + r.promptTokens, 0)).toBe(22_361_870);
    expect(requests.reduce((sum, r) => sum + r.outputTokens, 0)).toBe(4_088_665);
  });

  test("times are divided first, then arrivals are cut", async () => {
    const file = await fileOf(`${SECONDS}\n5,1,2\n7,3,4\n11,5,6\n`);
    expect(await read(file)).toEqual([
      { atSeconds: 0, promptTokens: 1, outputTokens: 2 },
      { atSeconds: 2, promptTokens: 3, outputTokens: 4 },
      { atSeconds: 6, promptTokens: 5, outputTokens: 6 },
    ]);
    const at = async (options: TraceOptions) =>
      (await read(file, options)).map((request) => request.atSeconds);
    expect(await at({ speed: 2, seconds: 3 })).toEqual([0, 1, 3]);
    expect(await at({ speed: 2, seconds: 2.9 })).toEqual([0, 1]);
    expect(await at({ seconds: 3 })).toEqual([0, 2]);
    expect(await at({ requests: 1 })).toEqual([0]);
    expect(await at({ speed: 0.5 })).toEqual([0, 4, 12]);
  });

  test("timestamps keep microseconds and may carry a zone of zero", async () => {
    const rows = ["2024-02-29 23:59:59.9999980,1,1", "2024-03-01T00:00:00.0000030+00:00,1,1"];
    const [, second] = await read(await fileOf([TIMESTAMP, ...rows].join("\r\n")));
    expect(second?.atSeconds).toBeCloseTo(5e-6, 6);
  });

  test("gzip is known by its content, not by its name", async () => {
    const file = await fileOf(gzipSync(`${SECONDS}\n0,1,1\n`), "plain.csv");
    expect(await read(file)).toHaveLength(1);
  });

  test("equal times and a byte order mark are fine", async () => {
    expect(await read(await fileOf(`\uFEFF${SECONDS}\n1,1,1\n1,2,2\n`))).toHaveLength(2);
  });
});

describe("a bad trace is one sentence with file, line and expectation", () => {
  const header =
    `expected the header ${SECONDS} or ${TIMESTAMP} or ` +
    "Timestamp,Request tokens,Response tokens, or JSON lines, got";
  test.each([
    ["empty", "", `line 1: ${header} an empty file.`],
    ["wrong header", "time,in,out\n1,2,3\n", `line 1: ${header} "time,in,out".`],
    [
      "a JSON list",
      '\n [{"timestamp":0,"input_length":1,"output_length":1}]\n',
      "line 1: expected one JSON object a line, got a list (`jq -c '.[]'` makes lines of it).",
    ],
    ["no header", "0,1,1\n", `line 1: ${header} "0,1,1".`],
    ["no rows", `${SECONDS}\n`, "line 2: expected at least one request, got the end of file."],
    [
      "failed rows alone",
      `${SECONDS}\n0,5,0\n\n1,0,5\n`,
      "at least one request, got the end of file after 2 failed requests, 1 blank line.",
    ],
    ["hole", `${SECONDS}\n0,1,1\n1,,1\n`, 'line 3: expected 3 values and no hole, got "1,,1".'],
    ["too few", `${SECONDS}\n0,1\n`, 'line 2: expected 3 values and no hole, got "0,1".'],
    ["too many", `${SECONDS}\n0,1,1,1\n`, "line 2: expected 3 values"],
    [
      "unsorted",
      `${SECONDS}\n2,1,1\n1,1,1\n`,
      "line 3: expected times that never fall (`lazygraph trace convert --sort` orders them), " +
        "got one 1 s before the last.",
    ],
    [
      "negative",
      `${SECONDS}\n-1,1,1\n`,
      'line 2: expected a number of seconds from 0 up, got "-1".',
    ],
    ["no number", `${SECONDS}\nNaN,1,1\n`, "line 2: expected a number of seconds from 0 up"],
    ["infinite", `${SECONDS}\nInfinity,1,1\n`, "line 2: expected a number of seconds from 0 up"],
    ["no decimal", `${SECONDS}\n0x10,1,1\n`, "line 2: expected a number of seconds from 0 up"],
    ["no decimal tokens", `${SECONDS}\n0,0b1,1\n`, "line 2: expected tokens from 1 to 1048576"],
    ["no time at all", `${SECONDS}\n0,1,1\n1e300,1,1\n`, "line 3: expected at most 1000000000"],
    ["no date", `${TIMESTAMP}\n12:30,1,1\n`, "line 2: expected a time like 2023-11-16 18:15:46.68"],
    ["no such day", `${TIMESTAMP}\n2023-02-30 00:00:00,1,1\n`, "line 2: expected a time like"],
    ["no such month", `${TIMESTAMP}\n2023-13-01 00:00:00,1,1\n`, "line 2: expected a time like"],
    ["year 99", `${TIMESTAMP}\n0099-01-01 00:00:00,1,1\n`, "line 2: expected a time like"],
    [
      "a year that stands for none",
      `${TIMESTAMP}\n2023-11-16 18:15:46,1,1\n9999-12-31 23:59:59,1,1\n`,
      "line 3: expected times of at most ten years after the first request's, " +
        "got one 251702142253 s after it",
    ],
    ["failed requests alone", `${SECONDS}\n0,0,1\n`, "line 3: expected at least one request, got"],
    [
      "negative tokens",
      `${SECONDS}\n0,-1,1\n`,
      'line 2: expected tokens from 1 to 1048576, got "-1"',
    ],
    [
      "a header twice",
      `${SECONDS}\n${SECONDS}\n`,
      "line 2: expected a number of seconds from 0 up",
    ],
    ["a nul", `${SECONDS}\n0,1,\0\n`, "line 2: expected tokens from 1 to 1048576"],
    [
      "no such time zone",
      `${TIMESTAMP}\n2023-11-16 18:15:46+15:00,1,1\n`,
      "line 2: expected a time like",
    ],
    [
      "half a token",
      `${SECONDS}\n0,1,1.5\n`,
      'line 2: expected tokens from 1 to 1048576, got "1.5"',
    ],
    ["too many tokens", `${SECONDS}\n0,1,1048577\n`, "line 2: expected tokens from 1 to 1048576"],
    ["open quote", `${SECONDS}\n0,1,1\n"1,1,1\n`, "or JSON lines, got an open quote"],
    ["endless row", `${SECONDS}\n${"1".repeat(9000)},1,1\n`, "or JSON lines, got a long row"],
    ["text", '<p align="left">\n5"\n', "line 1: expected the header seconds"],
  ])("%s", async (_, content, sentence) => {
    const file = await fileOf(content);
    await expect(read(file)).rejects.toThrow(
      expect.objectContaining({
        code: "ERR_LAZYGRAPH_TRACE",
        message: expect.stringContaining(sentence),
      }),
    );
    await expect(read(file)).rejects.toThrow(`${file}, line `);
  });

  test("gzip cut short, after the rows that are whole", async () => {
    const whole = await gzipped();
    const file = await fileOf(whole.subarray(0, whole.length / 2), "cut.csv.gz");
    const requests: TraceRequest[] = [];
    const reading = async () => {
      for await (const request of readTrace(file)) requests.push(request);
    };
    await expect(reading()).rejects.toThrow(
      /cut\.csv\.gz, line \d+: expected a whole gzip file up to its end, got gzip that is cut short/,
    );
    expect(requests.length).toBeGreaterThan(1000);
    expect(requests.length).toBeLessThan(19_366);
  });

  test.each([8, 15, -4])("gzip that ends at byte %i", async (end) => {
    const whole = gzipSync(`${SECONDS}\n0,1,1\n1,1,1\n`);
    await expect(read(await fileOf(whole.subarray(0, end), "short.gz"))).rejects.toThrow(
      /short\.gz, line \d+: expected a whole gzip file up to its end, got gzip that is cut short/,
    );
  });

  test("a file of several gzip members is one trace, bytes behind them are not", async () => {
    const members = [gzipSync(`${SECONDS}\n0,1,1\n`), gzipSync("1,1,1\n")];
    expect(await read(await fileOf(Buffer.concat(members), "two.gz"))).toHaveLength(2);
    const more = Buffer.concat([...members, Buffer.from("more")]);
    await expect(read(await fileOf(more, "more.gz"))).rejects.toThrow(/got gzip that is damaged/);
  });

  test("damaged gzip", async () => {
    const damaged = await gzipped();
    damaged.fill(0xff, 1000, 2000);
    await expect(read(await fileOf(damaged, "damaged.gz"))).rejects.toThrow(
      expect.objectContaining({ code: "ERR_LAZYGRAPH_TRACE" }),
    );
  });

  test("no file, a folder", async () => {
    await expect(read(join(folder, "missing.csv"))).rejects.toThrow(
      "missing.csv to be a readable trace file, got ENOENT: there is no such file, so check its name.",
    );
    await expect(read(folder)).rejects.toThrow(
      expect.objectContaining({ code: "ERR_LAZYGRAPH_TRACE" }),
    );
  });

  test("a pipe is refused at once: nobody may ever write into it", async () => {
    const pipe = join(folder, "pipe.csv");
    execFileSync("mkfifo", [pipe]);
    await expect(read(pipe)).rejects.toThrow(
      "pipe.csv to be a trace file, got a pipe or a device of that name.",
    );
  });

  test.each([{ speed: 0 }, { speed: -1 }, { seconds: Number.NaN }, { requests: 0 }])(
    "options out of range: %j",
    async (options) => {
      await expect(read(conversation, options)).rejects.toThrow(
        expect.objectContaining({ code: "ERR_LAZYGRAPH_OPTION" }),
      );
    },
  );
});
