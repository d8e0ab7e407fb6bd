import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  type Load,
  loadText,
  type ScheduledRequest,
  scheduleCsv,
  scheduleOf,
} from "../../src/bench/load.ts";
import { createPromptMaker, type TokenCounter } from "../../src/bench/prompts.ts";
import type { Endpoint } from "../../src/bench/stream.ts";
import { readTrace } from "../../src/trace/trace.ts";
import { temporaryFolder } from "../helpers/folder.ts";

const gapsOf = (times: readonly { readonly atSeconds: number }[]): number[] =>
  times.slice(1).map(({ atSeconds }, index) => atSeconds - (times[index]?.atSeconds ?? 0));

function spread(values: readonly number[]): { mean: number; cv: number } {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  return { mean, cv: Math.sqrt(variance) / mean };
}

describe("arrivals", () => {
  test.for<[Load["arrivals"], number | undefined, number]>([
    ["constant", undefined, 0],
    ["poisson", undefined, 1],
    ["gamma", 4, 0.5],
    ["gamma", 0.25, 2],
  ])("%s with burstiness %s has gaps of cv %d", async ([arrivals, burstiness, cv]) => {
    const load: Load = {
      arrivals,
      requestRate: 20,
      numPrompts: 8000,
      ...(burstiness === undefined ? {} : { burstiness }),
    };
    const gaps = spread(gapsOf(await scheduleOf(load)));
    expect(gaps.mean).toBeCloseTo(1 / 20, 2);
    expect(Math.abs(gaps.cv - cv)).toBeLessThan(0.15 * Math.max(1, cv));
  });

  test("the first is due at once, the same seed gives the same, another one another", async () => {
    const load: Load = { arrivals: "poisson", requestRate: 5, seconds: 30, inputLen: [10, 90] };
    const schedule = await scheduleOf(load);
    expect(schedule[0]?.atSeconds).toBe(0);
    expect(schedule.at(-1)?.atSeconds).toBeLessThanOrEqual(30);
    expect(await scheduleOf(load)).toEqual(schedule);
    expect(await scheduleOf({ ...load, seed: 1 })).not.toEqual(schedule);
    const lengths = schedule.map(({ promptTokens }) => promptTokens);
    expect(Math.min(...lengths)).toBeGreaterThanOrEqual(10);
    expect(Math.max(...lengths)).toBeLessThanOrEqual(90);
    expect(new Set(lengths).size).toBeGreaterThan(20);
  });

  test.for(["linear", "exponential"] as const)("a %s ramp speeds up", async (rampUpStrategy) => {
    const ramp = { arrivals: "ramp", rampUpStrategy, rampUpStartRps: 2, rampUpEndRps: 50 } as const;
    for (const limits of [{ numPrompts: 2000 }, { seconds: 60 }]) {
      const gaps = gapsOf(await scheduleOf({ ...ramp, ...limits }));
      const tenth = Math.floor(gaps.length / 10);
      const first = spread(gaps.slice(0, tenth)).mean;
      const last = spread(gaps.slice(-tenth)).mean;
      expect(first / last).toBeGreaterThan(4);
    }
  });

  test("a trace at any speed, and its lengths under other arrivals", async () => {
    const file = join(await temporaryFolder(), "trace.csv");
    await writeFile(file, "seconds,prompt_tokens,output_tokens\n0,10,1\n4,20,2\n8,3000,900\n");
    const load: Load = { arrivals: "trace", trace: file, speed: 2 };
    expect(await scheduleOf({ ...load, inputLenMax: 500, outputLenMax: 50 })).toEqual([
      { atSeconds: 0, promptTokens: 10, outputTokens: 1 },
      { atSeconds: 2, promptTokens: 20, outputTokens: 2 },
      { atSeconds: 4, promptTokens: 500, outputTokens: 50 },
    ]);
    expect(await scheduleOf({ ...load, seconds: 3, outputLen: 7 })).toHaveLength(2);
    const drawn = await scheduleOf({
      arrivals: "constant",
      requestRate: 1,
      trace: file,
      numPrompts: 200,
    });
    expect(new Set(drawn.map(({ promptTokens }) => promptTokens))).toEqual(new Set([10, 20, 3000]));
  });

  test("a schedule as CSV is a trace with the same requests", async () => {
    const schedule = await scheduleOf({ arrivals: "poisson", requestRate: 3, numPrompts: 20 });
    const file = join(await temporaryFolder(), "schedule.csv");
    await writeFile(file, scheduleCsv(schedule));
    const rows = [];
    for await (const row of readTrace(file)) rows.push(row);
    expect(rows).toHaveLength(20);
    for (const [index, row] of rows.entries()) {
      expect(row.atSeconds).toBeCloseTo(schedule[index]?.atSeconds ?? Number.NaN, 5);
      expect(row.promptTokens).toBe(schedule[index]?.promptTokens);
    }
  });

  test("ShareGPT: first question, length of its answer, what is too short or long left out", async () => {
    const file = join(await temporaryFolder(), "share.json");
    const talk = (question: string, answer: string) => ({
      conversations: [
        { from: "human", value: question },
        { from: "gpt", value: answer },
      ],
    });
    const answer = "word ".repeat(30);
    await writeFile(
      file,
      JSON.stringify([
        talk("what is a graph of nodes", answer),
        talk("hi", answer),
        talk("long ".repeat(4000), answer),
        { conversations: [] },
        "junk",
      ]),
    );
    const load: Load = { arrivals: "constant", requestRate: 1, shareGpt: file, numPrompts: 3 };
    const notes: string[] = [];
    const schedule = await scheduleOf(load, { onNote: (sentence) => notes.push(sentence) });
    expect(schedule).toHaveLength(3);
    expect(schedule[0]).toMatchObject({
      text: "what is a graph of nodes",
      promptTokens: 6,
      outputTokens: 31,
    });
    const left = "1 too short, 1 too long, 2 without two turns of text";
    expect(notes).toEqual([`1 of 5 conversations of ${file} are used; left out: ${left}.`]);
    // A text that is short enough stays, and one that isn't is made up to the length.
    expect((await scheduleOf({ ...load, inputLenMax: 6 }))[0]).toHaveProperty("text");
    expect((await scheduleOf({ ...load, inputLenMax: 5 }))[0]).not.toHaveProperty("text");
    expect((await scheduleOf({ ...load, inputLen: 9 }))[0]).not.toHaveProperty("text");
    await writeFile(file, "[]");
    await expect(scheduleOf(load)).rejects.toMatchObject({ code: "ERR_LAZYGRAPH_TRACE" });
    await expect(scheduleOf({ ...load, shareGpt: `${file}.not` })).rejects.toThrow("ENOENT");
  });

  test("ShareGPT in a language without spaces has its length in tokens", async () => {
    const file = join(await temporaryFolder(), "share.json");
    const question = "请用中文详细介绍一下人工智能在医疗领域的应用以及它带来的挑战和机遇";
    const value = [
      { from: "human", value: question },
      { from: "gpt", value: "人工智能正在改变医疗。".repeat(20) },
    ];
    await writeFile(file, JSON.stringify([{ conversations: value }]));
    const notes: string[] = [];
    const load: Load = { arrivals: "constant", requestRate: 1, shareGpt: file, numPrompts: 1 };
    const [request] = await scheduleOf(load, { onNote: (sentence) => notes.push(sentence) });
    // By the words there would be one each, and the conversation would be left out.
    expect(request?.text).toBe(question);
    expect(request?.promptTokens).toBeGreaterThan(10);
    expect(request?.promptTokens).toBeLessThan(question.length);
    expect(request?.outputTokens).toBeGreaterThan(60);
    expect(notes).toEqual([]);
  });

  test("a load in words", () => {
    expect(
      loadText({
        arrivals: "gamma",
        requestRate: 2,
        burstiness: 0.5,
        seconds: 9,
        inputLen: [1, 5],
      }),
    ).toBe(
      "Gamma arrivals, 2 a second, burstiness 0.5, prompts of 1 to 5 tokens, arrivals for 9 s, " +
        "counted from ready, seed 0.",
    );
  });
});

