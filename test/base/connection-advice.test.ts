import { expect, test } from "vitest";
import { connectionAdvice } from "../../src/base/connection-advice.ts";

const HTTP = new URL("http://host:1");
const HTTPS = new URL("https://host:1");

test.for([
  ["ERR_TLS_CERT_ALTNAME_INVALID", HTTPS, /a host that its certificate is for/],
  ["CERT_HAS_EXPIRED", HTTPS, /renew its certificate/],
  ["DEPTH_ZERO_SELF_SIGNED_CERT", HTTPS, /NODE_EXTRA_CA_CERTS/],
  ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", HTTPS, /NODE_EXTRA_CA_CERTS/],
  ["ERR_SSL_WRONG_VERSION_NUMBER", HTTPS, /http:\/\//],
  ["ERR_SSL_PACKET_LENGTH_TOO_LONG", HTTPS, /http:\/\//],
  ["other side closed", HTTP, /https:\/\//],
  ["ECONNRESET", HTTP, /https:\/\//],
] as const)("%s at %s", ([failure, url, sentence]) => {
  expect(connectionAdvice(failure, url)).toMatch(sentence);
});

test.for([
  ["ECONNREFUSED", HTTP],
  ["ECONNREFUSED", HTTPS],
  ["ENOTFOUND", HTTPS],
  // It spoke TLS: the scheme is right.
  ["ECONNRESET", HTTPS],
  ["no answer within 5 s", HTTP],
] as const)("%s at %s says nothing but that nobody answered", ([failure, url]) => {
  expect(connectionAdvice(failure, url)).toBeUndefined();
});
