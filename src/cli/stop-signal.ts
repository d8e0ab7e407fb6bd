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
