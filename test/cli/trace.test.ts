import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { describe, expect, onTestFinished, test } from "vitest";
import { exitCodeOf } from "../../src/cli/errors.ts";
import { runTrace } from "../../src/cli/trace.ts";
import { TRACE_HEADER, TraceFile } from "../../src/record/trace-file.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { finish, lazygraph } from "./helpers/command.ts";

const sample = (name: string): string =>
  fileURLToPath(new URL(`../trace/samples/${name}`, import.meta.url));

describe("lazygraph trace", () => {
  test.for([
    [["inspect", "azure-llm-2023-conversaton"], "did you mean azure-llm-2023-conversation, which"],
    [
      ["inspect", "nothing-like-it"],
      "readable trace file, got ENOENT: there is no such file, so check its name. [ERR_LAZYGRAPH_TRACE]",
    ],
    [["cut", "x.csv", "--form", "3"], 'got the unknown option "--form": did you mean --from?'],
  ] as const)("%j is answered with what was meant", async ([args, sentence]) => {
    const { code, stdout, stderr } = await finish(["trace", ...args]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(sentence);
  });

  test("inspect --json tells format, figures and what was left out", async () => {
    const { code, stdout, stderr } = await finish([
      "trace",
      "inspect",
      sample("burstgpt_1.csv"),
      "--json",
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(JSON.parse(stdout)).toEqual({
      file: sample("burstgpt_1.csv"),
      format: "burstgpt",
      requests: 3,
      seconds: 113,
      requestsPerSecond: 3 / 113,
      busiestMinute: 2,
      promptTokens: { total: 1976, mean: 1976 / 3, p50: 472, p90: 1087, p99: 1087, max: 1087 },
      outputTokens: { total: 524, mean: 524 / 3, p50: 230, p90: 276, p99: 276, max: 276 },
      skipped: { "failed request": 1 },
    });
  });

  test("inspect in words tells how much of the prompts came before", async () => {
    const { stdout } = await finish(["trace", "inspect", sample("mooncake.jsonl")]);
    expect(stdout).toContain("mooncake, 3 requests in 3.0 s, 1.00 a second");
    expect(stdout).toContain("7 blocks of 512 tokens, 5 of them distinct; ");
    expect(stdout).toContain("would hold 28.6% when they come");
  });

  test("convert writes our CSV to stdout and tells what was left out", async () => {
    const { code, stdout, stderr } = await finish(["trace", "convert", sample("otlp.jsonl")]);
    expect(code).toBe(0);
    expect(stdout).toBe("seconds,prompt_tokens,output_tokens\n0,55,8\n1.5,96,12\n2.25,210,34\n");
    expect(stderr).toContain("left out 2 other spans, 1 failed request.");
  });

  test("prompts without blocks share none with those that have some", async () => {
    const file = join(await temporaryFolder(), "some.jsonl");
    const row = { timestamp: 0, input_length: 600, output_length: 3 };
    const rows = [{ ...row, hash_ids: [0, 1] }, row, row];
    await writeFile(file, rows.map((its) => `${JSON.stringify(its)}\n`).join(""));
    const { stdout } = await finish(["trace", "convert", file, "--to", "mooncake"]);
    const ids = stdout
      .trim()
      .split("\n")
      .flatMap((line) => JSON.parse(line).hash_ids as number[]);
    expect(ids.slice(0, 2)).toEqual([0, 1]);
    expect(new Set(ids).size).toBe(6);
    expect(ids.every(Number.isSafeInteger)).toBe(true);
  });

  test("blocks of 16 tokens become Mooncake's of 512, named by their last part", async () => {
    const ids = Array.from({ length: 40 }, (_, index) => 100 + index);
    const rows = [
      { timestamp: 1, input_length: 640, output_length: 3, hash_ids: ids },
      { timestamp: 2.5, input_length: 16, output_length: 3, hash_ids: [100] },
    ];
    const file = join(await temporaryFolder(), "timed.jsonl");
    await writeFile(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
    const { stdout } = await finish(["trace", "convert", file, "--to", "mooncake"]);
    expect(
      stdout
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line)),
    ).toEqual([
      { timestamp: 0, input_length: 640, output_length: 3, hash_ids: [131, 139] },
      { timestamp: 1500, input_length: 16, output_length: 3, hash_ids: [100] },
    ]);
  });

  test("prompts of which nothing is known share no block", async () => {
    const { stdout } = await finish([
      "trace",
      "convert",
      sample("azure-lmm-2025.csv"),
      "--to",
      "mooncake",
    ]);
    expect(
      stdout
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line).hash_ids),
    ).toEqual([[0, 1, 2], [3]]);
  });

  test("cut keeps a part and moves it to second 0, blocks and all", async () => {
    const output = join(await temporaryFolder(), "part.jsonl.gz");
    const { code } = await finish([
      "trace",
      "cut",
      sample("mooncake.jsonl"),
      "--from",
      "1",
      "--output",
      output,
    ]);
    expect(code).toBe(0);
    expect(JSON.parse(gunzipSync(await readFile(output)).toString())).toEqual({
      timestamp: 0,
      input_length: 600,
      output_length: 12,
      hash_ids: [0, 29],
    });
    expect((await stat(output)).mode & 0o777).toBe(0o600);
  });

  test("a trace that breaks off leaves no half file behind", async () => {
    const folder = await temporaryFolder();
    const file = join(folder, "bad.csv");
    const output = join(folder, "out.csv");
    const rows = Array.from({ length: 9000 }, (_, index) => `${index},1,1\n`).join("");
    await writeFile(file, `seconds,prompt_tokens,output_tokens\n${rows}x,1,1\n`);
    const { code, stderr } = await finish(["trace", "convert", file, "--output", output]);
    expect(code).toBe(2);
    expect(stderr).toContain("line 9002: expected a number of seconds from 0 up");
    await expect(stat(output)).rejects.toMatchObject({ code: "ENOENT" });
  });

  test("a disk that fills up is a failure, and leaves no half file either", async () => {
    const output = join(await temporaryFolder(), "out.csv");
    const { append } = TraceFile.prototype;
    onTestFinished(() => {
      TraceFile.prototype.append = append;
    });
    TraceFile.prototype.append = (text) =>
      text === TRACE_HEADER
        ? Promise.resolve()
        : Promise.reject(Object.assign(new Error("full"), { code: "ENOSPC" }));
    const args = ["convert", sample("burstgpt_1.csv"), "--output", output];
    const error: unknown = await runTrace(args).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      code: "ERR_LAZYGRAPH_FILE",
      message: `Expected ${output} to take all that is written, got ENOSPC: make room, or give another path.`,
    });
    expect(exitCodeOf(error)).toBe(1);
    await expect(stat(output)).rejects.toMatchObject({ code: "ENOENT" });
  });

  test("an interrupted one leaves no part of a trace, which would pass for all of it", async () => {
    const folder = await temporaryFolder();
    const [file, output] = [join(folder, "long.csv"), join(folder, "out.csv")];
    await writeFile(file, `seconds,prompt_tokens,output_tokens\n${"1,1,1\n".repeat(2_000_000)}`);
    const { process, finished } = lazygraph(["trace", "convert", file, "--output", output]);
    const written = () =>
      stat(output).then(
        ({ size }) => size,
        () => 0,
      );
    await expect.poll(written, { interval: 5 }).toBeGreaterThan(100);
    process.kill("SIGTERM");
    expect(await finished).toMatchObject({ signal: "SIGTERM" });
    expect(await written()).toBe(0);
  });

  test.each([
    [["inspct", "x"], /the trace command to be .*cut, got "inspct": did you mean inspect\?/],
    [["inspect"], "Expected 1 FILE, got 0"],
    [["convert", "x", "--to", "csv"], 'Expected --to to be lazygraph or mooncake, got "csv".'],
    [["convert", "x", "--time-unit", "us"], 'Expected --time-unit to be ms or s, got "us".'],
    [
      ["cut", sample("mooncake.jsonl"), "--from", "99"],
      /--from and --seconds to leave requests, got none of .*mooncake.jsonl from second 99 on: /,
    ],
    [
      // It has requests before and after.
      ["cut", sample("mooncake.jsonl"), "--from", "1", "--seconds", "1"],
      /got none of .*mooncake.jsonl from second 1 to 2: /,
    ],
    [["convert", sample("mooncake.jsonl"), "--output", sample("otlp.jsonl")], "a new file that"],
  ])("%j is one sentence", async (args, sentence) => {
    const { code, stderr, stdout } = await finish(["trace", ...args]);
    expect(code).toBe(2);
    expect(stderr).toMatch(sentence);
    expect(stdout).toBe("");
  });

  test("simulate reads what it is given, tells what it leaves out, and --strict refuses it", async () => {
    const file = sample("burstgpt_1.csv");
    const args = ["simulate", "--trace", file, "--policy", "none", "--json"];
    const { code, stdout, stderr } = await finish(args);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ trace: { requests: 3, seconds: 113 } });
    expect(stderr).toContain(`${file}: left out 1 failed request.`);
    const strict = await finish([...args, "--strict"]);
    expect(strict.code).toBe(2);
    expect(strict.stderr).toContain("line 5: expected a request that was answered");
  });
});