describe("prompts of a wanted length", () => {
  const request = { atSeconds: 0, promptTokens: 300, outputTokens: 1 };
  const words = (text: string): number => text.split(" ").length;

  test("ids, where the server tells some", async () => {
    const counter: TokenCounter = {
      tokenize: async (text) => text.split(" ").map((_, index) => 1000 + index),
      promptTokens: () => Promise.reject(new Error("not needed")),
    };
    const maker = await createPromptMaker({ endpoint: "completions", counter });
    const prompt = maker.prompt(request, 0);
    expect(prompt).toHaveLength(300);
    expect(maker.how).toBe("token ids");
    expect(maker.prompt(request, 1)).not.toEqual(prompt);
    expect(maker.prompt({ ...request, text: "as it is" }, 1)).toBe("as it is");
  });

  test("words by the server's usage, with what its template adds", async () => {
    const counter: TokenCounter = {
      tokenize: async () => undefined,
      promptTokens: async (text) => 20 + 2 * words(text),
    };
    const maker = await createPromptMaker({ endpoint: "chat", counter });
    expect(words(maker.prompt(request, 0) as string)).toBe(140);
    expect(maker.how).toContain("2.000 tokens a word and 20 besides");
  });

  test("a word a token where the server tells nothing", async () => {
    const counter: TokenCounter = {
      tokenize: async () => undefined,
      promptTokens: async () => undefined,
    };
    const maker = await createPromptMaker({ endpoint: "completions", counter });
    expect(words(maker.prompt(request, 0) as string)).toBe(300);
    expect(maker.how).toContain("no counts");
    const long = maker.prompt({ ...request, promptTokens: 300_000 }, 0) as string;
    expect(words(long)).toBe(300_000);
  });

  describe("of a trace that names its blocks", () => {
    const letters = (text: string): number[] => [...text].map((char) => char.codePointAt(0) ?? 0);
    const told = async (text: string): Promise<number> => 5 + words(text);
    const KINDS: Record<string, { endpoint: Endpoint; text?: boolean; counter: TokenCounter }> = {
      ids: {
        endpoint: "completions",
        counter: { tokenize: async (text) => text.split(" ").map((_, i) => i), promptTokens: told },
      },
      "words by usage": {
        endpoint: "chat",
        counter: { tokenize: async () => undefined, promptTokens: told },
      },
      "counted words": {
        endpoint: "chat",
        text: true,
        counter: {
          tokenize: async (text) => letters(text),
          promptTokens: async (text) => 7 + letters(text).length,
        },
      },
    };

    test.for(Object.entries(KINDS))(
      "%s: equal blocks are equal, and only they",
      async ([, how]) => {
        const file = join(await temporaryFolder(), "mooncake.jsonl");
        const row = (timestamp: number, ids: number[], length: number) =>
          JSON.stringify({ timestamp, input_length: length, output_length: 1, hash_ids: ids });
        const rows = [row(0, [1, 2, 3], 1400), row(1, [1, 2, 4], 1400), row(2, [5, 2], 1024)];
        await writeFile(file, `${rows.join("\n")}\n`);
        const schedule = await scheduleOf({ arrivals: "trace", trace: file });
        const maker = await createPromptMaker(how);
        const [first, second, third] = schedule.map((it, index) => maker.prompt(it, index)) as [
          string | number[],
          string | number[],
          string | number[],
        ];
        const shared = (a: string | number[], b: string | number[]): number => {
          const end = [...a].findIndex((token, at) => token !== b[at]);
          return (end === -1 ? a.length : end) / a.length;
        };
        // 1024 of 1400 tokens, but for a few that the next block has by chance.
        expect(shared(first, second)).toBeGreaterThan(0.72);
        expect(shared(first, second)).toBeLessThan(0.75);
        expect(shared(first, third)).toBeLessThan(0.01);
        expect(maker.prompt(schedule[0] as ScheduledRequest, 7)).toEqual(first);

        const given = await scheduleOf({ arrivals: "trace", trace: file, inputLen: 1400 });
        const [own, other] = given.map((it, index) => maker.prompt(it, index));
        expect(shared(own as string | number[], other as string | number[])).toBeLessThan(0.01);
      },
    );
  });

  describe("as text, by the count of every word", () => {
    // A token for each letter and blank, as a byte-level tokenizer without merges has it.
    const letters = (text: string): number[] => [...text].map((char) => char.codePointAt(0) ?? 0);
    const counter: TokenCounter = {
      tokenize: async (text) => letters(text),
      promptTokens: async (text) => 7 + letters(text).length,
    };

    test.for([1, 2, 12, 300, 2077])("%i tokens", async (promptTokens) => {
      const maker = await createPromptMaker({ endpoint: "completions", counter, text: true });
      expect(maker.how).toContain("each counted");
      for (let index = 0; index < 20; index++) {
        const prompt = maker.prompt({ ...request, promptTokens }, index) as string;
        const short = promptTokens - 7 - letters(prompt).length;
        // The shortest word has two letters and its blank: no more than two tokens are left over,
        // and there is a word even where nothing fits.
        expect(short).toBeLessThanOrEqual(2);
        if (promptTokens >= 12) expect(short).toBeGreaterThanOrEqual(0);
        expect(prompt.trim().split(" ").length).toBeGreaterThanOrEqual(1);
      }
      const other = maker.prompt({ ...request, promptTokens: 300 }, 1);
      expect(maker.prompt({ ...request, promptTokens: 300 }, 0)).not.toBe(other);
      expect(maker.prompt({ ...request, text: "as it is" }, 1)).toBe("as it is");
    });

    test("of what the server's usage says where words don't add up, or it tells no tokens", async () => {
      const merging: TokenCounter = {
        tokenize: async (text) => letters(text).slice(0, 40),
        promptTokens: async (text) => words(text),
      };
      for (const other of [merging, { ...merging, tokenize: async () => undefined }]) {
        const maker = await createPromptMaker({
          endpoint: "completions",
          counter: other,
          text: true,
        });
        expect(maker.how).toContain("by the server's usage");
        expect(words(maker.prompt(request, 0) as string)).toBe(300);
      }
    });
  });
});
