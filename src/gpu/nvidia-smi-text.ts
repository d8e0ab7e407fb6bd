/** What nvidia-smi prints, into values. Pure. */

import { MIB } from "../base/units.ts";
import type { GpuDevice, GpuMig, GpuProcess } from "./device.ts";

/** Fields that every nvidia-smi in use knows. */
export const FIELDS: readonly string[] = [
  "index",
  "uuid",
  "name",
  "driver_version",
  "memory.total",
  "memory.free",
  "memory.used",
];
/** Newer fields: an nvidia-smi that doesn't know one refuses the whole query. */
export const MORE_FIELDS: readonly string[] = [
  ...FIELDS,
  "memory.reserved",
  "compute_cap",
  "mig.mode.current",
];

export interface SmiDevices {
  readonly driverVersion?: string;
  readonly devices: readonly GpuDevice[];
  /** Rows of GPUs that answer with an error, as written. */
  readonly faults: readonly SmiFault[];
  /** What it warns of before its rows, such as a damaged infoROM. */
  readonly warnings: readonly string[];
}

export interface SmiFault {
  readonly index: number;
  readonly row: string;
  /** What stands in place of its memory. */
  readonly memory: string;
  readonly uuid?: string;
  readonly name: string;
  readonly mig: GpuMig;
  readonly computeCapability?: string;
}

/** Reads `--query-gpu=FIELDS --format=csv,noheader,nounits`; undefined for anything else. */
export function parseDevices(text: string, fields: readonly string[]): SmiDevices | undefined {
  const devices: GpuDevice[] = [];
  const faults: SmiFault[] = [];
  const warnings: string[] = [];
  let driverVersion: string | undefined;
  for (const row of rows(text)) {
    if (/^warning:/i.test(row)) {
      warnings.push(row);
      continue;
    }
    const cells = row.split(",").map((cell) => cell.trim());
    const index = wholeOf(cells[0]);
    if (cells.length !== fields.length || index === undefined) return undefined;
    const cell = (name: string): string | undefined => cells[fields.indexOf(name)];
    const totalBytes = bytesOf(cell("memory.total"));
    const freeBytes = bytesOf(cell("memory.free"));
    const usedBytes = bytesOf(cell("memory.used"));
    const uuid = cell("uuid");
    driverVersion ??= known(cell("driver_version"));
    const computeCapability = known(cell("compute_cap"));
    const mig: GpuMig = cell("mig.mode.current") === "Enabled" ? "partitioned" : "off";
    const about = {
      index,
      name: cell("name") ?? "",
      mig,
      ...(computeCapability !== undefined && { computeCapability }),
    };
    if (
      totalBytes === undefined ||
      freeBytes === undefined ||
      usedBytes === undefined ||
      !uuid?.startsWith("GPU-")
    ) {
      // "[GPU is lost]", "[Unknown Error]" and the like.
      const memory = ["memory.total", "memory.free", "memory.used"].map(cell).join(", ");
      faults.push({ ...about, row, memory, ...(uuid?.startsWith("GPU-") && { uuid }) });
      continue;
    }
    const reservedBytes = bytesOf(cell("memory.reserved"));
    devices.push({
      ...about,
      uuid,
      totalBytes,
      freeBytes,
      usedBytes,
      ...(reservedBytes !== undefined && { reservedBytes }),
    });
  }
  return { devices, faults, warnings, ...(driverVersion !== undefined && { driverVersion }) };
}

/** Reads `--query-compute-apps=gpu_uuid,pid,used_memory` into processes by device. */
export function parseProcesses(text: string): ReadonlyMap<string, readonly GpuProcess[]> {
  const out = new Map<string, GpuProcess[]>();
  for (const row of rows(text)) {
    const [uuid, pidText, usedText] = row.split(",").map((cell) => cell.trim());
    const pid = wholeOf(pidText);
    if (uuid === undefined || pid === undefined) continue;
    const usedBytes = bytesOf(usedText);
    const found = out.get(uuid) ?? [];
    found.push({ pid, kind: "compute", ...(usedBytes !== undefined && { usedBytes }) });
    out.set(uuid, found);
  }
  return out;
}

/** The CUDA version in the header of a plain `nvidia-smi`. */
export function parseCudaVersion(text: string): string | undefined {
  return /CUDA Version:\s*(\d+\.\d+)/.exec(text)?.[1];
}

function rows(text: string): string[] {
  return text
    .split("\n")
    .map((row) => row.trim())
    .filter((row) => row !== "");
}

function wholeOf(cell: string | undefined): number | undefined {
  return cell !== undefined && /^\d+$/.test(cell) ? Number(cell) : undefined;
}

function bytesOf(cell: string | undefined): number | undefined {
  const mib = wholeOf(cell);
  return mib === undefined ? undefined : mib * MIB;
}

/** A cell's text, unless some "[N/A]". */
function known(cell: string | undefined): string | undefined {
  return cell === undefined || cell === "" || cell.startsWith("[") ? undefined : cell;
}
