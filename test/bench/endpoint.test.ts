import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createServer } from "node:https";
import { join } from "node:path";
import { expect, test } from "vitest";
import { requireServer } from "../../src/bench/endpoint.ts";
import { ServerAddress } from "../../src/measure/server-address.ts";
import { temporaryFolder } from "../helpers/folder.ts";
import { listening } from "../helpers/listening.ts";
import { serve } from "./helpers/server.ts";

const required = (url: string): Promise<void> =>
  requireServer(new ServerAddress(new URL(url)), "m", 10, new AbortController().signal);

test("a server that speaks HTTP, and a URL with https: the sentence says what to try", async () => {
  const url = await serve((_, response) => response.end());
  await expect(required(url.href)).resolves.toBeUndefined();
  await expect(required(url.href.replace("http:", "https:"))).rejects.toThrow(
    /WRONG_VERSION_NUMBER: it may want http:\/\/ in its URL\.$/,
  );
});

test("a certificate that nobody here knows: the sentence names the variable", async () => {
  const folder = await temporaryFolder();
  const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")];
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"];
  execFileSync("openssl", ["req", "-x509", ...curve, "-keyout", key, "-out", cert, ...subject], {
    stdio: "ignore",
  });
  const pem = { key: await readFile(key), cert: await readFile(cert) };
  const plain = await listening(createServer(pem, (_, response) => response.end()));
  await expect(required(plain.replace("http:", "https:"))).rejects.toThrow(
    /SELF_SIGNED_CERT: name the certificate of its authority by the variable NODE_EXTRA_CA_CERTS\.$/,
  );
  // What listens for TLS answers plain HTTP with an alert, or closes.
  await expect(required(plain)).rejects.toThrow(/: it may want https:\/\/ in its URL\.$/);
});
