/**
 * GPU memory through nvidia-smi, where the addon can't be loaded: whole MiB, tens to hundreds of
 * milliseconds a reading, and no memory of MIG instances.
 */

import { execFile } from "node:child_process";
import { endsAlone } from "../base/ends-alone.ts";
import { codeOf, LazygraphError, messageOf } from "../base/errors.ts";
import { MIB } from "../base/units.ts";
import {
  canonicalUuid,
  checkUuid,
  type GpuDevice,
  type GpuFault,
  type GpuReading,
  type GpuSurvey,
} from "./device.ts";
import { gpuFault, reasonOfSmi } from "./fault.ts";
import {
  FIELDS,
  MORE_FIELDS,
  parseCudaVersion,
  parseDevices,
  parseProcesses,
  type SmiDevices,
} from "./nvidia-smi-text.ts";
import { type GpuMemory, OpenWatches, unknownDevice } from "./reader.ts";
import { pollDevice } from "./smi-watch.ts";
import { hasUnifiedMemory, MEMINFO_PATH, readSystemMemory } from "./system-memory.ts";
import { type GpuSourceFailure, sourceFailure } from "./unavailable.ts";
import { checkWatchOptions, closedWatch, holdWatch, planWatch } from "./watch.ts";

/** nvidia-smi starts anew for each reading. More often than this is a load of its own. */
const INTERVAL_MS_MIN = 1000;
const TIMEOUT_MS = 10_000;
const OUTPUT_BYTES_MAX = 1024 * 1024;

/** Asks nvidia-smi once, or says why that doesn't work. */
export async function openNvidiaSmi(
  command: string,
  meminfoPath: string = MEMINFO_PATH,
): Promise<GpuMemory | GpuSourceFailure> {
  let fields = MORE_FIELDS;
  let first: SmiDevices;
  try {
    first = await queryDevices(command, fields);
  } catch (error) {
    if (codeOf(error) === "ENOENT" || codeOf(error) === "EACCES") {
      return sourceFailure("nvidia-smi", "SMI_NOT_FOUND", `there is no program ${command}`);
    }
    try {
      fields = FIELDS;
      first = await queryDevices(command, fields);
    } catch (second) {
      return sourceFailure("nvidia-smi", "SMI_FAILED", messageOf(second));
    }
  }
  const header = await run(command, []).catch(() => "");
  return smiMemory({ command, fields, meminfoPath }, first, parseCudaVersion(header));
}

/** How nvidia-smi is asked. */
interface SmiQuery {
  readonly command: string;
  readonly fields: readonly string[];
  readonly meminfoPath: string;
}

