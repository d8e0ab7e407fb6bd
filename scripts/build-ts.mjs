/**
 * `npm run build:ts`: compiles src/ beside dist/, then puts each file that differs into its place at
 * once, and takes away what no source stands for any more. Whoever runs from dist/ meanwhile, as
 * tests do beside an `npm start`, reads whole files only.
 */
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
} from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const dist = join(root, "dist");
// Beside it, and not below: source maps name their sources by relative paths.
const fresh = join(root, `dist.${process.pid}`);

function filesOf(folder) {
  if (!existsSync(folder)) return [];
  const files = readdirSync(folder, { recursive: true, withFileTypes: true });
  return files
    .filter((file) => file.isFile())
    .map(({ parentPath, name }) => relative(folder, join(parentPath, name)));
}

function isSame(one, other) {
  return existsSync(other) && readFileSync(one).equals(readFileSync(other));
}

function main() {
  const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
  const args = [tsc, "-p", "tsconfig.build.json", "--outDir", fresh];
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: "inherit" });
  if (status !== 0) return status ?? 1;
  chmodSync(join(fresh, "cli", "main.js"), 0o755);
  const files = filesOf(fresh);
  for (const file of files) {
    const [from, to] = [join(fresh, file), join(dist, file)];
    if (isSame(from, to)) continue;
    mkdirSync(dirname(to), { recursive: true });
    renameSync(from, to);
  }
  const known = new Set(files);
  for (const file of filesOf(dist)) {
    if (!known.has(file)) rmSync(join(dist, file), { force: true });
  }
  // Its age is the build's, for who asks whether sources are newer.
  const now = new Date();
  utimesSync(join(dist, "cli", "main.js"), now, now);
  return 0;
}

try {
  process.exitCode = main();
} finally {
  rmSync(fresh, { recursive: true, force: true });
}
