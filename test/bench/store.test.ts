import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { mergeFolders } from "../../src/bench/merge.ts";
import { writeReport } from "../../src/bench/report.ts";
import type { CellRun, RunHead } from "../../src/bench/samples.ts";
import {
  openFolder,
  readFacts,
  readHeads,
  readRun,
  runFile,
  SampleWriter,
  writeDocument,
} from "../../src/bench/store.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { capture, cellRun, request } from "./helpers/run.ts";

function headOf({
  requests: _,
  captures: __,
  steps: ___,
  memory: ____,
  ...head
}: CellRun): RunHead {
  return head;
}

async function folderWith(...runs: CellRun[]): Promise<string> {
  const folder = join(await temporaryFolder(), "bench");
  await openFolder(folder);
  await writeDocument(join(folder, "bench.json"), {
    format: 1,
    title: "a title",
    baseline: "stock",
    goodput: {},
    modes: ["stock", "idle", "lazy"],
  });
  for (const run of runs) await writeRun(folder, run);
  return folder;
}

async function writeRun(folder: string, run: CellRun): Promise<void> {
  const writer = await SampleWriter.open(folder, { ...headOf(run), status: "running" });
  for (const value of run.requests) writer.keep({ type: "request", value });
  for (const value of run.captures) writer.keep({ type: "capture", value });
  for (const value of run.memory) writer.keep({ type: "memory", value });
  await writer.close(headOf(run));
}

const stock = cellRun({ requests: [request(1, 2, 20), request(0, 1, 10)] });
const idle = cellRun({
  cell: { mode: "idle", load: "load", run: 1 },
  mode: { command: ["serve", "{port}"], mode: "idle" },
  requests: [request(0, 1, 10)],
  captures: [capture("FULL:1", 1, 20)],
  memory: [{ atSeconds: 1, graphsCaptured: 1, takenBytes: 2 ** 20 }],
});

