/** Keys as text: Z85, four bytes in five characters (https://rfc.zeromq.org/spec/32). Pure. */

const Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
const KEY_CHARS = 40;
const GROUP_CHARS = 5;

/** The text of bytes whose number is a multiple of four. */
export function toZ85(bytes: Buffer): string {
  let text = "";
  for (let at = 0; at + 4 <= bytes.byteLength; at += 4) {
    let value = bytes.readUInt32BE(at);
    let group = "";
    for (let digit = 0; digit < GROUP_CHARS; digit += 1) {
      group = Z85.charAt(value % 85) + group;
      value = Math.floor(value / 85);
    }
    text += group;
  }
  return text;
}

/** The 32 bytes of a key; undefined: it is none, as not every group of five is four bytes. */
export function keyBytes(key: unknown): Buffer | undefined {
  if (typeof key !== "string" || key.length !== KEY_CHARS) return undefined;
  const digits = [...key].map((character) => Z85.indexOf(character));
  if (digits.includes(-1)) return undefined;
  const bytes = Buffer.alloc(32);
  for (let group = 0; group * GROUP_CHARS < digits.length; group += 1) {
    const from = group * GROUP_CHARS;
    const value = digits
      .slice(from, from + GROUP_CHARS)
      .reduce((sum, digit) => sum * 85 + digit, 0);
    if (value > 0xffff_ffff) return undefined;
    bytes.writeUInt32BE(value, 4 * group);
  }
  return bytes;
}

/** Whether this is 32 bytes in Z85. */
export function isCurveKey(key: unknown): boolean {
  return keyBytes(key) !== undefined;
}
