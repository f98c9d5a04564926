"""Who may ask, how often, and for whom: API keys, a rate a key, signed user tokens.

A user token is a JWT (HS256) with `sub`, the user, and `exp`; a shop's backend signs it with `token_secret` for the
browser of that user. It opens that user's history and no other.
"""

from __future__ import annotations

import hmac
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jwt

from retrieval.service.settings import MULTIPROCESS, ApiKey, Settings

ALGORITHM = "HS256"
SESSION_PREFIX = "session:"
MIN_SESSION = 16  # characters: a session's id is all that guards its history
BUCKET = struct.Struct("dd")  # requests taken of the burst, and when


class Refused(Exception):
    """status: 401, 403 or 429. wait: seconds after which to try again, for 429."""

    def __init__(self, status: int, problem: str, fix: str = "", wait: float = 0.0) -> None:
        super().__init__(problem)
        self.status, self.problem, self.fix, self.wait = status, problem, fix, wait


@dataclass(frozen=True)
class Caller:
    """name: of the key, or where the caller is without one. server: may read and write any user. user: of the token."""

    name: str
    server: bool = False
    user: str | None = None


def sign_user(secret: str, user: str, seconds: float = 3600.0, now: float | None = None) -> str:
    """A user token that is good for so many seconds."""
    moment = time.time() if now is None else now
    return jwt.encode({"sub": user, "exp": int(moment + seconds)}, secret, ALGORITHM)


class Access:
    """The checks of one worker. The keys' buckets are in a file that all workers share: connections are spread over
    them unevenly, and one connection stays with one.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        size, self._file = max(BUCKET.size * len(settings.keys), 1), -1  # -1: memory of this process
        if settings.workers > 1 and MULTIPROCESS in os.environ:
            self._file = os.open(Path(os.environ[MULTIPROCESS]) / "rates", os.O_RDWR | os.O_CREAT, 0o600)
            os.ftruncate(self._file, size)
        self._buckets = mmap.mmap(self._file, size)

    def caller(self, headers: Mapping[str, str], host: str) -> Caller:
        """Who asks. Raises Refused: 401 without a key where keys are configured, 429 above the key's rate."""
        key = self._key(headers)
        if self._settings.keys and key is None:
            raise Refused(401, "an API key is needed", "Send Authorization: Bearer KEY")
        if key is not None:
            self._take(key)
        user = self._token_user(headers.get("x-user-token"))
        return Caller(key.name if key else host, bool(key and key.server), user)

    def user(self, caller: Caller, user: str | None, session: str | None) -> str | None:
        """The id of the `shopper` document that a request is about, None for neither. Raises Refused (403)."""
        if user is None:
            if session is None:
                return None
            if len(session) < MIN_SESSION:
                raise Refused(403, "a session's id needs 16 characters or more", "Draw it at random")
            return SESSION_PREFIX + session
        if user.startswith(SESSION_PREFIX):
            raise Refused(403, "a session is no user", "Send it as session")
        if caller.server or self._settings.demo or caller.user == user:
            return user
        raise Refused(403, "no right to this user", "Send X-User-Token of that user, or the server's key")

    def _key(self, headers: Mapping[str, str]) -> ApiKey | None:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = headers.get("x-api-key") or (bearer.strip() if scheme.lower() == "bearer" else "")
        found = None
        for key in self._settings.keys:  # each is compared, in constant time
            if hmac.compare_digest(key.key.encode(), given.encode("utf-8", "replace")):
                found = key
        if given and found is None and self._settings.keys:
            raise Refused(401, "no such API key")
        return found

    def _token_user(self, token: str | None) -> str | None:
        if not token:
            return None
        if self._settings.token_secret is None:
            raise Refused(401, "user tokens are not configured", "Start the service with token_secret")
        try:
            claims = jwt.decode(token, self._settings.token_secret, [ALGORITHM], options={"require": ["sub", "exp"]})
        except jwt.ExpiredSignatureError:
            raise Refused(401, "the user token has expired", "Sign a new one") from None
        except jwt.PyJWTError as error:
            raise Refused(401, f"no user token: {error}") from None
        return str(claims["sub"])

    def _take(self, key: ApiKey) -> None:
        """One from the key's bucket, which fills at its rate. Raises Refused (429) when it is empty."""
        place = BUCKET.size * self._settings.keys.index(key)
        with self._alone():
            now = self._clock()
            taken, at = BUCKET.unpack_from(self._buckets, place)
            taken = max(taken - (now - at) * key.rate, 0.0) + 1
            if taken <= key.burst:
                BUCKET.pack_into(self._buckets, place, taken, now)
                return
        raise Refused(429, f"more than {key.rate:g} requests a second", wait=(taken - key.burst) / key.rate)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other worker is in here."""
        if self._file == -1:
            yield
            return
        import fcntl  # only where workers share a file: not every system has it

        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
