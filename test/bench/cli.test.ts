/** `lazygraph bench` as people call it: simulated engines, live endpoints, and what goes wrong. */

import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { writeReport } from "../../src/bench/report.ts";
import type { RunHead } from "../../src/bench/samples.ts";
import type { Summary } from "../../src/bench/summary.ts";
import { runBench } from "../../src/cli/bench.ts";
import { finish, lazygraph } from "../cli/helpers/command.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { quickProfile } from "./helpers/profile.ts";
import { DONE, NOWHERE, STREAM, serve, token, usage } from "./helpers/server.ts";

const outFolder = async (): Promise<string> => join(await temporaryFolder(), "out");
const SLOW = { timeout: 120_000 };

const headOf = async (folder: string, name: string): Promise<RunHead> =>
  JSON.parse(await readFile(join(folder, "runs", `${name}.json`), "utf8")) as RunHead;

/** In this process: a Node of its own for each call would be most of these tests' time. */
async function bench(folder: string, ...args: string[]) {
  const code = await runBench([...args, "--out", folder, "--quiet", "--no-report"]);
  const { summary, markdown } = await writeReport(folder);
  return { code, summary, markdown, run: summary.cells[0]?.runs[0] };
}

describe("simulated engines", () => {
  test("stock, idle and ungraphed, in pieces and resumed", SLOW, async () => {
    const folder = await outFolder();
    const sizes = { profile: await quickProfile(), sizes: [1, 2, 4, 8] };
    const simulated = { ...sizes, realTime: true };
    const spec = join(await temporaryFolder(), "spec.json");
    await writeFile(
      spec,
      JSON.stringify({
        title: "A matrix",
        goodput: { ttft: 60_000 },
        numWarmups: 2,
        modes: {
          stock: { simulated },
          idle: { simulated, mode: "idle" },
          none: { simulated: { ...simulated, sizes: [] } },
        },
        loads: {
          calm: {
            ...{ arrivals: "constant", requestRate: 40, numPrompts: 20, outputLen: 5 },
            start: "settled",
          },
          spawn: {
            ...{ arrivals: "constant", requestRate: 20, numPrompts: 15, outputLen: 5 },
            start: "spawn",
          },
        },
        cells: [
          { mode: "stock", load: "calm" },
          { mode: "idle", load: "calm" },
          { mode: "none", load: "calm" },
          { mode: "stock", load: "spawn" },
          { mode: "idle", load: "spawn" },
        ],
      }),
    );
    const only = ["--only", "stock/calm"];
    const first = await finish(["bench", "--spec", spec, "--out", folder, ...only]);
    expect(first.code, first.stderr).toBe(0);
    expect(first.stdout).toContain("**SIMULATED");
    const second = await finish(["bench", "--spec", spec, "--out", folder, "--json"]);
    expect(second.code, second.stderr).toBe(0);
    expect(second.stderr).toContain("1 cell was complete before");
    const summary = JSON.parse(second.stdout) as Summary;
    expect(summary).toMatchObject({ simulated: true, partial: false, baseline: "stock" });
    const cell = (mode: string, load: string) =>
      summary.cells.find((found) => found.mode === mode && found.load === load);
    for (const mode of ["stock", "idle", "none"]) {
      expect(cell(mode, "calm")?.runs[0]).toMatchObject({ completed: 20, failures: {} });
    }
    // What only our controller can tell: the fill was over before the first request.
    const idle = cell("idle", "calm")?.runs[0];
    expect(idle).toMatchObject({ graphsPlanned: 8, graphsCaptured: 8, capturesAfterReady: 6 });
    expect(idle?.graphs?.atInit?.graphs).toBe(2);
    expect(idle?.graphs?.betweenSteps?.graphs).toBe(6);
    expect(idle?.spawnToSettledSeconds).toBeGreaterThan(idle?.spawnToReadySeconds ?? 0);
    expect(cell("idle", "calm")?.windows.after?.requests).toBe(20);
    // Due from the spawn on, so that the first ones waited at least until ready.
    for (const mode of ["stock", "idle"]) {
      const run = cell(mode, "spawn")?.runs[0];
      expect(run?.firstMinute).toMatchObject({ requests: 15, unanswered: 0 });
      expect(run?.firstMinute?.waitSeconds).toBeGreaterThan(run?.spawnToReadySeconds ?? 0);
    }
    const saved = cell("idle", "spawn")?.versusBaseline?.firstMinuteSavedSeconds;
    expect(Number.isFinite(saved?.value)).toBe(true);
  });

  test("an interrupted run is kept and marked partial", SLOW, async () => {
    const folder = await outFolder();
    const profile = await quickProfile();
    const simulated = ["--simulated", "--real-time", "--profile", profile];
    const args = [...simulated, "--output-len", "2", "--request-rate", "20"];
    const running = lazygraph(["bench", ...args, "--out", folder, "--seconds", "3000"]);
    await running.line("stderr", /measuring/);
    const log = join(folder, "runs", "stock~load~1.log");
    const [started = ""] = (await readFile(log, "utf8")).split("\n", 1);
    const { pid } = JSON.parse(started) as { pid: number };
    // Its number alone doesn't say that it is gone: on a busy machine it is another's soon.
    const command = () => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "gone");
    expect(await command()).toContain("--http=127.0.0.1:");
    running.process.kill("SIGINT");
    const { code, stderr, stdout } = await running.finished;
    expect(code, stderr).toBe(130);
    expect(stdout).toContain("PARTIAL");
    expect(await headOf(folder, "stock~load~1")).toMatchObject({
      status: "partial",
      reason: "The benchmark was stopped.",
    });
    expect(await command()).not.toContain("--http=127.0.0.1:");
    await expect(runBench([...args, "--out", folder, "--seconds", "1"])).rejects.toThrow(
      'whose load "load" is the one asked for',
    );
  });

  test("a report, whose making answers no signal, is left to the signal's own effect", async () => {
    const folder = await outFolder();
    const before = process.listenerCount("SIGINT");
    const during: number[] = [];
    const write = vi.spyOn(process.stdout, "write").mockImplementation(() => {
      during.push(process.listenerCount("SIGINT"));
      return true;
    });
    onTestFinished(() => write.mockRestore());
    const load = ["--simulated", "--profile", await quickProfile(), "--num-prompts", "1"];
    expect(await runBench([...load, "--request-rate", "9", "--quiet", "--out", folder])).toBe(0);
    expect(during).toEqual([before]);
  });

  test("what is complete with a failed request fails again, and keeps its trace", async () => {
    const folder = await outFolder();
    const trace = join(folder, "..", "day.csv");
    const rows = (tokens: number) =>
      writeFile(trace, `seconds,prompt_tokens,output_tokens\n0,10,2\n1,${tokens},2\n`);
    const args = ["--simulated", "--profile", await quickProfile(), "--trace", trace, "--quiet"];
    const bench = (...more: string[]) =>
      runBench([...args, "--out", folder, "--no-report", ...more]);
    await rows(1_000_000);
    expect([await bench(), await bench()]).toEqual([1, 1]);
    expect(await headOf(folder, "stock~load~1")).toMatchObject({ status: "complete" });
    await rows(10);
    await expect(bench("--runs", "2")).rejects.toThrow('load "load" comes to the same requests');
  });

  test("a command that ends at once", SLOW, async () => {
    const folder = await outFolder();
    const command = [process.execPath, "-e", "process.exit(3)", "{port}"];
    const load = ["--request-rate", "1", "--seconds", "1", "--quiet", "--no-report"];
    expect(await runBench(["--out", folder, ...load, "--", ...command])).toBe(1);
    const { status, reason } = await headOf(folder, "stock~load~1");
    expect(status).toBe("partial");
    expect(reason).toContain("Expected the engine to get ready, but its command ended by");
    expect(reason).toContain("exit code 3");
    const { markdown } = await writeReport(folder);
    expect(markdown).toMatch(/\*\*PARTIAL: .+ stock, load, run 1: .+ exit code 3: see \S+\.log\./);
  });

  test("a command that isn't there: as with run, and no run is made", SLOW, async () => {
    const folder = await outFolder();
    const load = ["--request-rate", "1", "--seconds", "1"];
    const command = ["--", "/no/such/engine", "{port}"];
    const { code, stderr } = await finish(["bench", "--out", folder, ...load, ...command]);
    expect(code).toBe(127);
    expect(stderr).toMatch(/^lazygraph: Expected .+ \[ERR_LAZYGRAPH_COMMAND_NOT_FOUND\]\n$/);
    expect(await readdir(join(folder, "runs"))).toEqual([]);
  });

  test("a profile that isn't there: before anything is started", SLOW, async () => {
    const folder = await outFolder();
    const load = ["--request-rate", "1", "--seconds", "1"];
    const args = ["--simulated", "--profile", "no-such", ...load];
    const { code, stderr } = await finish(["bench", "--out", folder, ...args]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/\[ERR_LAZYGRAPH_PROFILE\]\n$/);
    expect(await readdir(join(folder, "runs"))).toEqual([]);
  });
});

