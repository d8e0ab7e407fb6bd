import type { ChildProcess } from "node:child_process";

/** Has "close" come once a child has exited and its output is read: Node waits for daemons, too. */
export function endsAlone<T extends ChildProcess>(child: T): T {
  const end = (): void => {
    child.stdout?.destroy();
    child.stderr?.destroy();
  };
  // The first turn may come before the system was asked for output again, the second doesn't.
  child.once("exit", () => setImmediate(() => setImmediate(end)));
  return child;
}
