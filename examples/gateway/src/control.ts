/**
 * Who decides on captures, and what this gateway sees of it: a controller in this process, one that
 * several replicas take over from each other, or one that runs elsewhere.
 */

import { type ControllerView, connectController, createController, createStandby } from "lazygraph";
import { collectMetrics } from "lazygraph/metrics";
import type { Registry } from "prom-client";
import type { Config } from "./config.ts";

export interface Control {
  readonly view: ControllerView;
  /** For the log, in a few words. */
  readonly says: string;
}

/** @param onChange called when what another process knows of engines has changed */
export async function openControl(
  { control, mode, endpoint, token: given }: Config,
  registry: Registry,
  onChange: () => void,
): Promise<Control> {
  const token = given === undefined ? {} : { token: given };
  // Such as a token that the controller doesn't take: announcements would be lost in silence.
  const onProblem = (error: unknown): void => console.error(String(error));
  switch (control.kind) {
    case "elsewhere":
      return {
        view: connectController(control.url, { ...token, onChange, onProblem }),
        says: `the controller is ${control.url}`,
      };
    case "standby": {
      const { host, port, peers, place } = control;
      const view = createStandby({
        ...{ peers, place, onChange, controller: { mode, endpoint } },
        // Peers call it by whatever name they know it by.
        http: { host, port, anyHost: true, ...token },
        onProblem,
      });
      return { view, says: `engines connect to ${endpoint} while no peer leads` };
    }
    case "embedded": {
      const controller = createController({ mode, endpoint });
      await controller.start();
      collectMetrics(controller, registry);
      return { view: controller, says: `engines connect to ${controller.endpoint}` };
    }
  }
}
