import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    globalSetup: ["test/native/setup.ts"],
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
});
