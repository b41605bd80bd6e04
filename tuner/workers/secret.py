"""The secret that a chief and its workers share, where others can reach the chief.

It goes with every call as metadata, as it is: gRPC's plain channel hides it from nobody who listens on the wire.
"""

import hmac
import ipaddress
import os
import socket
import stat
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from tuner.searches.records import BadName
from zoo.errors import UserError

SECRET, FILE = "TUNER_SECRET", "TUNER_SECRET_FILE"
KEY = "tuner-secret-bin"
SHORTEST, LONGEST = 16, 1024  # bytes
QUIET = 60.0  # seconds between two lines about calls refused to one host
HOSTS = 1000  # of which they are counted


def of(host: str) -> bytes | None:
    """The secret of a chief at a host; None on this machine's loopback, where none need be set.

    Raises:
        UserError: for a secret that is needed and missing, too short or readable by others.
    """
    found = _found()
    if found is None and not is_loopback(host):
        raise UserError(
            f"{host}: a chief that other machines can reach asks its workers for a secret: set {FILE} to a file that "
            f"only its owner can read (python -c 'import secrets; print(secrets.token_hex())'), or {SECRET} to the "
            "secret, for the chief and every worker"
        )
    return found


def _found() -> bytes | None:
    given = [name for name in (SECRET, FILE) if name in os.environ]
    if not given:
        return None
    if len(given) > 1:
        raise UserError(f"{SECRET} and {FILE} are both set; one says what the secret is")
    found = os.environb[SECRET.encode()] if given == [SECRET] else _contents(Path(os.environ[FILE]))
    found = found.strip()
    if not SHORTEST <= len(found) <= LONGEST:
        raise UserError(f"{given[0]}: a secret has {SHORTEST} to {LONGEST} bytes; this one has {len(found)}")
    return found


def _contents(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
                raise UserError(f"{path}: a secret is in a file that only its owner, this user, can read: chmod 600")
            return file.read(2 * LONGEST)
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None


def is_loopback(host: str) -> bool:
    """Whether an address, or every address of a name, is this machine's own."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host.strip("[]"), None)}
        return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)
    except (OSError, UnicodeError):
        return False


class Gate(grpc.ServerInterceptor):
    """Lets calls with the secret in, refuses others, and says so in one line for each host and minute.

    Args:
        secret: None lets every call in.
        say: called with each line.
    """

    def __init__(self, secret: bytes | None, say: Callable[[str], None] = print):
        self.secret, self.say = secret, say
        self._refused: dict[str, tuple[float, int]] = {}  # when that was said, and how often since

    def intercept_service(self, continuation, details):
        if self._admits(dict(details.invocation_metadata).get(KEY)):
            return _answering(continuation(details))
        why = "a wrong secret" if KEY in dict(details.invocation_metadata) else "no secret"

        def refuse(request, context):
            self._note(context.peer(), f"{details.method.rpartition('/')[2]} with {why}")
            context.abort(grpc.StatusCode.UNAUTHENTICATED, f"this chief asks for a secret; this call has {why}")

        return grpc.unary_unary_rpc_method_handler(refuse)

    def _admits(self, given: Any) -> bool:
        return self.secret is None or (isinstance(given, bytes) and hmac.compare_digest(given, self.secret))

    def _note(self, peer: str, what: str) -> None:
        host, now = peer.rpartition(":")[0], time.monotonic()
        said, since = self._refused.get(host, (-QUIET, 0))
        if now - said < QUIET:
            self._refused[host] = said, since + 1
        elif host in self._refused or len(self._refused) < HOSTS:
            self._refused[host] = now, 0
            self.say(f"refused {peer}: {what}" + (f"; {since} calls more since the last such line" if since else ""))


def _answering(handler):
    """A method that answers what is wrong with a call in one line, where KerasTuner's prints a traceback."""
    if handler is None:
        return None

    def answer(request, context):
        try:
            return handler.unary_unary(request, context)
        except BadName as error:
            return context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except UserError as error:  # the chief ends on it, and may come again
            return context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

    return grpc.unary_unary_rpc_method_handler(answer, handler.request_deserializer, handler.response_serializer)


class Carrying:
    """A stub of gRPC whose every call has the secret with it."""

    def __init__(self, stub, secret: bytes | None):
        self._stub, self._metadata = stub, () if secret is None else ((KEY, secret),)

    def __getattr__(self, name: str):
        return partial(getattr(self._stub, name), metadata=self._metadata)
