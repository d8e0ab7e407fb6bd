import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { askPreflight, preflightOf } from "../../src/cli/preflight.ts";
import { preflightText } from "../../src/cli/preflight-text.ts";
import { vllmCommand } from "../../src/cli/vllm-command.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { finish } from "./helpers/command.ts";

const LAZILY = {
  lazily: true,
  reason: "dense models: tried on a GPU with vLLM 0.33.0",
  vllm: "0.33.0",
  plugin: "0.1.0",
  adapter: "v31",
  traits: [],
  gpus: ["NVIDIA H200", "NVIDIA H200"],
  gpuReason: null,
  planned: { FULL: 51, PIECEWISE: 51 },
  untested: [],
  ignored: [],
};
const STOCK = { ...LAZILY, lazily: false, reason: "not supported: LoRA", planned: null };
const UNTOLD = { ...LAZILY, lazily: null, reason: "vLLM sees no GPU here", planned: null };

/**
 * A Python that has the plugin and answers with `body`, and a `vllm` that is its script. It writes
 * down what it was asked with.
 */
async function standIn(body: string, hasPlugin = "True"): Promise<NodeJS.ProcessEnv> {
  const folder = await temporaryFolder();
  const python = join(folder, "python3");
  await writeFile(
    python,
    `#!/bin/sh
if [ "$1" = "-c" ]; then echo ${hasPlugin}; exit 0; fi
printf '%s\\n' "$@" > ${folder}/asked
echo "$MARK" > ${folder}/mark
echo "vLLM says something" >&2
${body}
`,
  );
  await writeFile(join(folder, "vllm"), `#!${python}\nimport vllm\n`);
  for (const name of ["python3", "vllm"]) await chmod(join(folder, name), 0o755);
  return { PATH: `${folder}:${process.env["PATH"]}`, FOLDER: folder };
}

function saying(answer: unknown): string {
  return `cat <<'END'\n${JSON.stringify(answer)}\nEND`;
}

function doctor(env: NodeJS.ProcessEnv, command: readonly string[], ...options: string[]) {
  return finish(["doctor", ...options, "--", ...command], env);
}

const COMMAND = ["vllm", "serve", "MODEL", "-tp", "2"];

describe("the command", () => {
  test("lazily: told in a block, with the plugin asked in the command's own Python", async () => {
    const env = await standIn(saying(LAZILY));
    const run = await doctor(env, ["env", "MARK=here", ...COMMAND]);
    expect(run).toMatchObject({ code: 0, stderr: "" });
    expect(run.stdout.trim().split("\n")).toEqual([
      "command   env MARK=here vllm serve MODEL -tp 2",
      "verdict   captured lazily",
      "why       dense models: tried on a GPU with vLLM 0.33.0",
      "vllm      0.33.0, adapter v31, plugin 0.1.0",
      `python    ${env["FOLDER"]}/python3`,
      "gpus      2 × NVIDIA H200",
      "graphs    at most 102: 51 FULL, 51 PIECEWISE",
    ]);
    const asked = await readFile(join(env["FOLDER"] ?? "", "asked"), "utf8");
    expect(asked.trim().split("\n")).toEqual([
      "-m",
      "lazygraph_vllm.preflight",
      "--json",
      "--",
      "serve",
      "MODEL",
      "-tp",
      "2",
    ]);
    expect((await readFile(join(env["FOLDER"] ?? "", "mark"), "utf8")).trim()).toBe("here");
  });

  test.each([
    [STOCK, 0, "runs as stock"],
    [UNTOLD, 1, "can't be told"],
  ])("%j ends with %i", async (answer, code, verdict) => {
    const env = await standIn(saying(answer));
    const text = await doctor(env, COMMAND);
    expect(text.code).toBe(code);
    expect(text.stdout).toContain(`verdict   ${verdict}\nwhy       ${answer.reason}\n`);
    const json = await doctor(env, COMMAND, "--json");
    expect(json).toMatchObject({ code, stderr: "" });
    expect(JSON.parse(json.stdout)).toMatchObject({
      command: COMMAND,
      lazily: answer.lazily,
      reason: answer.reason,
      python: `${env["FOLDER"]}/python3`,
    });
  });

  test("what is told of a command is without its keys", async () => {
    const env = await standIn(saying(STOCK));
    const command = ["env", "HF_TOKEN=very-secret", ...COMMAND, "--api-key", "very-secret"];
    for (const options of [[], ["--json"]]) {
      const { stdout } = await doctor(env, command, ...options);
      expect(stdout).toContain("HF_TOKEN=…");
      expect(stdout).not.toContain("very-secret");
    }
    const asked = await readFile(join(env["FOLDER"] ?? "", "asked"), "utf8");
    expect(asked).toContain("very-secret");
  });

  test("without the plugin in its Python it runs as stock, and nothing is asked", async () => {
    const env = await standIn("exit 9", "False");
    const run = await doctor(env, COMMAND);
    expect(run.code).toBe(0);
    expect(run.stdout).toContain("verdict   runs as stock");
    expect(run.stdout).toContain("has no lazygraph-vllm, so `lazygraph run` won't start it; `");
    const disabled = await doctor({ ...env, LAZYGRAPH_DISABLE: "1" }, COMMAND);
    expect(disabled.stdout).toContain("has no lazygraph-vllm; `");
    await expect(readFile(join(env["FOLDER"] ?? "", "asked"))).rejects.toThrow("ENOENT");
  });

  test("without vLLM in its Python it runs as nothing", async () => {
    const env = await standIn("exit 9", "False False");
    const run = await doctor(env, COMMAND);
    expect(run.code).toBe(1);
    expect(run.stdout).toContain(
      `verdict   can't be told\nwhy       ${env["FOLDER"]}/python3 has no`,
    );
    const started = await finish(["run", "--", ...COMMAND], env);
    expect(started.code).toBe(1);
    expect(started.stderr).toMatch(
      /Expected vLLM and the plugin .+ neither: .+_PLUGIN_MISSING\]\n$/,
    );
  });

  test("VLLM_PLUGINS that leaves the plugin out makes it stock", async () => {
    const env = { ...(await standIn("exit 9")), VLLM_PLUGINS: "other" };
    const run = await doctor(env, COMMAND);
    expect(run.code).toBe(0);
    expect(run.stdout).toContain("VLLM_PLUGINS=other leaves the plugin out, so `lazygraph run`");
  });

  test("--python names another Python, such as for a vllm that is no script", async () => {
    const env = await standIn(saying(LAZILY));
    const folder = await temporaryFolder();
    await writeFile(join(folder, "vllm"), "#!/bin/sh\nexec docker run vllm\n");
    await chmod(join(folder, "vllm"), 0o755);
    const command = [join(folder, "vllm"), "serve", "MODEL"];
    const without = await doctor(env, command);
    expect(without.code).toBe(1);
    expect(without.stdout).toContain("name it with --python PATH");
    const named = await doctor(env, command, "--python", `${env["FOLDER"]}/python3`);
    expect(named.code).toBe(0);
  });

  test.each([
    [
      ["docker", "run", "vllm/vllm-openai"],
      [],
      /^lazygraph: Expected `vllm serve MODEL …`.+, variables after `env`\. .+_NOT_VLLM\]$/,
    ],
    [[], [], /Expected a command after `--`/],
    [COMMAND, ["--for", "serve"], /Expected no --for with a command/],
    [COMMAND, ["--versions"], /Expected no --versions with a command/],
  ])("%j %j is a usage error of one sentence", async (command, options, sentence) => {
    const run = await doctor({}, command, ...options);
    expect(run).toMatchObject({ code: 2, stdout: "" });
    expect(run.stderr.trim()).toMatch(sentence);
    expect(run.stderr.trim().split("\n")).toHaveLength(1);
  });
});

