/** `--reserve`, `--reserve-bytes` and `--memory-margin`, for the commands that start a controller. */

import { GIB, MIB } from "../base/units.ts";
import { isSized, MEMORY_BYTES_MAX, type MemoryOptions } from "../memory/options.ts";
import { RESERVES, type Reserve } from "../wire/protocol.ts";
import { choice, usageError } from "./errors.ts";
import type { OptionSpec, ParsedOptions } from "./options.ts";
import { commandWords, vllmOption } from "./vllm-options.ts";

export const MEMORY_OPTIONS: OptionSpec = {
  reserve: "string",
  "reserve-bytes": "string",
  "memory-margin": "string",
};

export const MEMORY_HELP = `  --reserve MODE        keep memory back from vLLM's KV cache: none, least (only what serving and
                        graphs up to 64 tokens need and the GPU has not free anyway), top (the
                        largest graph of each kind) or plan (all graphs); the figures show the KV
                        tokens it costs (default: LAZYGRAPH_RESERVE, else the engine's own: least)
  --reserve-bytes SIZE  with --reserve top or plan: that much for each rank's graphs, such as 1.2GiB,
                        as an earlier start took it (default: what the engine forecasts)
  --memory-margin SIZE  what captures leave free of each GPU beside vLLM's activation peak, such as
                        512MiB or 2GiB (default: 256 MiB to 1088 MiB by that peak, less what
                        serving has taken since)`;

const UNITS: Readonly<Record<string, number>> = { MiB: MIB, GiB: GIB };
/** vLLM 0.26's own. */
const UTILIZATION_DEFAULT = 0.92;

/** @param command the vLLM command, whose share of the GPU advice can then name */
export function memoryOptions(
  options: ParsedOptions,
  environment: NodeJS.ProcessEnv,
  command: readonly string[] = [],
): MemoryOptions {
  // The engine reads it too and would run as stock with a wrong one, whatever the option says.
  const exported = reserveOf("LAZYGRAPH_RESERVE", environmentText(environment));
  const reserve = reserveOf("--reserve", options.strings.get("reserve")) ?? exported;
  const reserveBytes = sizeOption(options, "reserve-bytes");
  if (reserveBytes !== undefined && !isSized(reserve)) {
    const text = options.strings.get("reserve-bytes");
    throw usageError("--reserve-bytes", "given beside --reserve top or plan", text);
  }
  const marginBytes = sizeOption(options, "memory-margin");
  const utilization = utilizationOf(command);
  return {
    ...(reserve === undefined ? {} : { reserve }),
    ...(reserveBytes === undefined ? {} : { reserveBytes }),
    ...(marginBytes === undefined ? {} : { marginBytes }),
    ...(utilization === undefined ? {} : { utilization }),
  };
}

/** As the engine reads it: without regard to case and blanks. */
function environmentText(environment: NodeJS.ProcessEnv): string | undefined {
  return environment["LAZYGRAPH_RESERVE"]?.trim().toLowerCase() || undefined;
}

function reserveOf(name: string, text: string | undefined): Reserve | undefined {
  if (text === undefined) return undefined;
  return choice(name, RESERVES, text);
}

function sizeOption(options: ParsedOptions, name: string): number | undefined {
  const text = options.strings.get(name);
  if (text === undefined) return undefined;
  const match = /^(\d+(?:\.\d+)?)(MiB|GiB)$/.exec(text);
  const bytes = Math.round(Number(match?.[1]) * (UNITS[match?.[2] ?? ""] ?? Number.NaN));
  if (bytes >= 0 && bytes <= MEMORY_BYTES_MAX) return bytes;
  throw usageError(
    `--${name}`,
    "a size in MiB or GiB, such as 512MiB or 1.5GiB, at most 1024GiB",
    text,
  );
}

/** The share of the GPU that a `vllm serve` command asks for; undefined for other commands. */
function utilizationOf(command: readonly string[]): number | undefined {
  const text = vllmOption(command, "gpu-memory-utilization");
  if (text === undefined) {
    return commandWords(command).includes("serve") ? UTILIZATION_DEFAULT : undefined;
  }
  const value = Number(text);
  return value > 0 && value <= 1 ? value : undefined;
}
