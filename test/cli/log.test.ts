import { expect, test } from "vitest";
import { createLog, type LogFormat } from "../../src/cli/log.ts";

function linesOf(format: LogFormat, ...call: Parameters<ReturnType<typeof createLog>["line"]>) {
  const lines: string[] = [];
  const time = new Date("2026-01-02T03:04:05.678Z");
  createLog(
    format,
    (text) => lines.push(text),
    () => time,
  ).line(...call);
  return lines;
}

test("text has time, level, sentence and fields", () => {
  const fields = { audit: "mode", engine: "gpu-0/a b", remote: "127.0.0.1", value: undefined };
  expect(linesOf("text", "info", "mode over HTTP", fields)).toEqual([
    '2026-01-02T03:04:05.678Z info  mode over HTTP audit=mode engine="gpu-0/a b" remote=127.0.0.1\n',
  ]);
});

test("json is one object a line, whatever the sentence holds", () => {
  const [line, ...more] = linesOf("json", "warn", "two\n  lines", { engine: "e\u001b[31m" });
  expect(more).toEqual([]);
  expect(line?.split("\n")).toHaveLength(2);
  expect(JSON.parse(line ?? "")).toEqual({
    time: "2026-01-02T03:04:05.678Z",
    level: "warn",
    message: "two; lines",
    engine: "e\u001b[31m",
  });
});

test("a name can't break or colour a line of text", () => {
  const [line] = linesOf("text", "error", "lost", { engine: "a\n2026 info  forged\u001b[31m" });
  expect(line).toBe('2026-01-02T03:04:05.678Z error lost engine="a 2026 info  forged [31m"\n');
});
