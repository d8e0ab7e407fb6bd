"""Proof of whose ``hello`` this is: the mirror of ``src/wire/key-proof.ts``, which says why.

Made once, when the engine starts and only where it has keys. The arithmetic is that of the package
cryptography, which vLLM has by what it requires itself (mcp, and by that pyjwt); this package
requires it of nobody. Without it the engine says that it can't prove its key, and joins wherever
none is asked for.
"""

from __future__ import annotations

import logging
import struct

from zmq.utils import z85

from ..keys import Curve
from .messages import KeyProof

logger = logging.getLogger("vllm.lazygraph")

LABEL = "lazygraph hello 1"
PROOF_BYTES = 32


def prove_key(curve: Curve, engine: str, session: str) -> KeyProof | None:
    """Prove that this engine has the secret key to its public one; ``None``: it can't."""
    try:
        from cryptography.hazmat.primitives.asymmetric import x25519
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError:
        logger.warning(
            "lazygraph: expected the package cryptography beside CURVE keys, found none: a "
            "controller that gives names to keys puts this engine off; install it"
        )
        return None
    try:
        secret = x25519.X25519PrivateKey.from_private_bytes(z85.decode(curve.secret_key))
        server = x25519.X25519PublicKey.from_public_bytes(z85.decode(curve.server_key))
        shared = secret.exchange(server)
    except (ValueError, struct.error) as error:
        # Five characters may be no four bytes, and a key of small order has no shared secret.
        logger.warning("lazygraph: expected CURVE keys that go together, got others: %s", error)
        return None
    info = "\0".join((LABEL, curve.public_key, curve.server_key, engine, session)).encode()
    mac = HKDF(algorithm=SHA256(), length=PROOF_BYTES, salt=None, info=info).derive(shared)
    return KeyProof(key=curve.public_key, mac=mac.hex())
