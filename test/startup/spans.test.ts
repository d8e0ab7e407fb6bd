import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { monotonicSeconds, readSpans, spanWriter } from "../../src/startup/spans.ts";
import { temporaryFolder } from "../helpers/folder.ts";

test("spans of all processes in the order in which they began; other lines are left out", async () => {
  const folder = await temporaryFolder();
  await writeFile(
    join(folder, "spans-12.jsonl"),
    [
      '{"name":"weights","begin":5,"end":7,"bytes":3}',
      '{"name":"device","begin":4,"end":5}',
      '{"name":"backwards","begin":5,"end":4}',
      '{"name":"","begin":1,"end":2}',
      '{"name":"no end","begin":1}',
      "null",
      '{"name":"cut off, by the end of its pro',
    ].join("\n"),
  );
  await writeFile(join(folder, "spans-7.jsonl"), '{"name":"imports","begin":1,"end":4.5}\n');
  await writeFile(join(folder, "notes.jsonl"), '{"name":"x","begin":0,"end":1}\n');
  await mkdir(join(folder, "spans-folder"));
  expect(await readSpans(folder)).toEqual([
    { name: "imports", begin: 1, end: 4.5, pid: 7, detail: {} },
    { name: "device", begin: 4, end: 5, pid: 12, detail: {} },
    { name: "weights", begin: 5, end: 7, pid: 12, detail: { bytes: 3 } },
  ]);
});

test("a process writes its own spans where a folder is named, and nothing elsewhere", async () => {
  const folder = await temporaryFolder();
  const begin = monotonicSeconds();
  spanWriter({}).ended("nowhere", begin);
  spanWriter({ LAZYGRAPH_STARTUP_DIR: join(folder, "gone") }).ended("lost", begin);
  spanWriter({ LAZYGRAPH_STARTUP_DIR: folder }).ended("captures", begin, { simulated: true });
  const [span, ...others] = await readSpans(folder);
  expect(others).toEqual([]);
  expect(span).toMatchObject({ name: "captures", begin, pid: process.pid });
  expect(span?.detail).toEqual({ simulated: true });
  expect(span?.end).toBeGreaterThanOrEqual(begin);
});
