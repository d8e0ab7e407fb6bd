/** For `rm` of a test's folder: what the test has started may still write the last of it. */
export const REMOVED = { recursive: true, force: true, maxRetries: 10, retryDelay: 200 } as const;
