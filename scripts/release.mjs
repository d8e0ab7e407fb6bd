/**
 * Packs what a release publishes into a folder:
 *
 *   lazygraph-VERSION.tgz                    the package, without native parts
 *   lazygraph-gpu-linux-x64-VERSION.tgz …    one for each folder of prebuilds/: its addon alone
 *
 * The package names all of them as optional dependencies, so that npm fetches the one for the
 * platform and does without on others. Each is built on its own platform: run `npm run build` and
 * `node scripts/prebuild.mjs` there, and collect prebuilds/ before this.
 *
 *     node scripts/release.mjs FOLDER
 */
import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** What we publish prebuilt; src/gpu/addon.ts looks for these names. */
const PLATFORMS = ["linux-x64", "linux-arm64"];

const root = fileURLToPath(new URL("..", import.meta.url));
const out = process.argv[2];
if (out === undefined) {
  console.error("Expected a folder for the packages, got nothing.");
  process.exit(2);
}
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const { version, license, engines } = manifest;
mkdirSync(out, { recursive: true });

function pack(folder) {
  const args = ["pack", "--ignore-scripts", "--json", "--pack-destination", resolve(out)];
  const [{ filename }] = JSON.parse(execFileSync("npm", args, { cwd: folder, encoding: "utf8" }));
  console.log(filename);
}

const staging = mkdtempSync(join(tmpdir(), "lazygraph-release-"));
try {
  const present = PLATFORMS.filter((name) =>
    existsSync(join(root, "prebuilds", name, "gpu_memory.node")),
  );
  const missing = PLATFORMS.filter((name) => !present.includes(name));
  if (missing.length > 0) {
    console.error(`# not here, to be packed where they are built: ${missing.join(", ")}`);
  }
  for (const name of present) {
    const [os, cpu] = name.split("-");
    const folder = join(staging, name);
    mkdirSync(folder);
    copyFileSync(join(root, "prebuilds", name, "gpu_memory.node"), join(folder, "gpu_memory.node"));
    copyFileSync(join(root, "LICENSE"), join(folder, "LICENSE"));
    const about = {
      name: `lazygraph-gpu-${name}`,
      version,
      description: `The GPU memory addon of lazygraph for ${os} on ${cpu} (glibc)`,
      license,
      engines,
      os: [os],
      cpu: [cpu],
      libc: ["glibc"],
      files: ["gpu_memory.node"],
      exports: { "./gpu_memory.node": "./gpu_memory.node" },
    };
    writeFileSync(join(folder, "package.json"), `${JSON.stringify(about, undefined, 2)}\n`);
    pack(folder);
  }

  // The package itself, out of what `npm pack` takes, with the platforms in place of prebuilds/.
  const main = join(staging, "main");
  mkdirSync(main);
  const args = ["pack", "--ignore-scripts", "--json", "--pack-destination", staging];
  const [{ filename }] = JSON.parse(execFileSync("npm", args, { cwd: root, encoding: "utf8" }));
  execFileSync("tar", ["-xzf", join(staging, filename), "--strip-components=1", "-C", main]);
  rmSync(join(main, "prebuilds"), { recursive: true, force: true });
  const own = JSON.parse(readFileSync(join(main, "package.json"), "utf8"));
  // Building from source is for checkouts: nothing of it is needed where the addon comes prebuilt.
  delete own.optionalDependencies["cmake-js"];
  for (const name of PLATFORMS) own.optionalDependencies[`lazygraph-gpu-${name}`] = version;
  delete own.devDependencies;
  delete own.scripts;
  writeFileSync(join(main, "package.json"), `${JSON.stringify(own, undefined, 2)}\n`);
  pack(main);
  const names = readdirSync(out).filter((name) => name.endsWith(".tgz"));
  console.error(`# ${names.length} packages in ${out}`);
} finally {
  rmSync(staging, { recursive: true, force: true });
}
