/** Units that figures are told in. */

export const MIB: number = 1024 * 1024;
