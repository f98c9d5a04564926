"""What the service is started with: one frozen value, checked once, that every worker reads."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mrse_model.errors import InputError
from retrieval.profiles import TABLE, RankProfile, profile_of

ENVIRONMENT = "MRSE_SERVE_SETTINGS"  # how the settings reach granian's workers
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"  # names the folder of what workers share: metrics, and the rates of keys
KINDS: dict[str, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (float, int), "str": (str,)}
LISTS = ("origins", "interleave")
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
MAIN = "main"  # the name of the service's own model
MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


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
        _require_types(self, f"keys.{self.name}")
        if len(self.key) < 16:
            raise InputError("a key needs 16 characters or more", field=f"keys.{self.name}")
        if not self.rate > 0 or self.burst < 1:
            raise InputError("rate must be > 0 and burst ≥ 1", field=f"keys.{self.name}")


@dataclass(frozen=True)
class Compared:
    """A further model, for `model=` of a search. endpoint, app: of the index with its vectors; None is the service's.
    next_models: the export whose vectors are that index's second set, while `mrse migrate` runs.
    """

    name: str
    endpoint: str | None = None
    app: str | None = None
    next_models: str | None = None

    def __post_init__(self) -> None:
        _require_types(self, "compare")
        if not re.fullmatch(MODEL_NAME, self.name) or self.name == MAIN:
            problem = f"no name of a further model: {self.name!r}"
            raise InputError(problem, field="compare", fix=f"Letters, digits, ., _ and -, not {MAIN}")
        if self.endpoint is not None:
            _require_url(self.endpoint, f"compare.{self.name}")
        if not (self.endpoint or self.app or self.next_models):
            raise InputError("nothing differs from the service's own model", field=f"compare.{self.name}")
        _resolve_paths(self, "app", "next_models")

    @classmethod
    def parse(cls, text: str) -> Compared:
        """NAME=ENDPOINT or NAME=ENDPOINT,APP. Raises InputError.

        >>> Compared.parse("new=http://localhost:8090,/shop/new_app")
        Compared(name='new', endpoint='http://localhost:8090', app='/shop/new_app', next_models=None)
        """
        name, equals, rest = text.partition("=")
        endpoint, _, app = rest.partition(",")
        if not equals:
            fix = "Write new=http://localhost:8090,new_app"
            raise InputError(f"not a model to compare with: {text!r}", field="compare", fix=fix)
        return cls(name.strip(), endpoint.strip(), app.strip() or None)


TABLES: dict[str, Any] = {"keys": ApiKey, "compare": Compared, "profiles": RankProfile}
PATHS = ("app", "log", "warm", "rules", "items", "cert", "key", "tls_cert", "tls_key", "tls_client_ca")


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
    profiles: tuple[RankProfile, ...] = ()  # of one's own, beside retrieval/profiles.py
    compare: tuple[Compared, ...] = ()  # further models, beside the service's own
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
        _require_types(self)
        _require_url(self.endpoint, "endpoint")
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
            raise InputError("two keys have the same name or the same value", field="keys")
        if self.token_secret is not None and len(self.token_secret) < 32:
            raise InputError("the secret needs 32 characters or more", field="token_secret")
        if not self.loopback and not self.keys and not self.tls_client_ca:
            raise InputError(
                f"{self.address} is reachable from other machines without a key",
                field="address",
                fix="Configure keys or tls_client_ca, or serve on 127.0.0.1",
            )
        if self.tls_cert is None and (self.tls_key or self.tls_client_ca):
            raise InputError(
                "tls_key or tls_client_ca without a certificate: nothing would be encrypted", field="tls_cert"
            )
        if self.interleave:
            if len(self.interleave) != 2 or len(set(self.interleave)) != 2:
                raise InputError("must be two different profiles", field="interleave", fix='Write ["ann", "hybrid"]')
            for name in self.interleave:
                profile_of(name, self.profiles)
        own = [profile.name for profile in self.profiles]
        if len({*own, *TABLE}) < len(own) + len(TABLE):
            raise InputError("a profile has the name of another", field="profiles", fix="Not " + ", ".join(TABLE))
        compared = [one.name for one in self.compare]
        if len(set(compared)) < len(compared):
            raise InputError("two models have the same name", field="compare")
        if "*" in self.origins:
            raise InputError("must list the sites; * is refused", field="origins")
        _resolve_paths(self, *PATHS)

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
        for name in (*LISTS, *TABLES):
            if not isinstance(raw.get(name, ()), (list, tuple)):
                fix = f"Write [[serve.{name}]]" if name in TABLES else f'Write {name} = ["…"]'
                raise InputError("must be a list", file=file, field=name, fix=fix)
        for name, kind in TABLES.items():
            try:
                raw[name] = tuple(one if isinstance(one, kind) else kind(**one) for one in raw.get(name, ()))
            except TypeError as error:
                raise InputError(f"malformed: {error}", file=file, field=name) from None
        try:
            return cls(**raw | {name: tuple(raw.get(name, ())) for name in LISTS})
        except TypeError as error:
            raise InputError(f"malformed: {error}", file=file) from None

    def environment(self) -> dict[str, str]:
        """The environment variable that gives the settings to a process."""
        return {ENVIRONMENT: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> Settings:
        raw = json.loads(os.environ[ENVIRONMENT])
        raw |= {name: tuple(kind(**one) for one in raw[name]) for name, kind in TABLES.items()}
        return cls(**raw | {name: tuple(raw[name]) for name in LISTS})


def _require_types(settings: Any, where: str = "") -> None:
    """Refuses a value of another type than its field's: "false" is true to Python."""
    for one in fields(settings):
        value, kind = getattr(settings, one.name), KINDS.get(str(one.type).removesuffix(" | None"))
        optional = value is None and str(one.type).endswith("None")
        if kind is not None and not optional and type(value) not in kind:
            name = f"{where}.{one.name}" if where else one.name
            raise InputError(f"must be {kind[0].__name__}, got {value!r}", field=name)


def _resolve_paths(settings: object, *names: str) -> None:
    """Makes paths absolute: settings go to processes that may run in another folder."""
    for name in names:
        if (path := getattr(settings, name)) is not None:
            object.__setattr__(settings, name, str(Path(path).resolve()))


def _require_url(text: str, field: str) -> None:
    if not text.startswith(("http://", "https://")):
        raise InputError(f"not a URL: {text!r}", field=field, fix="Write http://localhost:8080")


@dataclass
class Stopping:
    """Set while the service ends: `/ready` says so, and a balancer sends no more."""

    yes: bool = False
