/**
 * What this host has, judged. Pure: facts in, findings out. Each finding says what is here, whether
 * it is supported, why if not, and what to do.
 */

import { GIB } from "../base/units.ts";
import type { GpuDevice, GpuFault, GpuMemory, GpuSurvey, GpuUnavailable } from "../gpu/memory.ts";
import type { PythonProbe } from "./doctor-python.ts";
import { PLUGIN_PACKAGE, pluginRemedy } from "./plugin-probe.ts";

/** What somebody wants to do here: only these decide the exit code. */
export const ROLES = ["run", "serve"] as const;
export type Role = (typeof ROLES)[number];

export interface Finding {
  readonly name: "node" | "addon" | "driver" | "gpu" | "nvidia-smi" | "python" | "vllm" | "plugin";
  /** `ok`: supported. `warning`: works, but less well. `missing`: not here, or not supported. */
  readonly status: "ok" | "warning" | "missing";
  /** What was found, in one line. */
  readonly found: string;
  readonly why?: string;
  readonly remedy?: string;
  /** Roles that can't work without it. */
  readonly neededFor: readonly Role[];
}

/** Of the GPUs that it was tried on (H200). Others are not refused, only told apart. */
const TESTED_CAPABILITIES = ["9.0"];

export function checkNode(version: string, platform: string): Finding {
  const [major = 0, minor = 0] = version.replace(/^v/, "").split(".").map(Number);
  const supported = major > 20 || (major === 20 && minor >= 19);
  const base = { name: "node", found: `${version} on ${platform}` } as const;
  if (supported) return { ...base, status: "ok", neededFor: ["run", "serve"] };
  return {
    ...base,
    status: "missing",
    why: "this package needs Node 20.19 or newer",
    remedy: "install a newer Node",
    neededFor: ["run", "serve"],
  };
}

export type AddonFact =
  | { readonly ok: true; readonly path: string }
  | { readonly ok: false; readonly reason: string; readonly message: string };

export function checkAddon(addon: AddonFact): Finding {
  if (addon.ok) {
    return { name: "addon", status: "ok", found: `loaded from ${addon.path}`, neededFor: [] };
  }
  return {
    name: "addon",
    status: "warning",
    found: addon.reason === "ADDON_MISSING" ? "not here" : "here, but does not load",
    why: addon.message,
    remedy:
      "without it nvidia-smi is asked; to build it: `npm run build:native` in the package " +
      "(C++20 compiler and CMake)",
    neededFor: [],
  };
}

export function checkDriver(nvml: GpuMemory | GpuUnavailable, addon: AddonFact): Finding {
  const name = "driver";
  if (nvml.available) {
    const cuda = nvml.cudaVersion === undefined ? "" : `, CUDA up to ${nvml.cudaVersion}`;
    const found = `NVIDIA ${nvml.driverVersion ?? "of unknown version"}${cuda}`;
    return { name, status: "ok", found, neededFor: [] };
  }
  if (!addon.ok) {
    const found = "not looked at, because the addon did not load";
    return { name, status: "warning", found, neededFor: [] };
  }
  const failure = nvml.failures[0];
  return {
    name,
    status: "missing",
    found: failure?.reason === "NVML_NOT_FOUND" ? "none" : "does not answer",
    ...(failure !== undefined && { why: failure.message, remedy: failure.remedy }),
    neededFor: [],
  };
}

export function checkNvidiaSmi(smi: GpuMemory | GpuUnavailable, addonWorks: boolean): Finding {
  const name = "nvidia-smi";
  if (smi.available) {
    const found = `driver ${smi.driverVersion ?? "?"}`;
    const [warning] = smi.warnings;
    if (warning === undefined) return { name, status: "ok", found, neededFor: [] };
    const remedy = "its figures are used; what it warns of is for the host's operator to see to";
    return { name, status: "warning", found, why: warning, remedy, neededFor: [] };
  }
  const failure = smi.failures[0];
  return {
    name,
    // It only stands in for the addon: where that works nobody misses it.
    status: addonWorks ? "ok" : "warning",
    found: addonWorks ? "does not answer, and is not needed" : "does not answer",
    ...(failure !== undefined && { why: failure.message }),
    ...(failure !== undefined && !addonWorks && { remedy: failure.remedy }),
    neededFor: [],
  };
}

/** One finding a GPU, or one that there is none. */
export function checkGpus(survey: GpuSurvey | undefined, why: string): readonly Finding[] {
  const name = "gpu";
  const neededFor: readonly Role[] = ["run"];
  const devices = survey?.devices ?? [];
  const findings: Finding[] = devices.map((device) => {
    const free = `${gib(device.freeBytes)} of ${gib(device.totalBytes)} GiB free`;
    const mig = device.mig === "off" ? "" : `, MIG ${device.mig}`;
    const capability = device.computeCapability;
    const detail = capability === undefined ? "" : `, compute capability ${capability}`;
    // The driver has no figures of it: what the kernel says is used in its place.
    const unified = device.unified === true ? ", unified with the host's (/proc/meminfo)" : "";
    const about = `${device.name}, ${free}${unified}${detail}${mig}`;
    const found = `${device.index}: ${about}, ${device.uuid}`;
    if (capability !== undefined && !TESTED_CAPABILITIES.includes(capability)) {
      return {
        name,
        status: "warning",
        found,
        why: `tried on compute capability ${TESTED_CAPABILITIES.join(", ")} only`,
        remedy: "compare tokens with stock vLLM before relying on it, and tell us",
        neededFor,
      };
    }
    return { name, status: "ok", found, neededFor };
  });
  for (const fault of survey?.faults ?? []) {
    findings.push(faultFinding(fault, devices));
  }
  if (findings.length > 0) return findings;
  const none = "`lazygraph demo` shows the main job on a simulated engine";
  return [{ name, status: "missing", found: "none", why, remedy: none, neededFor }];
}

