/** What a release publishes, installed as a stranger installs it. */

import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { ADDON } from "../gpu-memory/fake.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { packInto, ROOT } from "./packed.ts";

const execute = promisify(execFile);
const PLATFORM = `${process.platform}-${process.arch}`;
const MS_MAX = 300_000;

test("the package finds the addon in the platform's package, and does without", {
  timeout: MS_MAX,
}, async () => {
  // A copy of what `npm pack` takes: prebuilds/ of this checkout is nobody's test's to write.
  const copy = await temporaryFolder();
  const packed = await temporaryFolder();
  const tarball = join(packed, await packInto(packed));
  await execute("tar", ["-xzf", tarball, "--strip-components=1", "-C", copy]);
  await cp(join(ROOT, "scripts", "release.mjs"), join(copy, "scripts", "release.mjs"));
  await mkdir(join(copy, "prebuilds", PLATFORM), { recursive: true });
  await cp(ADDON, join(copy, "prebuilds", PLATFORM, "gpu_memory.node"));

  const out = await temporaryFolder();
  await execute(process.execPath, ["scripts/release.mjs", out], { cwd: copy, timeout: MS_MAX });
  const { version } = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8"));
  const names = (await readdir(out)).sort();
  const addon = `lazygraph-gpu-${PLATFORM}-${version}.tgz`;
  expect(names).toEqual([`lazygraph-${version}.tgz`, addon].sort());

  const user = await temporaryFolder();
  await writeFile(join(user, "package.json"), '{"name": "user", "private": true}');
  const install = (...files: string[]) =>
    execute("npm", ["install", "--ignore-scripts", "--no-audit", "--no-fund", ...files], {
      cwd: user,
      timeout: MS_MAX,
    });
  const doctor = async (): Promise<{ status: string; found: string }> => {
    const bin = join(user, "node_modules", ".bin", "lazygraph");
    const { stdout } = await execute(bin, ["doctor", "--for", "serve", "--json"], { cwd: user });
    const { findings } = JSON.parse(stdout);
    return findings.find(({ name }: { name: string }) => name === "addon");
  };
  // Not published: npm goes on without optional dependencies that no index has.
  await install(join(out, `lazygraph-${version}.tgz`));
  expect(existsSync(join(user, "node_modules", "lazygraph", "prebuilds"))).toBe(false);
  expect(await doctor()).toMatchObject({ status: "warning", found: "not here" });
  await install(join(out, addon));
  expect(await doctor()).toMatchObject({
    status: "ok",
    found: expect.stringContaining(`lazygraph-gpu-${PLATFORM}`),
  });
});
