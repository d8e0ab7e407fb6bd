/**
 * Every error of this package, with its stable code. Match on `code`, never on the message:
 * two copies of the package in one process would break `instanceof`.
 */

export const ERROR_CODES = [
  "ERR_LAZYGRAPH_OPTION",
  "ERR_LAZYGRAPH_FILE",
  "ERR_LAZYGRAPH_ADDRESS_IN_USE",
  "ERR_LAZYGRAPH_BIND",
  "ERR_LAZYGRAPH_NOT_STARTED",
  "ERR_LAZYGRAPH_CLOSED",
  "ERR_LAZYGRAPH_COMMAND_NOT_FOUND",
  "ERR_LAZYGRAPH_COMMAND_NOT_EXECUTABLE",
  "ERR_LAZYGRAPH_COMMAND_DIED",
  "ERR_LAZYGRAPH_COMMAND_KILLED",
  "ERR_LAZYGRAPH_COMMAND_NOT_VLLM",
  "ERR_LAZYGRAPH_PLUGIN_MISSING",
  "ERR_LAZYGRAPH_NO_ENGINE",
  "ERR_LAZYGRAPH_CONTROLLER_UNREACHABLE",
  "ERR_LAZYGRAPH_TOKEN",
  "ERR_LAZYGRAPH_KEYS",
  "ERR_LAZYGRAPH_PROTOCOL_FRAME",
  "ERR_LAZYGRAPH_PROTOCOL_VERSION",
  "ERR_LAZYGRAPH_INCARNATION",
  "ERR_LAZYGRAPH_BUSY",
  "ERR_LAZYGRAPH_UNKNOWN_GRAPH",
  "ERR_LAZYGRAPH_ENGINE_LOST",
  "ERR_LAZYGRAPH_ENGINE_UNKNOWN",
  "ERR_LAZYGRAPH_ENGINE_TIMEOUT",
  "ERR_LAZYGRAPH_ENGINE_SLEEP",
  "ERR_LAZYGRAPH_ENGINE_FLOOD",
  "ERR_LAZYGRAPH_ENGINE_REPLACED",
  "ERR_LAZYGRAPH_ENGINE_NAME",
  "ERR_LAZYGRAPH_ENGINES_MAX",
  "ERR_LAZYGRAPH_POLICY",
  "ERR_LAZYGRAPH_INTERNAL",
  "ERR_LAZYGRAPH_CAPTURE_FAILED",
  "ERR_LAZYGRAPH_TRACE",
  "ERR_LAZYGRAPH_UPSTREAM",
  "ERR_LAZYGRAPH_PROFILE",
  "ERR_LAZYGRAPH_BENCH",
  "ERR_LAZYGRAPH_PLAN",
  "ERR_LAZYGRAPH_CALIBRATE",
  "ERR_LAZYGRAPH_LAUNCHER_UNREACHABLE",
  "ERR_LAZYGRAPH_LAUNCHER_REQUEST",
  "ERR_LAZYGRAPH_LAUNCHER_PYTHON",
  "ERR_LAZYGRAPH_LAUNCHER_CHANGED",
  "ERR_LAZYGRAPH_LAUNCHER_NOT_ALLOWED",
  "ERR_LAZYGRAPH_LAUNCHER_VARIABLE",
  "ERR_LAZYGRAPH_LAUNCHER_CUDA",
  "ERR_LAZYGRAPH_LAUNCHER_BUSY",
  "ERR_LAZYGRAPH_LAUNCHER_FAILED",
  "ERR_LAZYGRAPH_CACHES",
  "ERR_LAZYGRAPH_CACHES_FINGERPRINT",
  "ERR_LAZYGRAPH_GPU_UNAVAILABLE",
  "ERR_LAZYGRAPH_GPU_CALL",
  "ERR_LAZYGRAPH_GPU_LOST",
  "ERR_LAZYGRAPH_GPU_UNKNOWN_DEVICE",
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

/** An operating error: something outside the program went wrong. */
export class LazygraphError extends Error {
  override readonly name: string = "LazygraphError";
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/** A programmer's mistake: a wrong option. */
export class OptionError extends TypeError {
  override readonly name: string = "OptionError";
  readonly code: ErrorCode = "ERR_LAZYGRAPH_OPTION";
  /** The option as the user writes it, e.g. `mode` or `--mode`. */
  readonly option: string;

  constructor(option: string, message: string) {
    super(message);
    this.option = option;
  }
}

/** The code of any thrown value, if it has one. */
export function codeOf(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

/** What any thrown value says, which need not be an error. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
