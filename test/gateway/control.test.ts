/** The gateway's way to a controller that runs elsewhere, and wants a token. */

import { Registry } from "prom-client";
import { expect, onTestFinished, test, vi } from "vitest";
import { configOf } from "../../examples/gateway/src/config.ts";
import { openControl } from "../../examples/gateway/src/control.ts";
import { createHttpServer } from "../../src/http/server.ts";
import { listening } from "../helpers/listening.ts";
import { startController, startEngine } from "./helpers.ts";

test("announcements reach a controller with a token, and without it stderr says so", async () => {
  const token = "a-token-of-some-length";
  const controller = await startController();
  await startEngine("a", { endpoint: controller.endpoint });
  await controller.waitForEngine();
  const server = createHttpServer(controller, { token });
  const said = vi.spyOn(console, "error").mockImplementation(() => undefined);
  onTestFinished(() => said.mockRestore());
  const changed = vi.spyOn(controller, "announce");
  const environment = { ENGINES: "a=http://h", CONTROLLER: await listening(server) };
  const viewOf = async (more: object) => {
    const config = configOf({ ...environment, ...more });
    const { view } = await openControl(config, new Registry(), () => undefined);
    onTestFinished(() => view.close());
    await view.waitForEngine();
    return view;
  };
  const known = await viewOf({ LAZYGRAPH_HTTP_TOKEN: token });
  known.announce("a", { inSeconds: 1 });
  await expect.poll(() => changed).toHaveBeenCalledTimes(1);
  expect(said).not.toHaveBeenCalled();
  const stranger = await viewOf({});
  stranger.announce("a", { inSeconds: 1 });
  await expect.poll(() => said.mock.calls).toEqual([[expect.stringContaining("token")]]);
  expect(changed).toHaveBeenCalledTimes(1);
});