describe("a Python that gives no answer", () => {
  const cases: readonly (readonly [string, string, RegExp])[] = [
    [
      "fails",
      "echo Traceback >&2; echo 'OSError: libcuda' >&2; exit 1",
      /failed: OSError: libcuda$/,
    ],
    ["says nothing", "exit 0", /gave no answer that is one$/],
    ["talks nonsense", "echo '{}'", /gave no answer that is one$/],
    ["says too much", "yes", /says too much$/],
    [
      "has an older plugin",
      "echo 'python3: No module named lazygraph_vllm.preflight' >&2; exit 1",
      /is older than this; `.+ --force-reinstall --no-deps .\/worker` in a checkout/,
    ],
    // Longer than any test may take: only the limit ends it.
    ["hangs", "exec sleep 1000", /had not answered after 0.05 s$/],
  ];
  test.each(cases)("that %s can't be told", async (what, body, reason) => {
    const env = await standIn(body);
    const limitMs = what === "hangs" ? 50 : undefined;
    const answer = await askPreflight(vllmCommand(COMMAND), env, undefined, limitMs);
    expect(answer.lazily).toBeNull();
    expect(answer.reason).toMatch(reason);
  });

  test("a program that is not there", async () => {
    const missing = vllmCommand([
      "/nowhere/python3",
      "-m",
      "vllm.entrypoints.cli.main",
      "serve",
      "M",
    ]);
    const answer = await askPreflight(missing, {});
    expect(answer).toMatchObject({ lazily: null, reason: "there is no program /nowhere/python3" });
  });

  test("words that no process can have", async () => {
    const answer = await askPreflight(vllmCommand(["vllm", "serve", "a\0b"]), await standIn(""));
    expect(answer).toMatchObject({ lazily: null, reason: expect.stringContaining("null bytes") });
  });
});

test("an answer is checked, and what a newer plugin says besides is left out", () => {
  expect(preflightOf(JSON.stringify({ ...LAZILY, more: 1 }))).toEqual({
    lazily: true,
    reason: LAZILY.reason,
    vllm: "0.33.0",
    plugin: "0.1.0",
    adapter: "v31",
    traits: [],
    gpus: LAZILY.gpus,
    planned: LAZILY.planned,
    untested: [],
    ignored: [],
  });
  for (const wrong of [null, [], { lazily: 1, reason: "x" }, { lazily: true }]) {
    expect(preflightOf(JSON.stringify(wrong))).toBeUndefined();
  }
  const odd = { ...LAZILY, gpus: [1], planned: { FULL: "51" }, traits: "dense" };
  const answer = preflightOf(JSON.stringify(odd));
  expect(answer).toMatchObject({ gpus: [], traits: [] });
  expect(answer).not.toHaveProperty("planned");
});

test("what is not known is not in the block, and control characters are not either", () => {
  const nothing = { traits: [], gpus: [], untested: [], ignored: [] };
  const untold = { ...nothing, lazily: null, reason: "no\u001b[31m GPU" };
  expect(preflightText(["vllm", "serve", "M"], untold)).toBe(
    "command   vllm serve M\nverdict   can't be told\nwhy       no [31m GPU",
  );
  const untested = {
    ...untold,
    untested: ["LoRA", "more"],
    ignored: ["a: false"],
    traits: ["moe"],
    gpuReason: "no NVML",
    plugin: "0.1.0",
  };
  expect(preflightText(["vllm"], untested)).toContain(
    "untried   LoRA; more\nignored   a: false\nvllm      not asked, plugin 0.1.0\n" +
      "model     moe\ngpus      not known: no NVML",
  );
});
