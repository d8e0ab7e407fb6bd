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

test("a code is in brackets for people and a field for programs, the engine for these alone", () => {
  const call = ["warn", "e is gone", {}, { engine: "e", code: "ERR_X" }] as const;
  const [text] = linesOf("text", ...call);
  expect(text).toBe("2026-01-02T03:04:05.678Z warn  e is gone [ERR_X]\n");
  const [json = ""] = linesOf("json", ...call);
  expect(JSON.parse(json)).toMatchObject({ message: "e is gone", engine: "e", code: "ERR_X" });
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
