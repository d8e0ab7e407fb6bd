import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { connectController } from "../../src/replica/client.ts";
import { finish, lazygraph } from "../cli/helpers/command.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { PythonEngine } from "./python-engine.ts";

test("keys of two folders, over IPv6: refused on both sides, told, joined, no restart", {
  timeout: 120_000,
}, async () => {
  const folder = await temporaryFolder();
  const [controller, engine] = [join(folder, "controller"), join(folder, "engine")];
  await finish(["keys", "new", controller]);
  await finish(["keys", "new", engine, "--server", join(controller, "public.key")]);
  const serve = ["serve", "--endpoint", "tcp://[::]:0", "--http", "[::1]:0", "--no-plan", "--json"];
  const running = lazygraph([...serve, "--keys", controller]);
  const { endpoint, http } = JSON.parse(await running.line("stdout", /^\{/)) as {
    endpoint: string;
    http: string;
  };
  const its = new PythonEngine(endpoint.replace("[::]", "[::1]"), [], {
    LAZYGRAPH_ENGINE_KEYS: engine,
  });
  await running.line(
    "stderr",
    /Expected engines whose public keys are allowed.*ERR_LAZYGRAPH_KEYS/,
  );
  await expect
    .poll(() => its.log)
    .toMatch(/to know this engine's public key, but it refused it.* \[ERR_LAZYGRAPH_KEYS\]/);
  const allow = ["keys", "allow", controller, join(engine, "public.key")];
  await finish([...allow, "--engine", "another"]);
  await running.line("stderr", /a name that is given to it \(another\), got python.*_ENGINE_NAME/);
  await expect
    .poll(() => its.log)
    .toMatch(
      /puts this engine off: Expected an engine with the key .* \[ERR_LAZYGRAPH_ENGINE_NAME\]/,
    );
  await finish([...allow, "--engine", "python"]);
  const seen = connectController(http);
  onTestFinished(() => seen.close());
  const joined = await seen.waitForEngine({ engine: "python" });
  expect(joined.connected).toBe(true);
  await its.end();
});
