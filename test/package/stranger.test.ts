import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { copyFile, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { listening } from "../helpers/listening.ts";
import { failedStart, installPacked, ROOT } from "./packed.ts";

const execute = promisify(execFile);
const CONTROLLER = join(ROOT, "examples", "readme-controller.ts");
const SIMULATED_ENGINE = join(ROOT, "examples", "simulated-engine.mjs");

let folder: string;
let remove: () => Promise<void>;

beforeAll(async () => {
  ({ folder, remove } = await installPacked());
}, 300_000);

afterAll(() => remove?.());

test("the README shows the example that runs here", async () => {
  const readme = await readFile(join(ROOT, "README.md"), "utf8");
  const code = await readFile(CONTROLLER, "utf8");
  expect(readme).toContain(`\`\`\`js\n${code}\`\`\``);
  const lines = code.split("\n").filter((line) => line.trim() !== "");
  expect(lines.length).toBeLessThanOrEqual(15);
});

test("the API page shows the simulated engine that runs here", async () => {
  const page = await readFile(join(ROOT, "docs", "api.md"), "utf8");
  const [, ...code] = (await readFile(SIMULATED_ENGINE, "utf8")).split("\n");
  expect(page).toContain(`\`\`\`js\n${code.join("\n")}\`\`\``);
});

test("the README's controller, in an empty folder, sees an engine join", async () => {
  await copyFile(CONTROLLER, join(folder, "controller.mjs"));
  await copyFile(SIMULATED_ENGINE, join(folder, "engine.mjs"));
  const env = { ...process.env, LAZYGRAPH_ENDPOINT: "tcp://127.0.0.1:0" };
  const controller = spawn(process.execPath, ["controller.mjs"], {
    cwd: folder,
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(() => void controller.kill("SIGKILL"));
  const closed = once(controller, "close");
  const lines = createInterface({ input: controller.stdout })[Symbol.asyncIterator]();
  const first = (await lines.next()).value ?? "";
  const endpoint = /^LAZYGRAPH_ENDPOINT=(\S+) vllm serve MODEL$/.exec(first)?.[1];
  expect(endpoint).toMatch(/^tcp:\/\/127\.0\.0\.1:[1-9]\d*$/);

  const engine = spawn(process.execPath, ["engine.mjs"], {
    cwd: folder,
    env: { ...process.env, LAZYGRAPH_ENDPOINT: endpoint },
    stdio: ["ignore", "inherit", "inherit"],
  });
  onTestFinished(() => void engine.kill("SIGKILL"));
  expect((await lines.next()).value).toMatch(/ \(idle\) serves with \d+ of 102$/);
  controller.kill("SIGTERM");
  expect(await closed).toEqual([0, null]);
});

test("the README's controller ends with 0 when it is stopped while it waits", async () => {
  await copyFile(CONTROLLER, join(folder, "waiting.mjs"));
  const env = { ...process.env, LAZYGRAPH_ENDPOINT: "tcp://127.0.0.1:0" };
  const controller = spawn(process.execPath, ["waiting.mjs"], {
    cwd: folder,
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  onTestFinished(() => void controller.kill("SIGKILL"));
  const said = text(controller.stderr);
  const closed = once(controller, "close");
  // What it prints once it listens; it waits for an engine from then on.
  await createInterface({ input: controller.stdout })[Symbol.asyncIterator]().next();
  controller.kill("SIGTERM");
  expect(await closed).toEqual([0, null]);
  expect(await said).toBe("");
});

test("the README's controller says in one line why it ends", async () => {
  const code = await readFile(CONTROLLER, "utf8");
  const hasty = code.replace("600_000", "50");
  expect(hasty).not.toBe(code);
  await writeFile(join(folder, "hasty.mjs"), hasty);
  const at = (endpoint: string) => ({ ...process.env, LAZYGRAPH_ENDPOINT: endpoint });
  const late = await failedStart(["hasty.mjs"], folder, at("tcp://127.0.0.1:0"));
  expect(late.stderr).toMatch(/^[^\n]* \[ERR_LAZYGRAPH_ENGINE_TIMEOUT\]\n$/);
  expect(late.code).toBe(1);
  const { port } = new URL(await listening(createServer()));
  const busy = await failedStart(["hasty.mjs"], folder, at(`tcp://127.0.0.1:${port}`));
  const inUse = "\\[ERR_LAZYGRAPH_ADDRESS_IN_USE\\]";
  expect(busy.stderr).toMatch(new RegExp(`^LazygraphError: [^\\n]*:${port}[^\\n]* ${inUse}\\n$`));
  expect(busy.code).toBe(1);
});

test("the package has what its help and pages name", async () => {
  const own = join(folder, "node_modules", "lazygraph");
  for (const name of ["docs/guide.md", "docs/errors.md", "examples/gateway/src/main.ts"]) {
    expect(existsSync(join(own, name)), name).toBe(true);
  }
  const help = async (command: string) => {
    const args = ["--no-install", "lazygraph", command, "--help"];
    return (await execute("npx", args, { cwd: folder })).stdout;
  };
  const [, spec = ""] = /bench --spec (\S+)/.exec(await help("bench")) ?? [];
  expect(JSON.parse(await readFile(join(folder, spec), "utf8"))).toHaveProperty("modes.idle");
  const [, trace = ""] =
    /^ {2}lazygraph simulate --trace (\S+)/m.exec(await help("simulate")) ?? [];
  const simulate = ["lazygraph", "simulate", "--trace", trace, "--seconds", "5", "--json"];
  const args = ["--no-install", ...simulate, "--policy", "idle"];
  const { stdout } = await execute("npx", args, { cwd: folder });
  expect(JSON.parse(stdout)).toMatchObject({ trace: expect.anything() });
});

test("npx lazygraph passes a command on, `--` included", async () => {
  const program = "console.log(process.env.LAZYGRAPH_MODE)";
  const args = ["--no-install", "lazygraph", "run", "--mode", "lazy", "--", "node", "-e", program];
  const { stdout } = await execute("npx", args, { cwd: folder });
  expect(stdout).toBe("lazy\n");
});

test("its types check in a stranger's strict project", async () => {
  await copyFile(CONTROLLER, join(folder, "controller.ts"));
  await writeFile(
    join(folder, "wrong.ts"),
    'import { createController } from "lazygraph";\ncreateController({ mode: "fast" });\n',
  );
  const check = (file: string) => {
    const options = ["--noEmit", "--strict", "--target", "es2023", "--module", "nodenext"];
    const types = ["--types", "node", "--typeRoots", join(ROOT, "node_modules", "@types")];
    const tsc = join(ROOT, "node_modules", "typescript", "bin", "tsc");
    return execute(process.execPath, [tsc, "--ignoreConfig", ...options, ...types, file], {
      cwd: folder,
    });
  };
  await check("controller.ts");
  await copyFile(SIMULATED_ENGINE, join(folder, "engine.ts"));
  await check("engine.ts");
  // The same check must be able to fail.
  await expect(check("wrong.ts")).rejects.toMatchObject({
    stdout: expect.stringContaining("TS2322"),
  });
});
