import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { Trend } from "../../src/gpu/trend.ts";

interface Reading {
  readonly seconds: number;
  readonly freeBytes: number;
  readonly news: string;
  readonly predicted: string;
}

interface Case {
  readonly name: string;
  readonly options: { belowBytes: number; hysteresisBytes: number; withinSeconds: number };
  readonly readings: Reading[];
}

function cases(): Case[] {
  const text = readFileSync(new URL("trend-cases.txt", import.meta.url), "utf8");
  const out: Case[] = [];
  for (const line of text.split("\n")) {
    const [first = "", second = "", ...rest] = line.trim().split(/\s+/);
    if (first === "" || first.startsWith("#")) continue;
    if (first === "case") {
      const option = (name: string): number =>
        Number(rest.find((pair) => pair.startsWith(`${name}=`))?.split("=")[1]);
      out.push({
        name: second,
        options: {
          belowBytes: option("below"),
          hysteresisBytes: option("hysteresis"),
          withinSeconds: option("within"),
        },
        readings: [],
      });
      continue;
    }
    const [news = "", predicted = ""] = rest;
    out.at(-1)?.readings.push({
      seconds: Number(first),
      freeBytes: Number(second),
      news,
      predicted,
    });
  }
  return out;
}

describe("the rules that both readers share", () => {
  it("has cases to be tested on", () => {
    expect(cases().length).toBeGreaterThanOrEqual(10);
  });

  for (const { name, options, readings } of cases()) {
    it(name, () => {
      const trend = new Trend(options);
      for (const reading of readings) {
        const report = trend.observe(reading.seconds, reading.freeBytes);
        expect(report.news ?? "-", `at second ${reading.seconds}`).toBe(reading.news);
        const predicted = report.secondsToExhaustion;
        if (reading.predicted === "-") expect(predicted).toBeUndefined();
        else expect((predicted ?? 0) / Number(reading.predicted)).toBeCloseTo(1, 6);
      }
    });
  }

  it("predicts nothing from before a gap", () => {
    const trend = new Trend({ belowBytes: 0, hysteresisBytes: 0, withinSeconds: 100 });
    for (let second = 0; second < 3; second += 1) trend.observe(second, 1000 - 100 * second);
    trend.restart();
    expect(trend.observe(3, 700).secondsToExhaustion).toBeUndefined();
  });
});