function smiMemory(
  query: SmiQuery,
  { driverVersion, warnings }: SmiDevices,
  cudaVersion: string | undefined,
): GpuMemory {
  const watches = new OpenWatches();
  let underWay: Promise<GpuSurvey> | undefined;

  // One child at a time: callers that come meanwhile share its answer.
  const survey = async (): Promise<GpuSurvey> => {
    watches.check();
    underWay ??= surveyOf(query).finally(() => {
      underWay = undefined;
    });
    return underWay;
  };

  const read = async (uuid: string): Promise<GpuReading> => {
    checkUuid(uuid);
    const { devices, faults } = await survey();
    const name = canonicalUuid(uuid);
    const device = devices.find((candidate) => candidate.uuid === name);
    const fault = faults.find((candidate) => candidate.uuid === name);
    if (device === undefined) throw fault?.error ?? unknownDevice(uuid, { devices, faults });
    const { totalBytes, freeBytes, usedBytes, reservedBytes } = device;
    return {
      totalBytes,
      freeBytes,
      usedBytes,
      ...(reservedBytes !== undefined && { reservedBytes }),
    };
  };

  const close = (): Promise<void> => watches.close();

  return {
    available: true,
    source: "nvidia-smi",
    skipped: [],
    warnings,
    ...(driverVersion !== undefined && { driverVersion }),
    ...(cudaVersion !== undefined && { cudaVersion }),
    precisionBytes: MIB,
    survey,
    devices: async () => (await survey()).devices,
    read,
    watch: async (options, callback) => {
      checkWatchOptions(options, callback);
      watches.check();
      const intervalMs = Math.max(options.intervalMs, INTERVAL_MS_MIN);
      if (options.signal?.aborted) return closedWatch(intervalMs);
      return watches.add(async () => {
        const plan = planWatch({ ...options, intervalMs }, (await read(options.uuid)).totalBytes);
        return holdWatch(options, intervalMs, callback, (deliver) =>
          pollDevice(plan, options.uuid, read, deliver),
        );
      });
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function surveyOf({ command, fields, meminfoPath }: SmiQuery): Promise<GpuSurvey> {
  let found: SmiDevices;
  try {
    found = await queryDevices(command, fields);
  } catch (error) {
    throw new LazygraphError("ERR_LAZYGRAPH_GPU_CALL", `nvidia-smi failed: ${messageOf(error)}`, {
      cause: error,
    });
  }
  // Processes may be hidden, as in containers; that must not hide the memory.
  const processes = await run(command, [
    "--query-compute-apps=gpu_uuid,pid,used_memory",
    "--format=csv,noheader,nounits",
  ]).then(parseProcesses, () => undefined);
  const processesOf = (uuid: string): Partial<GpuDevice> =>
    processes === undefined ? {} : { processes: processes.get(uuid) ?? [] };
  const devices: GpuDevice[] = found.devices.map((device) => ({
    ...device,
    ...processesOf(device.uuid),
  }));
  const faults: GpuFault[] = [];
  for (const { row, memory: answer, uuid, ...about } of found.faults) {
    const reason = reasonOfSmi(answer);
    if (reason === "unsupported" && uuid !== undefined && hasUnifiedMemory(about.name)) {
      const memory = readSystemMemory(meminfoPath);
      devices.push({ ...about, uuid, ...memory, unified: true, ...processesOf(uuid) });
      continue;
    }
    const { index, mig } = about;
    faults.push(gpuFault({ index, ...(uuid !== undefined && { uuid }), mig, reason, said: row }));
  }
  return { devices, faults };
}

async function queryDevices(command: string, fields: readonly string[]): Promise<SmiDevices> {
  const { stdout: text, failure } = await ask(command, [
    `--query-gpu=${fields.join(",")}`,
    "--format=csv,noheader,nounits",
  ]);
  const parsed = parseDevices(text, fields);
  const rows = (parsed?.devices.length ?? 0) + (parsed?.faults.length ?? 0);
  // It ends with 14 where an infoROM is damaged, and prints all rows before: they count.
  if (parsed !== undefined && failure !== undefined && rows > 0) {
    const warnings = parsed.warnings.length > 0 ? parsed.warnings : [failure.message];
    return { ...parsed, warnings };
  }
  if (failure !== undefined) throw failure;
  if (parsed === undefined) {
    const shown = text.trim().slice(0, 200);
    throw new Error(`expected ${fields.length} columns a GPU from ${command}, got: ${shown}`);
  }
  return parsed;
}

async function run(command: string, args: readonly string[]): Promise<string> {
  const { stdout, failure } = await ask(command, args);
  if (failure !== undefined) throw failure;
  return stdout;
}

interface SmiAnswer {
  readonly stdout: string;
  /** Why it ended with another code than 0. */
  readonly failure?: Error;
}

function ask(command: string, args: readonly string[]): Promise<SmiAnswer> {
  // Nobody waits longer for one that doesn't end by SIGTERM.
  const limits = {
    timeout: TIMEOUT_MS,
    maxBuffer: OUTPUT_BYTES_MAX,
    killSignal: "SIGKILL",
  } as const;
  return new Promise((resolve, reject) => {
    const child = execFile(command, args, limits, (error, stdout, stderr) => {
      if (error === null) return resolve({ stdout });
      if (codeOf(error) !== undefined) return reject(error);
      if (error.killed) return reject(new Error(`no answer within ${TIMEOUT_MS / 1000} s`));
      // nvidia-smi prints its reason to either of the two.
      const said = stderr.trim() || stdout.trim() || error.message;
      const ended = `${said.slice(0, 500)} (exit code ${error.code ?? "unknown"})`;
      resolve({ stdout, failure: new Error(ended, { cause: error }) });
    });
    endsAlone(child);
  });
}
