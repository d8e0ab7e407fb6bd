import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

// The examples import this package as strangers do; here they get its sources.
const SOURCES = fileURLToPath(new URL("src", import.meta.url));

export default defineConfig({
  resolve: {
    alias: [
      { find: /^lazygraph$/, replacement: `${SOURCES}/index.ts` },
      { find: /^lazygraph\/(measure|metrics|tracing|testing)$/, replacement: `${SOURCES}/$1.ts` },
    ],
  },
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    // Most tests wait for processes and sockets: as many workers as cores leave these half idle.
    maxWorkers: Math.ceil(availableParallelism() * 1.5),
    globalSetup: ["test/native/setup.ts", "test/helpers/built.ts", "test/helpers/state-folder.ts"],
    // For what hangs alone: a machine with other work takes ten times as long.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    expect: { poll: { timeout: 100_000 } },
  },
});
