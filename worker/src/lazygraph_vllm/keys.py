"""CURVE keys of an engine: from variables, or from the files of one folder.

Variables can be read by whoever may look at the process, files by whom their rights let. Which
endpoints need keys at all is decided here, too: those that another machine could stand behind.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = "LAZYGRAPH_ENGINE_KEYS"
VARIABLES = ("LAZYGRAPH_SERVER_KEY", "LAZYGRAPH_PUBLIC_KEY", "LAZYGRAPH_SECRET_KEY")
# Of the folder, in the order of the variables; `lazygraph keys new` makes them.
FILES = ("server.key", "public.key", "secret.key")
KEY_CHARS = 40
FILE_BYTES_MAX = 1024
# Its group may read a secret, because Kubernetes mounts it so; others may do nothing with it.
FORBIDDEN_MODE = 0o027
_Z85 = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]*")


class SettingsError(ValueError):
    """A variable has a value we can't use; the message is one sentence for the log."""


@dataclass(frozen=True)
class Curve:
    """CURVE keys in Z85 (40 characters each)."""

    server_key: str
    public_key: str
    secret_key: str

    def __repr__(self) -> str:
        """Without the secret: settings are logged now and then."""
        return f"Curve(public_key={self.public_key!r})"


def load_curve(env: Mapping[str, str]) -> Curve | None:
    """The keys; ``None`` where neither a folder nor a variable has any.

    Raises:
        SettingsError: keys are missing or are none, or a file is not fit for a secret.
    """
    folder = env.get(FOLDER, "").strip()
    values = [env.get(name, "").strip() for name in VARIABLES]
    if folder:
        if any(values):
            given = next(n for n, value in zip(VARIABLES, values, strict=True) if value)
            raise SettingsError(f"expected {FOLDER} or {given}, got both: leave one out")
        names = [str(Path(folder) / file) for file in FILES]
        values = [_read(name, secret=name == names[-1]) for name in names]
        together = "`lazygraph keys new` makes the files"
    elif any(values):
        names = list(VARIABLES)
        together = "set all three CURVE keys or none"
    else:
        return None
    for name, value in zip(names, values, strict=True):
        if len(value) != KEY_CHARS or _Z85.fullmatch(value) is None:
            raise SettingsError(
                f"expected {name} to be a Z85 key of {KEY_CHARS} characters, got {len(value)} "
                f"characters; {together}"
            )
    # Only where there are keys: every process that may start an engine reads the settings.
    import zmq

    if zmq.curve_public(values[2].encode()).decode() != values[1]:
        raise SettingsError(
            f"expected {names[2]} to be the secret key of {names[1]}, got another one's: put back "
            "the pair that belongs together, or make a new one"
        )
    return Curve(*values)


def _read(name: str, *, secret: bool) -> str:
    try:
        # Without O_NONBLOCK opening a pipe would wait for whoever writes into it.
        file = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "an error")
        remedy = "`lazygraph keys new` makes it"
        if name.endswith(FILES[0]):
            remedy = "copy the controller's public.key there"
        raise SettingsError(
            f"expected {name} to be a readable file, got {code}; {remedy}"
        ) from None
    try:
        mode = os.fstat(file).st_mode
        if not stat.S_ISREG(mode):
            raise SettingsError(f"expected {name} to be a regular file, got something else")
        if secret and mode & FORBIDDEN_MODE:
            raise SettingsError(
                f"expected {name} to be a file that other users can't read and its group can't "
                f"write, got mode {mode & 0o777:04o}: `chmod 600` it"
            )
        return os.read(file, FILE_BYTES_MAX).decode("ascii", "replace").strip()
    finally:
        os.close(file)


def is_loopback(endpoint: str) -> bool:
    """Whether only this machine can be behind it; names are not resolved."""
    if endpoint.startswith("ipc://"):
        return True
    host = re.fullmatch(r"tcp://(.+):[^:]+", endpoint)
    if host is None:
        return False
    return host[1] in ("localhost", "[::1]") or bool(re.fullmatch(r"127(\.\d{1,3}){3}", host[1]))


def check_endpoint_has_keys(endpoint: str, curve: Curve | None) -> None:
    """Whoever is at an address of the network could else give this engine orders.

    Raises:
        SettingsError: it may be another machine's, and there are no keys.
    """
    if curve is None and not is_loopback(endpoint):
        raise SettingsError(
            f"expected CURVE keys for LAZYGRAPH_ENDPOINT {endpoint}, behind which another machine "
            f"may be, got none: set {FOLDER} to a folder of `lazygraph keys new`, or "
            f"{', '.join(VARIABLES)}"
        )
