/** The package as a stranger gets it: packed, and installed into an empty folder. */

import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { REMOVED } from "../helpers/removal.ts";

export const ROOT: string = fileURLToPath(new URL("../..", import.meta.url));
const INSTALL_TIMEOUT_MS = 240_000;

const execute = promisify(execFile);

/** A folder with the package installed (in this environment), and what it takes to remove it. */
export async function installPacked(
  environment: NodeJS.ProcessEnv = process.env,
): Promise<{ folder: string; remove: () => Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), "lazygraph-stranger-"));
  const filename = await packInto(folder);
  const manifest = { name: "stranger", private: true, type: "module" };
  await writeFile(join(folder, "package.json"), JSON.stringify(manifest));
  const install = ["install", "--prefer-offline", "--no-audit", "--no-fund", `./${filename}`];
  const options = { cwd: folder, timeout: INSTALL_TIMEOUT_MS, env: environment };
  await execute("npm", install, options);
  return { folder, remove: () => rm(folder, REMOVED) };
}

/**
 * The package out of its tarball beside the other ones that are installed here: a folder for which
 * no registry is asked.
 */
export async function linkPacked(folder: string): Promise<void> {
  const modules = join(folder, "node_modules");
  await mkdir(join(modules, "lazygraph"), { recursive: true });
  const tarball = join(folder, await packInto(folder));
  const into = ["--strip-components=1", "-C", join(modules, "lazygraph")];
  await execute("tar", ["-xzf", tarball, ...into]);
  for (const name of await readdir(join(ROOT, "node_modules"))) {
    if (name !== "lazygraph") await symlink(join(ROOT, "node_modules", name), join(modules, name));
  }
}

/** How a program ended that could not start: its exit code and what it said. */
export async function failedStart(
  args: readonly string[],
  cwd: string,
  env: NodeJS.ProcessEnv,
): Promise<{ code: unknown; stderr: string }> {
  const timeout = 110_000;
  return execute(process.execPath, [...args], { cwd, env, timeout, killSignal: "SIGKILL" }).then(
    ({ stderr }) => ({ code: 0, stderr }),
    ({ code, stderr }: { code: unknown; stderr: string }) => ({ code, stderr }),
  );
}

/** Packs into this folder, and returns the file's name there. */
export async function packInto(folder: string): Promise<string> {
  // Without scripts: what `npm test` and CI built is packed, and nothing is built under the other
  // tests' feet. The whole `npm pack` runs in the package checks.
  const pack = ["pack", "--ignore-scripts", "--json", "--pack-destination", folder];
  const { stdout } = await execute("npm", pack, { cwd: ROOT });
  const [{ filename }] = JSON.parse(stdout) as [{ filename: string }];
  return filename;
}