describe("a live endpoint", () => {
  const load = ["--arrivals", "constant", "--request-rate", "100", "--num-prompts", "10"];
  const live = async (url: URL, ...more: string[]) => {
    const folder = await outFolder();
    return {
      folder,
      ...(await bench(folder, "--url", url.href, "--model", "m", ...load, ...more)),
    };
  };

  test("that answers", SLOW, async () => {
    const url = await serve((request, response) => {
      request.resume().on("end", () => {
        if (request.url !== "/v1/completions") response.writeHead(404).end();
        else response.writeHead(200, STREAM).end(token("a") + token("b") + usage(256, 2) + DONE);
      });
    });
    const { code, run, folder } = await live(url, "--goodput", "ttft:60000");
    expect(code).toBe(0);
    expect(run).toMatchObject({ requests: 10, completed: 10, failures: {} });
    const result = JSON.parse(await readFile(join(folder, "vllm", "live~load~1.json"), "utf8"));
    expect(result).toMatchObject({ completed: 10, total_input_tokens: 2560 });
  });

  test("that fails in different ways: counted by kind, what succeeded is kept", SLOW, async () => {
    let asked = 0;
    const url = await serve((request, response) => {
      request.resume().on("end", () => {
        if (request.url !== "/v1/completions") {
          response.writeHead(404).end();
          return;
        }
        const turn = asked++ % 4;
        if (turn === 0) response.writeHead(429).end("slow down");
        else if (turn === 1) response.writeHead(200, { "content-type": "text/html" }).end("<p>");
        else if (turn === 2) response.writeHead(200, STREAM).end(token("a"));
        else response.writeHead(200, STREAM).end(token("a") + usage(9, 1) + DONE);
      });
    });
    const { code, run } = await live(url);
    // Some were completed, but not all of them.
    expect(code).toBe(1);
    expect(run?.requests).toBe(10);
    const { rate_limited = 0, not_sse = 0, cut_off = 0, ...others } = run?.failures ?? {};
    for (const count of [rate_limited, not_sse, cut_off]) expect(count).toBeGreaterThan(1);
    expect(others).toEqual({});
    expect(rate_limited + not_sse + cut_off + (run?.completed ?? 0)).toBe(10);
  });

  test("that isn't there: one sentence, and no run is made", SLOW, async () => {
    await expect(live(NOWHERE)).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_BENCH",
      message: expect.stringMatching(/^Expected a server at .+, got .*ECONNREFUSED.*: start it/),
    });
  });

  test(
    "that accepts connections and never answers: the same, in the time given",
    SLOW,
    async () => {
      const url = await serve(() => undefined);
      await expect(live(url, "--ready-seconds", "1")).rejects.toMatchObject({
        code: "ERR_LAZYGRAPH_BENCH",
        message: `Expected a server at ${url.origin}, got no answer within 1 s: start it, or see its URL.`,
      });
    },
  );

  test("that is no such server, and no model was named: the same, and no run", SLOW, async () => {
    const url = await serve((_, response) => response.writeHead(404).end());
    const folder = await outFolder();
    await expect(bench(folder, "--url", url.href, ...load)).rejects.toMatchObject({
      code: "ERR_LAZYGRAPH_BENCH",
      message: expect.stringMatching(
        /^Expected .+ to name a model at \/v1\/models, got status 404:/,
      ),
    });
    expect(await readdir(join(folder, "runs"))).toEqual([]);
  });

  test("that goes away: every request is counted, the run partial", SLOW, async () => {
    const url = await serve((request, response) => {
      if (request.url === "/v1/models") response.writeHead(404).end();
      else request.socket.destroy();
    });
    const { code, run, markdown } = await live(url);
    expect(code).toBe(1);
    expect(run).toMatchObject({ status: "partial", failures: { unreachable: 10 } });
    expect(markdown).toContain("10 (unreachable 10)");
    expect(markdown).toContain("live, load, run 1: No request succeeded.");
    // Of a fault that is the server's to explain, its explanation.
    expect(markdown).toMatch(/10 \(unreachable 10\) of 10\. First unreachable: ECONNRESET/);
  });

  test(
    "that says it is simulated: the report says so; rows that nobody can know are out",
    SLOW,
    async () => {
      const url = await serve((request, response) => {
        request.resume().on("end", () => {
          if (request.url === "/v1/models") {
            const model = { id: "m", object: "model", owned_by: "simulated" };
            response.writeHead(200, { "content-type": "application/json" });
            response.end(JSON.stringify({ object: "list", data: [model] }));
          } else if (request.url !== "/v1/completions") response.writeHead(404).end();
          else response.writeHead(200, STREAM).end(token("a") + token("b") + usage(256, 2) + DONE);
        });
      });
      const { code, summary, markdown } = await live(url);
      expect(code).toBe(0);
      expect(summary.simulated).toBe(true);
      expect(markdown).toContain("**SIMULATED");
      expect(Object.keys(summary.cells[0]?.windows ?? {})).toEqual(["all"]);
      expect(markdown).not.toMatch(/the fill|delayed|two minutes|p50, later/);
    },
  );

  test("that hasn't the model", SLOW, async () => {
    const url = await serve((request, response) => {
      request.resume().on("end", () => {
        response.writeHead(404, { "content-type": "application/json" });
        response.end('{"error":{"message":"The model `m` does not exist."}}');
      });
    });
    const { code, run, markdown } = await live(url);
    expect(code).toBe(1);
    expect(run).toMatchObject({ reason: "No request succeeded.", failures: { no_model: 10 } });
    expect(markdown).toContain("First no_model: 404 application/json: ");
    expect(markdown).toContain("The model `m` does not exist.");
  });
});