describe("a folder", () => {
  test("gives back what was written, requests in order of time", async () => {
    const folder = await folderWith(stock, idle);
    const heads = await readHeads(folder);
    expect(heads.map(({ cell }) => cell.mode)).toEqual(["idle", "stock"]);
    const [first, second] = await Promise.all(heads.map((head) => readRun(folder, head)));
    expect(first).toEqual(idle);
    expect(second?.requests.map(({ index }) => index)).toEqual([0, 1]);
    expect((await readdir(join(folder, "runs"))).sort()).toEqual([
      "idle~load~1.json",
      "idle~load~1.ndjson.gz",
      "stock~load~1.json",
      "stock~load~1.ndjson.gz",
    ]);
  });

  test("keeps the samples of a run that was killed, up to half a line, as partial", async () => {
    const folder = await folderWith();
    await writeDocument(runFile(folder, stock.cell, "json"), {
      ...headOf(stock),
      status: "running",
    });
    const line = JSON.stringify({ type: "request", value: request(0, 1, 10) });
    await writeFile(runFile(folder, stock.cell, "ndjson"), `${line}\n${line.slice(0, 40)}`);
    const [head] = await readHeads(folder);
    const run = await readRun(folder, head as RunHead);
    expect(run).toMatchObject({ status: "partial", reason: "The benchmark was killed." });
    expect(run.requests).toHaveLength(1);
    const { summary, markdown } = await writeReport(folder);
    expect(summary.partial).toBe(true);
    expect(markdown).toContain("PARTIAL");
  });

  test.for<[string, (packed: Buffer) => Buffer, RegExp]>([
    ["cut off", (packed) => packed.subarray(0, packed.length - 12), /got .+ after line \d+\./],
    ["overwritten", () => Buffer.from("no gzip at all"), /got incorrect header check after line 0/],
    ["of other lines", () => gzipSync('{"type":"memory"}\nnull\n'), /got line 1 that is no sample/],
    [
      "of half samples",
      () => gzipSync('{"type":"request","value":{}}\n'),
      /line 1 that is no samp/,
    ],
  ])("with a samples file %s reports the rest, and names the file", async ([, damage, why]) => {
    const folder = await folderWith(stock, idle);
    const file = runFile(folder, stock.cell, "ndjson.gz");
    await writeFile(file, damage(await readFile(file)));
    const { summary, markdown } = await writeReport(folder);
    const run = (mode: string) => summary.cells.find((cell) => cell.mode === mode)?.runs[0];
    expect(run("stock")).toMatchObject({ status: "partial", reason: expect.stringMatching(why) });
    expect(run("stock")?.reason).toContain(file);
    expect(run("idle")).toMatchObject({ status: "complete", completed: 1 });
    expect(markdown).toContain(`**PARTIAL: not every run ended as planned. stock, load, run 1: `);
    expect(markdown).toMatch(why);
  });

  test("that takes no packed samples is named with a code", async () => {
    const folder = await folderWith();
    await mkdir(`${runFile(folder, stock.cell, "ndjson.gz")}.tmp`);
    await expect(writeRun(folder, stock)).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_BENCH" });
  });

  test("with a folder for a file", async () => {
    const folder = await folderWith(stock);
    await mkdir(join(folder, "report.html"));
    await expect(writeReport(folder)).rejects.toThrow(
      /^Expected \S+ to be a file that can be written, got EISDIR/,
    );
  });

  test("without a run's samples file reports the rest", async () => {
    const folder = await folderWith(stock, idle);
    await rm(runFile(folder, stock.cell, "ndjson.gz"));
    const { summary } = await writeReport(folder);
    expect(summary.cells.map((cell) => cell.runs[0]?.status)).toEqual(["partial", "complete"]);
  });

  test("can't be made where a file is, or anew where it can't be written", async () => {
    const file = join(await temporaryFolder(), "file");
    await writeFile(file, "");
    await expect(openFolder(file)).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_OPTION" });
    await expect(openFolder(join(file, "in"))).rejects.toThrow("--out");
  });

  test("that is none of ours is told so", async () => {
    const folder = await temporaryFolder();
    await expect(writeReport(folder)).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_BENCH" });
    const empty = await folderWith();
    await expect(writeReport(empty)).rejects.toThrow("at least one run");
    await writeFile(join(empty, "bench.json"), '{"format":1}');
    await expect(writeReport(empty)).rejects.toThrow("whole: title, baseline");
    const holed = '{"format":1,"title":"","baseline":"","goodput":null,"modes":[]}';
    await writeFile(join(empty, "bench.json"), holed);
    await expect(readFacts(empty)).rejects.toThrow("whole: title, baseline");
    for (const head of ["{", "null", '{"format":1}', '{"format":1,"cell":{"mode":1}}']) {
      await writeFile(join(empty, "runs", "x.json"), head);
      await expect(readHeads(empty)).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_BENCH" });
    }
    await expect(readHeads(empty)).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_BENCH" });
  });
});

