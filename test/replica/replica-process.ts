/**
 * A gateway replica's control side in a process of its own, so that a test can kill it: one JSON
 * line whenever it leads or follows anew, or another engine is connected.
 *
 *     tsx replica-process.ts '{"peers": […], "controller": {…}, "http": {…}}'
 */

import { createStandby, type StandbyOptions } from "../../src/replica/standby.ts";

const options = JSON.parse(process.argv[2] ?? "{}") as StandbyOptions;
let said = "";
const standby = createStandby({ ...options, onChange: () => say() });

function say(): void {
  const line = JSON.stringify({
    leads: standby.controller !== undefined,
    follows: standby.following ?? null,
    engines: standby
      .engines()
      .filter(({ connected }) => connected)
      .map(({ engine }) => engine),
  });
  if (line === said) return;
  said = line;
  console.log(line);
}

// A leader's engines come and go without a change of who leads.
setInterval(say, 50);
