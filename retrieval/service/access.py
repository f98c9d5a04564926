"""Who may ask, how often, and for whom: API keys, a rate a key, signed user tokens.

A user token is a JWT (HS256) with `sub`, the user, and `exp`; a shop's backend signs it with `token_secret` for the
browser of that user. It opens that user's history and no other.
"""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jwt

from retrieval.service.settings import ApiKey, Settings

ALGORITHM = "HS256"
SESSION_PREFIX = "session:"
MIN_SESSION = 16  # characters: a session's id is all that guards its history
MAX_BUCKETS = 10_000


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
    """The checks of one worker; rates are its share of the whole."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def caller(self, headers: Mapping[str, str], host: str) -> Caller:
        """Who asks. Raises Refused: 401 without a key where keys are configured, 429 above the key's rate."""
        key = self._key(headers)
        if self._settings.keys and key is None:
            raise Refused(401, "an API key is needed", "Send Authorization: Bearer KEY")
        if key is not None:
            self._take(key.name, key.rate / self._settings.workers, key.burst)
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

    def _take(self, name: str, rate: float, burst: int) -> None:
        """One from the key's bucket, which fills at `rate`. Raises Refused (429) when it is empty."""
        now = self._clock()
        level, at = self._buckets.pop(name, (float(burst), now))
        level = min(float(burst), level + (now - at) * rate)
        if level < 1:
            self._buckets[name] = (level, now)
            raise Refused(429, f"more than {rate:g} requests a second", wait=(1 - level) / rate)
        self._buckets[name] = (level - 1, now)
        while len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