describe("merging", () => {
  test("numbers runs on, takes the same one once, and leaves the sources alone", async () => {
    const other = { ...stock, startedAt: "2026-01-02T00:00:00.000Z" };
    const [one, two] = [await folderWith(stock, idle), await folderWith(other)];
    const into = join(await temporaryFolder(), "all");
    expect(await mergeFolders([one, two], into)).toBe(3);
    expect(await mergeFolders([one, two], into)).toBe(0);
    const heads = await readHeads(into);
    expect(heads.map(({ cell }) => `${cell.mode} ${cell.run}`)).toEqual([
      "idle 1",
      "stock 1",
      "stock 2",
    ]);
    const runs = await Promise.all(heads.map((head) => readRun(into, head)));
    expect(runs.map(({ requests }) => requests.length)).toEqual([1, 2, 2]);
    expect(await readHeads(two)).toHaveLength(1);
  });

  test("takes runs of two hosts of one name that began in one millisecond", async () => {
    const twin = { ...stock, host: { ...stock.host, memoryBytes: 2 ** 36 } };
    const into = join(await temporaryFolder(), "all");
    expect(await mergeFolders([await folderWith(stock), await folderWith(twin)], into)).toBe(2);
  });

  test("refuses two different modes or loads of one name", async () => {
    const different = cellRun({ mode: { command: ["other", "{port}"] } });
    const folders = [await folderWith(stock), await folderWith(different)];
    const into = join(await temporaryFolder(), "all");
    await expect(mergeFolders(folders, into)).rejects.toThrow(
      /whose mode "stock" is the one asked for/,
    );
  });

  test("refuses one name for two schedules", async () => {
    const [one, two] = [await folderWith(stock), await folderWith(idle)];
    await writeFile(join(one, "schedules", "load.csv"), "0,1,1\n");
    await writeFile(join(two, "schedules", "load.csv"), "0,9,9\n");
    const merged = mergeFolders([one, two], join(await temporaryFolder(), "all"));
    await expect(merged).rejects.toThrow('load "load" comes to the same requests, got others');
  });

  test("refuses one name for requests that were made in two ways", async () => {
    const asked = { ignoreEos: true, textPrompts: false, numWarmups: 0 };
    const ways = [
      cellRun({ asked }),
      cellRun({ asked: { ...asked, ignoreEos: false } }),
      cellRun({ asked: { ...asked, model: "other" } }),
      cellRun({ asked, endpoint: "chat" }),
    ];
    const [first = "", ...others] = await Promise.all(ways.map((run) => folderWith(run)));
    const into = join(await temporaryFolder(), "all");
    for (const other of others) {
      await expect(mergeFolders([first, other], into)).rejects.toThrow(
        "same endpoint, model, warm-ups and options of requests, got others: give another folder",
      );
    }
    // Folders of before it was kept say nothing against each other.
    const [old, same] = [await folderWith(stock), await folderWith(cellRun({ asked }))];
    expect(await mergeFolders([old, same], into)).toBeGreaterThan(0);
  });
});

test("a report in all its forms", async () => {
  const awkward = cellRun({
    cell: { mode: "lazy", load: "load", run: 1 },
    mode: { command: ["</script><b>&\"'", "{port}"], mode: "lazy" },
    requests: [request(0, 1, 10)],
    status: "partial",
    reason: "The engine's command ended by SIGKILL: see its log.",
  });
  const folder = await folderWith(stock, idle, awkward);
  const { files, markdown, summary } = await writeReport(folder);
  expect(files.map((file) => file.slice(folder.length + 1))).toEqual([
    "report.html",
    "report.json",
    "report.md",
  ]);
  expect(summary.cells.map(({ mode }) => mode)).toEqual(["stock", "idle", "lazy"]);
  expect(markdown).toMatch(/^\| {2}\| stock \| idle \| lazy \|$/m);
  const html = await readFile(join(folder, "report.html"), "utf8");
  expect(html).not.toContain("</script><b>");
  expect(html).toContain("SIGKILL: see its log.");
  expect(html).toContain("The MIT License (MIT)");
  // Only the drawing library's own home page is named, in its licence or banner.
  const addresses = [...html.matchAll(/(?:src|href)\s*=\s*["']?https?:/g)];
  expect(addresses).toEqual([]);
  const trace = gunzipSync(await readFile(join(folder, "traces", "idle~load~1.json.gz")));
  expect(JSON.parse(trace.toString()).traceEvents.length).toBeGreaterThan(5);
  const vllm = JSON.parse(await readFile(join(folder, "vllm", "stock~load~1.json"), "utf8"));
  expect(vllm).toMatchObject({ completed: 2, failed: 0 });
});

test("a report where the baseline has not been run yet", async () => {
  const folder = await folderWith(idle);
  const { summary } = await writeReport(folder);
  expect(summary.baseline).toBe("idle");
});
