import type { ServerResponse } from "node:http";
import { expect, test, vi } from "vitest";
import { LazygraphError } from "../../src/base/errors.ts";
import { sendError } from "../../src/http/answer.ts";

function statusOf(error: unknown): unknown {
  const writeHead = vi.fn();
  sendError({ writeHead, end: vi.fn(), setHeader: vi.fn() } as unknown as ServerResponse, error);
  return writeHead.mock.calls[0]?.[0];
}

test.each([
  ["ERR_LAZYGRAPH_ENGINE_LOST", 409],
  ["ERR_LAZYGRAPH_BUSY", 503],
  ["ERR_LAZYGRAPH_ENGINE_TIMEOUT", 504],
  ["ERR_LAZYGRAPH_INTERNAL", 500],
] as const)("a controller's %s is a %i over HTTP", (code, status) => {
  expect(statusOf(new LazygraphError(code, "A test."))).toBe(status);
});

test("what has no code is a defect", () => {
  expect(statusOf(new TypeError("a test"))).toBe(500);
});
