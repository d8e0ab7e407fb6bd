/** One engine as the gateway sees it: where it is, and how it is. */

import type { ServerAddress } from "lazygraph/measure";
import { Pool } from "undici";
import { type Candidate, GraphSizes } from "./routing.ts";

export class Engine implements Candidate {
  readonly name: string;
  readonly pool: Pool;
  readonly server: ServerAddress;
  ready = false;
  /** Why its health check says that it isn't ready; undefined while it is, or nobody knows. */
  ailment: string | undefined;
  saidAtMs = Number.NEGATIVE_INFINITY;
  /** How often in a row it served and the controller knew nothing of it. */
  unknown = 0;
  inFlight = 0;
  capturing = false;
  settled = false;
  announcedAtMs = Number.NEGATIVE_INFINITY;
  /** A probe is under way; `again` when what it finds is out of date already. */
  probing: "no" | "yes" | "again" = "no";
  graphs = new GraphSizes([]);

  constructor(name: string, server: ServerAddress) {
    this.name = name;
    // Connections are not limited here: the engine queues better than we could.
    this.pool = new Pool(server.origin, { headersTimeout: 0, bodyTimeout: 0 });
    this.server = server;
  }

  get hasNextGraph(): boolean {
    return this.graphs.has(this.inFlight + 1);
  }
}
