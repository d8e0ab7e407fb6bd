import type { ChildProcess } from "node:child_process";

/**
 * Has a child's "close" come once it has exited and what it wrote is read. By itself Node waits for
 * whoever else holds its output, such as a daemon that it began.
 */
export function endsAlone<T extends ChildProcess>(child: T): T {
  const end = (): void => {
    child.stdout?.destroy();
    child.stderr?.destroy();
  };
  // The first turn may come before the system was asked for output again, the second doesn't.
  child.once("exit", () => setImmediate(() => setImmediate(end)));
  return child;
}