/** A divided GPU tells nothing itself: that its instances do is all that is needed. */
function faultFinding(fault: GpuFault, devices: readonly GpuDevice[]): Finding {
  const { index, uuid, reason, error, remedy } = fault;
  const hasInstances = devices.some(
    ({ parentUuid }) => parentUuid !== undefined && parentUuid === uuid,
  );
  const base = { name: "gpu", neededFor: ["run"] as readonly Role[] } as const;
  if (reason === "mig parent" && hasInstances) {
    return { ...base, status: "ok", found: `${index}: divided by MIG, ${uuid}` };
  }
  const found = reason === "lost" ? "lost" : "tells no memory";
  return { ...base, status: "missing", found: `${index}: ${found}`, why: error.message, remedy };
}

/** Python, vLLM and the plugin; a missing Python leaves the other two unknown. */
export function checkPython(
  command: string,
  probe: PythonProbe,
  allowedPlugins: string | undefined,
  tried: readonly string[],
): readonly Finding[] {
  const neededFor: readonly Role[] = ["run"];
  if (!probe.ok) {
    const remedy = "install Python 3.10 or newer, or name vLLM's own with --python PATH";
    const unknown = { status: "missing", found: "unknown without a Python", neededFor } as const;
    return [
      {
        name: "python",
        status: "missing",
        found: probe.missing ? "none" : "does not answer",
        why: probe.reason,
        remedy,
        neededFor,
      },
      { name: "vllm", ...unknown },
      { name: "plugin", ...unknown },
    ];
  }
  const { facts } = probe;
  const found = `${facts.version}, ${facts.executable}`;
  return [
    { name: "python", status: "ok", found, neededFor },
    checkVllm(command, tried, facts.vllm, facts.torch),
    checkPlugin(command, facts.plugin, facts.entryPoint, allowedPlugins),
  ];
}

function checkVllm(
  command: string,
  tried: readonly string[],
  version?: string,
  torch?: string,
): Finding {
  const neededFor: readonly Role[] = ["run"];
  if (version === undefined) {
    return {
      name: "vllm",
      status: "missing",
      found: "none",
      why: `${command} has no package vllm`,
      remedy: `\`${command} -m pip install vllm==${tried.at(-1)}\`, or name vLLM's Python with --python PATH`,
      neededFor,
    };
  }
  const found = torch === undefined ? version : `${version}, torch ${torch}`;
  if (tried.includes(version.split("+")[0] ?? "")) {
    return { name: "vllm", status: "ok", found, neededFor };
  }
  return {
    name: "vllm",
    status: "missing",
    found,
    why: `tried on a GPU: ${tried.join(", ")}; this version would run as stock`,
    remedy: "install a version that was tried, or set LAZYGRAPH_ALLOW_UNTESTED=1 at your own risk",
    neededFor,
  };
}

function checkPlugin(
  command: string,
  version: string | undefined,
  entryPoint: string | undefined,
  allowedPlugins: string | undefined,
): Finding {
  const base = { name: "plugin", neededFor: ["run"] as readonly Role[] } as const;
  if (version === undefined) {
    return {
      ...base,
      status: "missing",
      found: "none",
      why: `${command} has no package ${PLUGIN_PACKAGE}`,
      remedy: pluginRemedy(command),
    };
  }
  if (entryPoint === undefined) {
    return {
      ...base,
      status: "missing",
      found: version,
      why: "its entry point vllm.general_plugins is not registered",
      remedy: pluginRemedy(command, "--force-reinstall --no-deps "),
    };
  }
  const allowed = allowedPlugins?.split(",").map((name) => name.trim());
  if (allowed !== undefined && !allowed.includes(entryPoint)) {
    return {
      ...base,
      status: "missing",
      found: version,
      why: `VLLM_PLUGINS=${allowedPlugins} leaves it out`,
      remedy: `add ${entryPoint} to VLLM_PLUGINS, or unset it`,
    };
  }
  return { ...base, status: "ok", found: `${version}, loaded by vLLM as \`${entryPoint}\`` };
}

/** What keeps a role from working here. One GPU that answers is enough. */
export function blockers(findings: readonly Finding[], role: Role): readonly Finding[] {
  const someGpu = findings.some(
    (finding) => finding.name === "gpu" && finding.status !== "missing",
  );
  return findings.filter(
    (finding) =>
      finding.status === "missing" &&
      finding.neededFor.includes(role) &&
      !(finding.name === "gpu" && someGpu),
  );
}

function gib(bytes: number): string {
  return (bytes / GIB).toFixed(1);
}
