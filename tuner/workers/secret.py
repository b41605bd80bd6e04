"""The secret that a chief and its workers share if other machines can reach the chief.

It is sent with every call as metadata, unencrypted: anybody who can read the network traffic can read it.
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
QUIET = 60.0  # seconds between two messages about refused calls of a host
HOSTS = 1000  # whose refused calls are counted


def of(host: str) -> bytes | None:
    """The secret of a chief at a host; may be None on the loopback interface.

    Raises:
        UserError: if a required secret is missing, too short or readable by others.
    """
    found = _found()
    if found is None and not is_loopback(host):
        raise UserError(
            f"{host}: a chief that other machines can reach needs a secret: set {FILE} to a file that only its "
            f"owner can read (python -c 'import secrets; print(secrets.token_hex())'), or {SECRET} to the secret, for "
            "the chief and every worker"
        )
    return found


def _found() -> bytes | None:
    given = [name for name in (SECRET, FILE) if name in os.environ]
    if not given:
        return None
    if len(given) > 1:
        raise UserError(f"{SECRET} and {FILE} are both set; unset one")
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
                raise UserError(
                    f"{path}: the file of a secret must belong to this user and be readable by nobody else: chmod 600"
                )
            return file.read(2 * LONGEST)
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None


def is_loopback(host: str) -> bool:
    """Whether a host is the loopback interface of this machine, by all of its addresses."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host.strip("[]"), None)}
        return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)
    except (OSError, UnicodeError):
        return False


class Gate(grpc.ServerInterceptor):
    """Admits calls with the secret; refuses others, with at most one message per host and minute.

    Args:
        secret: None admits every call.
        say: called with each message.
    """

    def __init__(self, secret: bytes | None, say: Callable[[str], None] = print):
        self.secret, self.say = secret, say
        self._refused: dict[str, tuple[float, int]] = {}  # time of the last message, and refusals since

    def intercept_service(self, continuation, details):
        if self._admits(dict(details.invocation_metadata).get(KEY)):
            return _answering(continuation(details))
        why = "a wrong secret" if KEY in dict(details.invocation_metadata) else "no secret"

        def refuse(request, context):
            self._note(context.peer(), f"{details.method.rpartition('/')[2]} with {why}")
            context.abort(grpc.StatusCode.UNAUTHENTICATED, f"this chief needs a secret; this call has {why}")

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
            self.say(f"refused {peer}: {what}" + (f"; {since} more since the last message" if since else ""))


def _answering(handler):
    """Wraps a method to answer errors in one line, where KerasTuner prints a traceback."""
    if handler is None:
        return None

    def answer(request, context):
        try:
            return handler.unary_unary(request, context)
        except BadName as error:
            return context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except UserError as error:  # it stops the chief, which may be restarted
            return context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

    return grpc.unary_unary_rpc_method_handler(answer, handler.request_deserializer, handler.response_serializer)


class Carrying:
    """A gRPC stub that sends the secret with every call."""

    def __init__(self, stub, secret: bytes | None):
        self._stub, self._metadata = stub, () if secret is None else ((KEY, secret),)

    def __getattr__(self, name: str):
        return partial(getattr(self._stub, name), metadata=self._metadata)
