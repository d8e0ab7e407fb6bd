import { spawnSync } from "node:child_process";
import { copyFile, mkdir, readdir, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { temporaryFolder } from "../helpers/folder.ts";

const BIOME = createRequire(import.meta.url).resolve("@biomejs/biome/bin/biome");
const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** What src/sim's parts may import of the other folders. */
const SIM = ["base", "plan", "profile", "schedule", "schedule/costed", "schedule/modes"];
const SIM_ALL = [...SIM, "trace", "wire"];
const SIMULATOR = ["sim/live", "sim/model", "sim/virtual", "sim/virtual/comparators"];
const SCHEDULE = ["schedule", "schedule/costed", "schedule/modes"];

/**
 * By folder: the folders it may import. `src/base/graph.ts` and `median.ts`, all that the scheduler
 * may import of base, are test/schedule/pure.test.ts's.
 */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  base: [],
  caches: ["base"],
  gpu: ["base"],
  launcher: ["base"],
  measure: ["base"],
  startup: ["base", "measure"],
  trace: ["base"],
  wire: ["base"],
  schedule: ["schedule/costed", "schedule/modes"],
  "schedule/costed": ["schedule"],
  "schedule/modes": ["schedule"],
  profile: ["base", ...SCHEDULE],
  plan: ["base", "profile", ...SCHEDULE, "wire"],
  memory: ["base", "gpu", ...SCHEDULE, "wire"],
  engine: ["base", "engine/step", "memory", "plan", ...SCHEDULE, "wire"],
  "engine/step": ["base", "engine", "memory", "plan", ...SCHEDULE, "wire"],
  controller: ["base", "engine", "memory", "plan", "profile", ...SCHEDULE, "wire"],
  metrics: ["base", "controller", "engine", "wire"],
  record: ["base", "engine", "measure"],
  http: ["base", "controller", "engine", "wire"],
  replica: ["base", "controller", "engine", "http", "wire"],
  "sim/model": SIM_ALL,
  "sim/live": ["sim/model", ...SIM_ALL],
  // The simulator runs the very step that drives an engine.
  "sim/virtual": [
    ...["engine", "engine/step", "measure", "memory", "sim/model", "sim/virtual/comparators"],
    ...SIM_ALL,
  ],
  "sim/virtual/comparators": SCHEDULE,
  bench: [
    ...["base", "controller", "engine", "measure", "profile", ...SIMULATOR, "startup"],
    ...["trace", "wire"],
  ],
  calibrate: [...["base", "controller", "engine", "measure", "profile"], ...SCHEDULE, ...SIMULATOR],
};

test("a folder imports those that its rule allows, and no other", async () => {
  const folders = await foldersOf(join(ROOT, "src"));
  const ruled = folders.filter((folder) => folder !== "cli" && folder !== "");
  expect(ruled.sort()).toEqual(Object.keys(ALLOWED).sort());
  const folder = await temporaryFolder();
  await copyFile(join(ROOT, "biome.json"), join(folder, "biome.json"));
  for (const from of ruled) {
    for (const to of folders.filter((other) => other !== from)) {
      const file = join(folder, "src", from, `${named(to)}.ts`);
      await mkdir(dirname(file), { recursive: true });
      const path = relative(join("src", from), join("src", to, "planted.ts"));
      const source = `import type { X } from "${path.startsWith(".") ? path : `./${path}`}";\n`;
      await writeFile(file, `${source}export type Y = X;\n`);
    }
  }
  const { stdout, error } = spawnSync(
    process.execPath,
    [BIOME, "lint", "--vcs-enabled=false", "--reporter=github", "--max-diagnostics=none", "src"],
    { cwd: folder, encoding: "utf8", maxBuffer: 1 << 26 },
  );
  expect(error).toBeUndefined();
  const refused = new Set(
    [...stdout.matchAll(/^::error title=[^,]*noRestrictedImports,file=([^,]+),/gm)].map(
      ([, file = ""]) => file.slice(file.search(/src\//)),
    ),
  );
  const accepted = ruled.map((from) => {
    const sound = folders.filter(
      (to) => to !== from && !refused.has(`src/${from}/${named(to)}.ts`),
    );
    return [from, sound.sort()];
  });
  expect(Object.fromEntries(accepted)).toEqual(
    Object.fromEntries(Object.entries(ALLOWED).map(([from, to]) => [from, [...to].sort()])),
  );
});

test("who writes an engine's record is imported by its step alone", async () => {
  const folder = await temporaryFolder();
  await copyFile(join(ROOT, "biome.json"), join(folder, "biome.json"));
  const writer = join("src", "engine", "step", "booking.ts");
  const from = [
    "src",
    "src/cli",
    "src/controller",
    "src/engine",
    "src/engine/step",
    "src/sim/virtual",
  ];
  for (const place of from) {
    const file = join(folder, place, "planted.ts");
    await mkdir(dirname(file), { recursive: true });
    const path = relative(place, writer);
    const source = `import type { X } from "${path.startsWith(".") ? path : `./${path}`}";\n`;
    await writeFile(file, `${source}export type Y = X;\n`);
  }
  const { stdout } = spawnSync(
    process.execPath,
    [BIOME, "lint", "--vcs-enabled=false", "--reporter=github", "--max-diagnostics=none", "src"],
    { cwd: folder, encoding: "utf8" },
  );
  const refused = [
    ...stdout.matchAll(
      /noRestrictedImports,file=[^,]*?(src\/[^,]*)\/planted\.ts,|noRestrictedImports,file=[^,]*?(src)\/planted\.ts,/g,
    ),
  ];
  expect(refused.map(([, deep, root]) => deep ?? root).sort()).toEqual(
    from.filter((place) => place !== "src/engine/step").sort(),
  );
});

/** The root, whose files are the entry points, is "". */
async function foldersOf(root: string): Promise<string[]> {
  const found = await readdir(root, { recursive: true, withFileTypes: true });
  const files = found.filter((entry) => entry.isFile() && entry.name.endsWith(".ts"));
  return [...new Set(files.map((file) => relative(root, file.parentPath)))].sort();
}

function named(folder: string): string {
  return folder === "" ? "root" : folder.replaceAll("/", "-");
}
