/** Presets: what each sets, unless the user said otherwise. */

import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { type OptionSpec, parseOptions } from "../../src/cli/options.ts";
import { PRESETS, withControllerPreset, withPreset } from "../../src/cli/presets.ts";
import { RUN_OPTIONS } from "../../src/cli/run-options.ts";
import { SERVE_OPTIONS } from "../../src/cli/serve.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { finish } from "./helpers/command.ts";

const COMMAND = ["vllm", "serve", "MODEL"];

function preset(words: string, command: readonly string[] = COMMAND, env: NodeJS.ProcessEnv = {}) {
  const given = parseOptions(words.split(" "), RUN_OPTIONS as OptionSpec);
  const { options, command: full, sentence } = withPreset(given, command, env);
  const strings = Object.fromEntries(options.strings);
  return { strings, flags: [...options.flags], added: full.slice(command.length), sentence };
}

test("a preset sets our options and vLLM's, and says which", () => {
  expect(preset("--preset throughput")).toEqual({
    strings: { preset: "throughput", mode: "eager" },
    flags: [],
    added: ["--stream-interval", "8"],
    sentence: "Preset throughput sets --mode eager, vLLM's --stream-interval 8.",
  });
  expect(preset("--preset development")).toMatchObject({
    ...{ strings: { mode: "lazy" }, flags: ["no-plan"], added: [] },
  });
});

test.for([
  ["--preset throughput --mode idle", COMMAND, {}, "--mode eager"],
  ["--preset throughput", [...COMMAND, "--stream_interval=2"], {}, "vLLM's --stream-interval 8"],
  ["--preset throughput", COMMAND, { LAZYGRAPH_MODE: "idle" }, "--mode eager"],
  ["--preset tight-memory --reserve plan", COMMAND, {}, "--reserve least"],
  ["--preset development --plan-dir d", COMMAND, {}, "--no-plan"],
] as const)("%s of %j gives way to what was said", ([words, command, env, left]) => {
  const { sentence } = preset(words, command, env);
  expect(sentence).toContain(`yours is in the place of ${left}.`);
});

test("vLLM's file of options is yours too; a shell's script takes nothing behind it", async () => {
  const file = join(await temporaryFolder(), "vllm.yaml");
  await writeFile(file, "stream_interval: 2\n");
  const configured = preset("--preset throughput", [...COMMAND, "--config", file]);
  expect(configured).toMatchObject({
    added: [],
    sentence: expect.stringContaining("yours is in the place of vLLM's --stream-interval 8."),
  });
  expect(preset("--preset throughput", ["sh", "-c", "vllm serve MODEL"])).toMatchObject({
    added: [],
    sentence:
      "Preset throughput sets --mode eager; " +
      "write vLLM's --stream-interval 8 into the shell's script yourself.",
  });
  const own = preset("--preset throughput", ["sh", "-c", "vllm serve M --stream-interval 2"]);
  expect(own.sentence).toContain("yours is in the place of vLLM's --stream-interval 8.");
});

test("a preset that gives way in all sets nothing", () => {
  const { strings, sentence } = preset("--preset lowest-latency --mode lazy");
  expect(strings["mode"]).toBe("lazy");
  expect(sentence).toBe(
    "Preset lowest-latency sets nothing; yours is in the place of --mode eager.",
  );
});

test("a controller without a command leaves vLLM's to the engines", () => {
  const given = parseOptions(["--preset", "throughput"], SERVE_OPTIONS);
  expect(withControllerPreset(given, {}).sentence).toBe(
    "Preset throughput sets --mode eager; " +
      "write vLLM's --stream-interval 8 into the engines' own commands yourself.",
  );
  const other = parseOptions(["--preset", "tight-memory"], SERVE_OPTIONS);
  expect(withControllerPreset(other, {}).sentence).not.toContain("engines");
});

test("every preset has options that commands know, and figures in the documents", () => {
  const docs = readFileSync(new URL("../../docs/configuration.md", import.meta.url), "utf8");
  const section = docs.split("## Presets")[1]?.split("\n## ")[0] ?? "";
  for (const [name, { ours, vllm }] of Object.entries(PRESETS)) {
    const row = section.split("\n").find((line) => line.startsWith(`| \`${name}\``)) ?? "";
    for (const [option, value] of Object.entries(ours)) {
      expect(Object.keys(RUN_OPTIONS)).toContain(option);
      expect(Object.keys(SERVE_OPTIONS)).toContain(option);
      expect(row).toContain(value === true ? `--${option}` : `--${option} ${value}`);
    }
    for (const [option, value] of Object.entries(vllm)) {
      expect(row).toContain(`--${option} ${value}`);
    }
    expect(row).toMatch(/\d/);
  }
});

test("run and serve take one, from a file too, and print what it set", async () => {
  const script = "console.log(process.env.LAZYGRAPH_MODE, process.argv.slice(1).join(' '))";
  const words = ["run", "--preset", "throughput", "--", process.execPath, "-e", script, "--"];
  const { code, stdout, stderr } = await finish(words);
  expect({ code, stdout }).toEqual({ code: 0, stdout: "eager --stream-interval 8\n" });
  expect(stderr).toMatch(/^lazygraph: Preset throughput sets --mode eager, vLLM's/);
  const wrong = await finish(["serve", "--preset", "troughput"]);
  expect(wrong).toMatchObject({ code: 2, stderr: expect.stringContaining("mean throughput?") });
});

test("LAZYGRAPH_DISABLE leaves it as typed", async () => {
  const script = "console.log(process.argv.slice(1).join(' '))";
  const words = ["run", "--preset", "throughput", "--", process.execPath, "-e", script, "--", "x"];
  const { stdout } = await finish(words, { LAZYGRAPH_DISABLE: "1" });
  expect(stdout).toBe("x\n");
});
