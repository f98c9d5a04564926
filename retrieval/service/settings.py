"""What the service is started with: one frozen value, checked once, that every worker reads."""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mrse_model.errors import InputError
from retrieval.profiles import profile_of

ENVIRONMENT = "MRSE_SERVE_SETTINGS"  # how the settings reach granian's workers
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"  # where workers leave their metrics; prometheus_client reads it when imported
LISTS = ("origins", "interleave")
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class ApiKey:
    """name: what logs and metrics call it, never the key. rate: requests a second, burst: at once. server: may read
    and write any user, as a shop's own backend does.
    """

    name: str
    key: str
    rate: float = 50.0
    burst: int = 100
    server: bool = False

    def __post_init__(self) -> None:
        if len(self.key) < 16:
            raise InputError("a key needs 16 characters or more", field=f"keys.{self.name}")
        if not self.rate > 0 or self.burst < 1:
            raise InputError("rate must be > 0 and burst ≥ 1", field=f"keys.{self.name}")


@dataclass(frozen=True)
class Settings:
    """See docs/serving.md. endpoint: Vespa's container. app: application package with the exported model. demo: the
    list of users is open, and any user may be searched for.
    """

    endpoint: str = "http://localhost:8080"
    app: str | None = None
    address: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    demo: bool = False
    keys: tuple[ApiKey, ...] = ()
    token_secret: str | None = None
    origins: tuple[str, ...] = ()
    deadline: float = 1.0
    max_in_flight: int = 256
    log: str | None = None  # folder of the served searches
    warm: str | None = None  # file of `mrse warm`
    rules: str | None = None  # file of synonyms, pinned and buried items (retrieval/rules.py)
    interleave: tuple[str, ...] = ()  # two profiles: a search by the first is answered by both
    items: str | None = None  # items file whose images are shown
    now: float | None = None  # a log of the past is searched as of then
    language: str | None = None
    cert: str | None = None  # client certificate towards Vespa
    key: str | None = None
    tls_cert: str | None = None  # of this service
    tls_key: str | None = None
    tls_client_ca: str | None = None  # clients need a certificate of this authority
    user_days: float = 180.0  # a history ages out so long after its last event
    session_days: float = 1.0

    def __post_init__(self) -> None:
        if not self.endpoint.startswith(("http://", "https://")):
            raise InputError(f"not a URL: {self.endpoint!r}", field="endpoint", fix="Write http://localhost:8080")
        for name, low, high in (
            ("port", 0, 65535),
            ("workers", 1, 256),
            ("max_in_flight", 1, 100_000),
            ("deadline", 0.01, 60),
        ):
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} must be {low} to {high}, got {getattr(self, name)}", field=name)
        names = [key.name for key in self.keys]
        if len(set(names)) < len(names) or len({key.key for key in self.keys}) < len(names):
            raise InputError("two keys of one name or one value", field="keys")
        if self.token_secret is not None and len(self.token_secret) < 32:
            raise InputError("the secret needs 32 characters or more", field="token_secret")
        if not self.loopback and not self.keys and not self.tls_client_ca:
            raise InputError(
                f"{self.address} can be reached from other machines, and no key would be needed",
                field="address",
                fix="Configure keys or tls_client_ca, or serve on 127.0.0.1",
            )
        if self.interleave:
            if len(self.interleave) != 2 or len(set(self.interleave)) != 2:
                raise InputError("it must be two profiles", field="interleave", fix='Write ["ann", "hybrid"]')
            for name in self.interleave:
                profile_of(name)
        if "*" in self.origins:
            raise InputError("name the sites, not *", field="origins")

    @property
    def loopback(self) -> bool:
        try:
            return self.address in LOOPBACK or ipaddress.ip_address(self.address).is_loopback
        except ValueError:
            return False

    @classmethod
    def read(cls, file: str | Path | None, **given: Any) -> Settings:
        """A TOML file (a table `serve`, or the keys at its top) and values that win over it; None is not given.

        Raises InputError for an unknown key, and for what cannot be.
        """
        import tomllib

        raw: dict[str, Any] = {}
        if file is not None:
            try:
                raw = tomllib.loads(Path(file).read_text("utf-8"))
            except (OSError, ValueError) as error:
                raise InputError(f"cannot be read: {error}", file=file) from None
            raw = raw.get("serve", raw)
        raw = {name.replace("-", "_"): value for name, value in raw.items()}
        raw |= {name: value for name, value in given.items() if value is not None}
        known = {f.name for f in fields(cls)}
        for name in sorted(raw.keys() - known):
            raise InputError("unknown setting", file=file, field=name, fix="One of " + ", ".join(sorted(known)))
        try:
            keys = raw.pop("keys", ())
            raw["keys"] = tuple(key if isinstance(key, ApiKey) else ApiKey(**key) for key in keys)
            raw |= {name: tuple(raw.get(name, ())) for name in LISTS}
            return cls(**raw)
        except TypeError as error:
            raise InputError(f"malformed: {error}", file=file, field="keys") from None

    def environment(self) -> dict[str, str]:
        """The environment variable that gives the settings to a process."""
        return {ENVIRONMENT: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> Settings:
        raw = json.loads(os.environ[ENVIRONMENT])
        keys = tuple(ApiKey(**key) for key in raw.pop("keys"))
        return cls(**{**raw, "keys": keys, **{name: tuple(raw[name]) for name in LISTS}})


@dataclass
class Stopping:
    """Set while the service ends: `/ready` says so, and a balancer sends no more."""

    yes: bool = False
