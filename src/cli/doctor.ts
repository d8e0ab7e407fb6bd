/**
 * `lazygraph doctor`: what this host has, what is missing, and what to do about it; with a command
 * after `--`, what would become of that.
 */

import { messageOf } from "../base/errors.ts";
import { printable } from "../base/printable.ts";
import { loadAddon } from "../gpu/addon.ts";
import { type GpuSurvey, openGpuMemory } from "../gpu/memory.ts";
import {
  type AddonFact,
  blockers,
  checkAddon,
  checkDriver,
  checkGpus,
  checkNode,
  checkNvidiaSmi,
  checkPython,
  type Finding,
  ROLES,
  type Role,
} from "./doctor-checks.ts";
import { probePython } from "./doctor-python.ts";
import { EXIT, usageError } from "./errors.ts";
import { parseOptions } from "./options.ts";
import { runPreflight } from "./preflight-command.ts";
import {
  triedVersions,
  type VllmVersions,
  versionsInShort,
  versionsText,
  vllmVersions,
} from "./vllm-versions.ts";

const HELP = `Usage: lazygraph doctor [options] [-- COMMAND …]

The vLLM versions that were tried, in short. Then what this host has of what the main job needs:
Node, the GPU memory addon, the driver, GPUs, nvidia-smi, Python, vLLM and its plugin; each
supported or not, why, and what to do. The last line says whether this host can do it.

With a vLLM command after \`--\`: whether \`lazygraph run\` would have its graphs captured lazily, or
it would run as stock, and why. Nothing is started, fetched or written, and no GPU memory is taken.

Options:
  --for ROLE     what the exit code is about: run (default: an engine here, under
                 \`lazygraph run\`) or serve (a controller here, engines elsewhere)
  --python PATH  the Python that vLLM is installed in (default python3, or COMMAND's own)
  --versions     all that is captured lazily or runs as stock on each vLLM version, and why
  --json         one JSON document on stdout
  --help, -h     this text

Exit codes: 0 this host can do it, 1 something that it needs is missing, 2 wrong usage. With a
command: 0 it is told, 1 it can't be told, 2 the command is no vLLM server.

Examples:
  lazygraph doctor
  lazygraph doctor --python /opt/vllm/bin/python --json
  lazygraph doctor --for serve
  lazygraph doctor -- vllm serve MODEL --tensor-parallel-size 2
`;

const MARKS = { ok: "ok", warning: "warn", missing: "MISS" } as const;

export async function runDoctor(argv: readonly string[]): Promise<number> {
  const terminator = argv.indexOf("--");
  const own = terminator === -1 ? argv : argv.slice(0, terminator);
  const options = parseOptions(own, {
    for: "string",
    python: "string",
    versions: "boolean",
    json: "boolean",
  });
  if (options.flags.has("help")) {
    process.stdout.write(HELP);
    return EXIT.ok;
  }
  if (terminator !== -1) return runPreflight(options, argv.slice(terminator + 1));
  const role = roleOption(options.strings.get("for"));
  const python = options.strings.get("python") ?? "python3";
  const table = vllmVersions();
  const { findings, survey } = await examine(python, table);
  const usable = Object.fromEntries(
    ROLES.map((candidate) => [candidate, blockers(findings, candidate).length === 0]),
  );
  if (options.flags.has("json")) {
    const document = { for: role, ok: usable[role], usable, findings, ...survey, vllm: table };
    process.stdout.write(`${JSON.stringify(document, errorsAsObjects)}\n`);
  } else {
    const versions = options.flags.has("versions")
      ? versionsText(table)
      : `${versionsInShort(table)}\n(\`lazygraph doctor --versions\` names them all.)`;
    // Whole it is longer than a terminal is high: what stays there must be about this host.
    process.stdout.write(`${versions}\n\n${reportText(findings, role)}\n`);
  }
  return usable[role] ? EXIT.ok : EXIT.failure;
}

function roleOption(value: string | undefined): Role {
  const role = ROLES.find((candidate) => candidate === (value ?? "run"));
  if (role === undefined) throw usageError("--for", ROLES.join(" or "), value ?? "");
  return role;
}

async function examine(
  python: string,
  table: VllmVersions,
): Promise<{ findings: readonly Finding[]; survey: GpuSurvey | undefined }> {
  const loaded = loadAddon();
  const addon: AddonFact = loaded.ok ? { ok: true, path: loaded.path } : loaded;
  const [nvml, smi, pythonProbe] = await Promise.all([
    openGpuMemory({ sources: ["nvml"] }),
    openGpuMemory({ sources: ["nvidia-smi"] }),
    probePython(python, process.env),
  ]);
  const source = nvml.available ? nvml : smi;
  let survey: GpuSurvey | undefined;
  let why = source.available
    ? "the driver lists none"
    : "neither the driver nor nvidia-smi answers";
  try {
    if (source.available) survey = await source.survey();
  } catch (error) {
    why = messageOf(error);
  }
  for (const memory of [nvml, smi]) if (memory.available) await memory.close();
  return {
    survey,
    findings: [
      checkNode(process.version, `${process.platform}-${process.arch}`),
      checkAddon(addon),
      checkDriver(nvml, addon),
      checkNvidiaSmi(smi, nvml.available),
      ...checkGpus(survey, why),
      ...checkPython(python, pythonProbe, process.env["VLLM_PLUGINS"], triedVersions(table)),
    ],
  };
}

function reportText(findings: readonly Finding[], role: Role): string {
  const lines: string[] = [];
  for (const { name, status, found, why, remedy } of findings) {
    lines.push(`${MARKS[status].padEnd(5)}${name.padEnd(12)}${printable(found)}`);
    const indent = " ".repeat(17);
    if (status !== "ok" && why !== undefined) lines.push(`${indent}why: ${printable(why, 600)}`);
    if (status !== "ok" && remedy !== undefined) lines.push(`${indent}do:  ${printable(remedy)}`);
  }
  const needed = new Set(blockers(findings, role).map((finding) => finding.name));
  // Without a driver there is no GPU: it is the cause, and stands above as missing.
  if (needed.has("gpu")) needed.add("driver");
  const told = findings.filter(({ name, status }) => status === "missing" && needed.has(name));
  const missing = [...new Set(told.map(({ name }) => name))];
  const job = role === "run" ? "run an engine under `lazygraph run`" : "run `lazygraph serve`";
  lines.push(
    "",
    missing.length === 0
      ? `This host can ${job}.`
      : `This host can't ${job}: ${missing.join(", ")} missing or not supported.`,
  );
  return lines.join("\n");
}

/** JSON leaves an Error empty. */
function errorsAsObjects(_key: string, value: unknown): unknown {
  if (!(value instanceof Error)) return value;
  const code = "code" in value ? value.code : undefined;
  return { code, message: value.message };
}
