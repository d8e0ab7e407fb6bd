/**
 * Builds the plugin's wheel as a release would, and looks into it: its version is the package's,
 * vLLM finds its entry point, and nothing travels that serves tests alone.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { findPython } from "./python.mjs";

const worker = fileURLToPath(new URL("../worker", import.meta.url));
const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
const ENTRY = "lazygraph = lazygraph_vllm.plugin:register";
const LOOK = `
import json, sys, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
texts = {n.split("/")[-1]: wheel.read(n).decode() for n in wheel.namelist() if ".dist-info/" in n}
print(json.dumps({"names": wheel.namelist(), "metadata": texts["METADATA"],
  "entries": texts["entry_points.txt"]}))
`;

function run(file, args) {
  const { status, stdout, stderr } = spawnSync(file, args, { encoding: "utf8" });
  if (status === 0) return stdout;
  throw new Error(`${file} ${args.join(" ")} failed:\n${stdout}${stderr}`);
}

const python = findPython()?.file;
if (python === undefined) throw new Error("Expected Python 3.10 or newer on PATH, got none.");
const folder = mkdtempSync(join(tmpdir(), "lazygraph-wheel-"));
try {
  run(python, ["-m", "venv", join(folder, "python")]);
  const own = join(folder, "python", "bin", "python");
  run(own, ["-m", "pip", "wheel", "--quiet", "--no-deps", "-w", join(folder, "wheels"), worker]);
  const wheels = readdirSync(join(folder, "wheels"));
  if (wheels.length !== 1) throw new Error(`Expected one wheel, got ${wheels.join(", ")}.`);
  const wheel = join(folder, "wheels", wheels[0]);
  const { names, metadata, entries } = JSON.parse(run(own, ["-c", LOOK, wheel]));
  const told = /^Version: (\S+)$/m.exec(metadata)?.[1];
  if (told !== version) throw new Error(`Expected the package's version ${version}, got ${told}.`);
  if (!entries.includes(ENTRY)) throw new Error(`Expected the entry point ${ENTRY}.`);
  const foreign = names.filter((name) => !/^lazygraph_vllm(-[\d.]+\.dist-info)?\//.test(name));
  if (foreign.length > 0) throw new Error(`Expected the plugin alone, got ${foreign.join(", ")}.`);
  // What vLLM's image has already is all that it may want.
  run(own, ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]);
  console.log(`${wheels[0]}: ${names.length} files, version ${told}, entry point found.`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
