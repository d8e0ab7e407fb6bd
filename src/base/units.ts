/** Units that figures are told in. */

export const MIB: number = 1024 * 1024;
export const GIB: number = 1024 * MIB;
