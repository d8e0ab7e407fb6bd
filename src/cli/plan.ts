/** `lazygraph plan show|merge|suggest`: learned plans, and the vLLM flags that traffic justifies. */

import { join } from "node:path";
import { codeOf, LazygraphError } from "../base/errors.ts";
import { formatPlan } from "../plan/check.ts";
import { planNames } from "../plan/files.ts";
import { fingerprintDifference, fingerprintKey } from "../plan/fingerprint.ts";
import { mergePlans } from "../plan/merge.ts";
import { defaultPlanFolder } from "../plan/place.ts";
import type { Plan } from "../plan/plan.ts";
import { suggestSizes } from "../plan/suggest.ts";
import { choice, EXIT, note, usageError } from "./errors.ts";
import { numberOption } from "./number-option.ts";
import { parseOptions } from "./options.ts";
import { isFolder, loadPlan, savePlan } from "./plan-file.ts";
import { foldersTable, planText, suggestionDocument, suggestionText } from "./plan-text.ts";
import { requireWritable } from "./report.ts";

const HELP = `Usage: lazygraph plan show [FILE|FOLDER] [--json]
       lazygraph plan merge FILE FILE... --output FILE
       lazygraph plan suggest FILE [--loss SHARE] [--json]

Learned plans: what starts of one kind of engine needed, and what its captures took. Controllers
write them, one file for each fingerprint (vLLM and plugin version, model, GPU, parallelism, graphs).

  show      one plan, or a line for each plan of a folder (default: the folder where \`run\` and
            \`serve\` keep them)
  merge     plans of one fingerprint, from several hosts, into one
  suggest   the capture sizes that the traffic of a plan justifies, as a flag of vLLM's, with what
            they spare and what they cost

Options:
  --output FILE  where the merged plan goes; - for stdout
  --loss SHARE   by how much steps may get longer, 0 to 1 (0.01: one per cent)
  --json         one JSON document on stdout
  --help, -h     this text

Exit code: 2 for a usage error or a file that is no plan; 1 for a failure.

Examples:
  lazygraph plan show
  lazygraph plan merge host-a/PLAN.json host-b/PLAN.json --output PLAN.json
  lazygraph plan suggest ~/.local/state/lazygraph/plans/PLAN.json
`;

const COMMANDS = {
  show: runShow,
  merge: runMerge,
  suggest: runSuggest,
} as const;
const NAMES = Object.keys(COMMANDS) as (keyof typeof COMMANDS)[];
const MERGED_MAX = 256;

export async function runPlan(argv: readonly string[]): Promise<number> {
  const [name, ...rest] = argv;
  if (name === "--help" || name === "-h") return help();
  return COMMANDS[choice("the plan command", NAMES, name)](rest);
}

function help(): number {
  process.stdout.write(HELP);
  return 0;
}

async function runShow(argv: readonly string[]): Promise<number> {
  const files = { name: "FILE or FOLDER", min: 0, max: 1 };
  const options = parseOptions(argv, { json: "boolean" }, files);
  if (options.flags.has("help")) return help();
  const [given] = options.positionals;
  const place = given ?? defaultPlanFolder(process.env);
  const json = options.flags.has("json");
  if (given === undefined || (await isFolder(place))) return showFolder(place, json);
  const plan = await loadPlan(place);
  process.stdout.write(json ? formatPlan(plan) : `${planText(plan)}\n`);
  return 0;
}

/** Every sound plan; what is none is told and left out. Where that is all, nothing can be shown. */
async function showFolder(folder: string, json: boolean): Promise<number> {
  const plans: { file: string; plan: Plan }[] = [];
  let damaged = 0;
  for (const name of await planNames(folder)) {
    const file = join(folder, name);
    try {
      plans.push({ file, plan: await loadPlan(file) });
    } catch (error) {
      if (codeOf(error) !== "ERR_LAZYGRAPH_PLAN") throw error;
      damaged++;
      note((error as Error).message, "ERR_LAZYGRAPH_PLAN");
    }
  }
  if (json) {
    const rows = plans.map(({ file, plan }) => ({
      file,
      key: fingerprintKey(plan.fingerprint),
      fingerprint: plan.fingerprint,
      starts: plan.starts,
      updatedAt: plan.updatedAt,
      first: plan.first,
      ...(plan.simulated === undefined ? {} : { simulated: plan.simulated }),
    }));
    process.stdout.write(`${JSON.stringify({ folder, plans: rows })}\n`);
  } else if (plans.length > 0) process.stdout.write(`${foldersTable(plans)}\n`);
  else if (damaged === 0) process.stdout.write(`No plans in ${folder}.\n`);
  return plans.length === 0 && damaged > 0 ? EXIT.usage : EXIT.ok;
}

async function runMerge(argv: readonly string[]): Promise<number> {
  const files = { name: "plan files", min: 2, max: MERGED_MAX };
  const options = parseOptions(argv, { output: "string" }, files);
  if (options.flags.has("help")) return help();
  const output = options.strings.get("output");
  if (output === undefined) throw usageError("--output", "given with a file, or -", undefined);
  const file = output === "-" ? undefined : await requireWritable(output, "--output");
  const [first = "", ...rest] = options.positionals;
  let merged = await loadPlan(first);
  // A plan tells when it was written: the same text is the same starts, which must count once.
  const seen = new Map([[formatPlan(merged), first]]);
  for (const other of rest) {
    const plan = await loadPlan(other);
    const same = seen.get(formatPlan(plan));
    if (same !== undefined) {
      throw new LazygraphError(
        "ERR_LAZYGRAPH_PLAN",
        `Expected each plan once, got the same in ${same} and ${other}: leave one out.`,
      );
    }
    seen.set(formatPlan(plan), other);
    const difference = fingerprintDifference(merged.fingerprint, plan.fingerprint);
    if (difference !== undefined) {
      throw new LazygraphError(
        "ERR_LAZYGRAPH_PLAN",
        `Expected plans of one fingerprint, got ${first} and ${other}: ${difference}; ` +
          "merge those of each engine by themselves.",
      );
    }
    merged = mergePlans(merged, plan);
  }
  if (file === undefined) process.stdout.write(formatPlan(merged));
  else await savePlan(file, merged, "--output");
  return 0;
}

async function runSuggest(argv: readonly string[]): Promise<number> {
  const files = { name: "plan file", min: 1, max: 1 };
  const options = parseOptions(argv, { loss: "string", json: "boolean" }, files);
  if (options.flags.has("help")) return help();
  const lossShareMax = numberOption(options, "loss", { min: 0, max: 1, fallback: 0.01 });
  const [file = ""] = options.positionals;
  const plan = await loadPlan(file);
  const suggestion = suggestSizes(plan, { lossShareMax });
  if (suggestion === undefined) {
    throw new LazygraphError(
      "ERR_LAZYGRAPH_PLAN",
      `Plan ${file}: expected traffic that graphs could serve, got none: let an engine serve first.`,
    );
  }
  process.stdout.write(
    options.flags.has("json")
      ? `${JSON.stringify(suggestionDocument(plan, suggestion))}\n`
      : `${suggestionText(plan, suggestion)}\n`,
  );
  return 0;
}
