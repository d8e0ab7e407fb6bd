import { spawnSync } from "node:child_process";
import { copyFile, mkdir, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { temporaryFolder } from "../helpers/folder.ts";

const BIOME = createRequire(import.meta.url).resolve("@biomejs/biome/bin/biome");
const CONFIG = fileURLToPath(new URL("../../biome.json", import.meta.url));

/** By file: what somebody might add to the scheduler. */
const SOUND: Readonly<Record<string, string>> = {
  "src/schedule/sound.ts": uses(
    "../base/graph.ts",
    "../base/median.ts",
    "./policy.ts",
    "./modes/idle.ts",
  ),
  "src/schedule/costed/sound.ts": uses(
    "../../base/graph.ts",
    "../../base/median.ts",
    "../policy.ts",
    "./cost.ts",
  ),
  "src/sim/virtual/comparators/sound.ts": uses(
    "../../../base/graph.ts",
    "../../../schedule/policy.ts",
    "./exact.ts",
  ),
};
const IMPURE: Readonly<Record<string, string>> = {
  "src/schedule/queue.ts": uses("p-queue"),
  "src/schedule/sockets.ts": uses("zeromq"),
  "src/schedule/codec.ts": uses("msgpackr"),
  "src/schedule/files.ts": uses("node:fs"),
  "src/schedule/clock.ts": uses("../base/clock.ts"),
  "src/schedule/wire.ts": uses("../wire/router.ts"),
  "src/schedule/plans.ts": uses("../plan/store.ts"),
  "src/schedule/driver.ts": uses("../engine/driver.ts"),
  "src/schedule/other.ts": uses("csv-parse"),
  "src/schedule/passed-on.ts": 'export { x } from "../base/clock.ts";\n',
  "src/schedule/later.ts": 'export const y: unknown = import("node:net");\n',
  "src/schedule/date.ts": "export const y: unknown = Date.now();\n",
  "src/schedule/timer.ts": "export const y: unknown = setTimeout(() => 0, 1);\n",
  "src/schedule/time.ts": "export const y: unknown = performance.now();\n",
  "src/schedule/environment.ts": "export const y: unknown = process.env;\n",
  "src/schedule/network.ts": 'export const y: unknown = fetch("http://localhost");\n',
  "src/schedule/modes/clock.ts": uses("../../base/clock.ts"),
  "src/schedule/modes/costs.ts": uses("../costed/cost.ts"),
  "src/schedule/costed/wire.ts": uses("../../wire/router.ts"),
  "src/schedule/costed/timer.ts": "export const y: unknown = setTimeout(() => 0, 1);\n",
  "src/sim/virtual/comparators/clock.ts": uses("../../../base/clock.ts"),
  "src/sim/virtual/comparators/wire.ts": uses("../../../wire/router.ts"),
};

function uses(...names: string[]): string {
  const imports = names.map((from, index) => `import { x as x${index} } from "${from}";\n`);
  const values = names.map((_, index) => `x${index}`);
  return `${imports.join("")}export const y: readonly unknown[] = [${values.join(", ")}];\n`;
}

test("lint proves that the scheduler has no I/O, no clock and no queue", async () => {
  const folder = await temporaryFolder();
  await copyFile(CONFIG, join(folder, "biome.json"));
  for (const [file, source] of Object.entries({ ...SOUND, ...IMPURE })) {
    await mkdir(dirname(join(folder, file)), { recursive: true });
    await writeFile(join(folder, file), source);
  }
  const { stdout, error } = spawnSync(
    process.execPath,
    [BIOME, "lint", "--vcs-enabled=false", "--reporter=github", "--max-diagnostics=none", "src"],
    { cwd: folder, encoding: "utf8" },
  );
  expect(error).toBeUndefined();
  const complaints = [...stdout.matchAll(/^::error title=([^,]+),file=([^,]+),/gm)];
  const refused = new Set(
    complaints
      .filter(([, rule]) => rule?.includes("noRestricted"))
      .map(([, , file = ""]) => file.slice(file.search(/src\/(?:schedule|sim)\//))),
  );
  expect([...refused].sort()).toEqual(Object.keys(IMPURE).sort());
});
