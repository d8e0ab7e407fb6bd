import { signalExit } from "./errors.ts";
import { isHangupIgnored } from "./hangup.ts";

/**
 * The first of the signals that end a service. A second one then has its default effect.
 *
 * @param onHangup what SIGHUP does instead of ending it
 */
export function stopSignal(onHangup?: () => void): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    const signals: NodeJS.Signals[] = ["SIGINT", "SIGTERM"];
    if (onHangup !== undefined) process.on("SIGHUP", onHangup);
    else if (!isHangupIgnored()) signals.push("SIGHUP");
    const handler = (signal: NodeJS.Signals): void => {
      for (const name of signals) process.off(name, handler);
      resolve(signal);
    };
    for (const name of signals) process.on(name, handler);
  });
}

/**
 * For what has started commands in process groups of their own: the first of the signals aborts, and
 * a second one ends this process by `exit`, so that those groups are ended too. By the signal's own
 * effect they would stay, and keep their GPUs.
 *
 * @param tell what to say of the first one
 */
export function untilInterrupted(tell: (name: NodeJS.Signals) => void): {
  readonly signal: AbortSignal;
  readonly release: () => void;
  /** The exit code that the first one comes to; 0 before. */
  readonly stopped: () => number;
} {
  const controller = new AbortController();
  let stopped = 0;
  const names: NodeJS.Signals[] = ["SIGINT", "SIGTERM"];
  if (!isHangupIgnored()) names.push("SIGHUP");
  const release = (): void => {
    for (const name of names) process.off(name, handler);
  };
  const handler = (name: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(signalExit(name));
    stopped = signalExit(name);
    tell(name);
    controller.abort(new Error(`stopped by ${name}`));
  };
  for (const name of names) process.on(name, handler);
  return { signal: controller.signal, release, stopped: () => stopped };
}