describe("usage", () => {
  const file = "test/bench/cli.test.ts";
  test.for<[string[], string]>([
    [[], "Expected --out with a folder for the samples, got none."],
    [["--out", "x"], "Expected one of --url URL, --simulated, --spec FILE and a command"],
    [["--out", "x", "--simulated", "--url", "http://h"], "Expected one of --url URL"],
    [["--out", "x", "--url", "nonsense"], "Expected --url to be an http:// or https:// URL"],
    [
      ["--out", "x", "--url", "http://h", "--request-rate", "0", "--seconds", "1"],
      "Expected --request-rate to be a number from 0.0001 to 10000, got 0.",
    ],
    [
      ["--out", "x", "--url", "http://h", "--request-rate", "1e99", "--seconds", "1"],
      "Expected --request-rate to be a number from 0.0001 to 10000",
    ],
    [["--out", "x", "--simulated", "--mode", "idel", "--request-rate", "1"], "stock, eager, lazy"],
    [["--out", "x", "--simulated", "--goodput", "ttft=3"], "limits in ms such as ttft:200"],
    [["--out", "x", "--simulated", "--goodput", "ttft:2,ttft:3"], "each of them once, got"],
    [["--out", "x", "--spec", file, "--runs", "2"], "Expected --spec without --runs"],
    [["--out", "x", "--spec", file], "to be JSON"],
    [
      ["--out", `${file}/in`, "--simulated", "--request-rate", "1", "--seconds", "1"],
      "Expected --out to be a folder that can be made and written",
    ],
    [
      // Where Node's own recursive mkdir never returns.
      ["--out", "/proc/nowhere/out", "--simulated", "--request-rate", "1", "--seconds", "1"],
      'made and written, got "/proc/nowhere/out" (ENOENT).',
    ],
    [
      ["--out", "x", "--simulated", "--only", "idle/load", "--request-rate", "1", "--seconds", "1"],
      "Expected --only to match a cell, got none of stock/load.",
    ],
    [
      ["--out", "x", "--simulated", "--request-rate", "1"],
      "Expected --num-prompts or --seconds, got neither",
    ],
    [
      ["--out", "x", "--simulated", "--seconds", "1"],
      "Expected --request-rate to be given: arrivals a second, got nothing.",
    ],
    [
      ["--out", "x", "--simulated", "--arrivals", "ramp", "--seconds", "1"],
      "Expected --ramp-up-start-rps to be given with --arrivals ramp, got nothing.",
    ],
    ...(
      [
        [["--burstiness", "2"], "--burstiness only with --arrivals gamma"],
        [["--speed", "2"], "--speed only where the arrivals are a trace's"],
        [["--ramp-up-end-rps", "2"], "--ramp-up-end-rps only with --arrivals ramp"],
        [["--start", "spawn", "--num-warmups", "2"], "--num-warmups only without --start spawn"],
        [["--profile", "p"], "--profile only with --simulated"],
        [["--jitter", "0.1"], "--jitter only with --simulated"],
        [["--real-time"], "--real-time only with --simulated"],
      ] as const
    ).map(([more, sentence]): [string[], string] => [
      ["--out", "x", "--url", "http://h", "--request-rate", "1", "--seconds", "1", ...more],
      `Expected ${sentence}: it has no effect here.`,
    ]),
    [
      ["--out", "x", "--request-rate", "1", "--seconds", "1", "--", "vllm"],
      "Expected the command after `--` to be a command with {port}",
    ],
    [["report", "/nope"], 'wrote after report, got "/nope" (ENOENT).'],
    [["merge", "/nope", "--out", "x"], 'wrote after merge, got "/nope" (ENOENT).'],
    [["report"], "Expected one folder after report, got 0."],
    [["merge", "a"], "Expected --out with a folder"],
  ])("%# is a sentence", async ([args, sentence]) => {
    const error: unknown = await runBench(args).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      code: "ERR_LAZYGRAPH_OPTION",
      message: expect.stringContaining(sentence),
    });
  });

  test("a folder to merge that is named twice, however that is written", async () => {
    const folder = await temporaryFolder();
    await mkdir(join(folder, "runs"));
    const merged = runBench(["merge", folder, `${folder}/runs/..`, "--out", join(folder, "all")]);
    await expect(merged).rejects.toThrow(/each folder once after merge, got ".*\.\." again/);
  });

  test("exit code 2, one line on stderr and nothing on stdout", SLOW, async () => {
    const { code, stderr, stdout } = await finish(["bench", "--out", "x", "--request-rate", "1"]);
    expect(code).toBe(2);
    expect(stderr.trim().split("\n")).toHaveLength(1);
    expect(stdout).toBe("");
  });

  test("help has examples", SLOW, async () => {
    const { code, stdout } = await finish(["bench", "--help"]);
    expect(code).toBe(0);
    expect(stdout).toContain("Examples:");
    expect(Math.max(...stdout.split("\n").map(({ length }) => length))).toBeLessThanOrEqual(100);
  });
});
