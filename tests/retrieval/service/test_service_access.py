"""Who may ask, how often, and for whom."""

from __future__ import annotations

from pathlib import Path

import jwt
import pytest

from mrse_cli.searching.serve import serve
from mrse_model.errors import InputError
from retrieval.service import run
from retrieval.service.access import Access, Caller, Refused, sign_user
from retrieval.service.settings import ApiKey, Settings

SHOP, PAGE = ApiKey("shop", "s" * 16, server=True), ApiKey("page", "p" * 16, rate=2, burst=3)
SECRET = "0123456789abcdef0123456789abcdef"


def refused(status: int):
    return pytest.raises(Refused, check=lambda error: error.status == status)


def test_a_key_is_needed_where_keys_are_configured(client_of) -> None:
    client = client_of(keys=(SHOP, PAGE))
    ask = {"url": "/v1/search", "json": {"query": "dress"}}
    assert client.post(**ask).status_code == 401
    assert client.post(**ask).headers["www-authenticate"] == "Bearer"
    assert client.post(**ask, headers={"authorization": "Bearer wrong"}).status_code == 401
    for headers in ({"authorization": f"Bearer {PAGE.key}"}, {"x-api-key": SHOP.key}):
        assert client.post(**ask, headers=headers).status_code == 200
    assert client.get("/health").status_code == 200


def test_openapi_says_where_a_key_is_sent(client_of) -> None:
    told = client_of(keys=(SHOP,)).get("/openapi.json").json()
    headers = {"bearer": "authorization"} | {
        name: scheme["name"] for name, scheme in told["components"]["securitySchemes"].items() if "name" in scheme
    }
    assert headers == {"bearer": "authorization", "key": "x-api-key", "user": "x-user-token"}
    assert told["paths"]["/v1/search"]["post"]["security"] == [{"bearer": []}, {"key": []}]
    client = client_of(keys=(SHOP,))
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            open_to_all = client.request(method, path.replace("{", "").replace("}", "")).status_code != 401
            assert open_to_all == ("security" not in operation), (method, path)
    assert "securitySchemes" not in client_of().get("/openapi.json").json()["components"]


def test_a_key_has_a_rate() -> None:
    now = [0.0]
    access = Access(Settings(keys=(PAGE,)), clock=lambda: now[0])
    headers = {"x-api-key": PAGE.key}
    for _ in range(3):
        assert access.caller(headers, "host").name == "page"
    with refused(429) as caught:
        access.caller(headers, "host")
    assert caught.value.wait == pytest.approx(0.5)
    now[0] = 0.5
    access.caller(headers, "host")
    with refused(429):
        access.caller(headers, "host")


def test_workers_share_the_rate_of_a_key(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    now = [0.0]
    workers = [Access(Settings(keys=(SHOP, PAGE), workers=2), clock=lambda: now[0]) for _ in range(2)]
    headers = {"x-api-key": PAGE.key}
    for worker in (0, 0, 1):  # three at once, by whichever worker
        workers[worker].caller(headers, "host")
    for worker in workers:
        with refused(429):
            worker.caller(headers, "host")
        worker.caller({"x-api-key": SHOP.key}, "host")
    now[0] = 1.0
    for _ in range(2):  # two a second, by one worker alone
        workers[1].caller(headers, "host")
    with refused(429):
        workers[0].caller(headers, "host")


def test_a_user_is_opened_by_his_token_or_the_servers_key(client_of, vespa) -> None:
    client = client_of(keys=(SHOP, PAGE), token_secret=SECRET)
    page, shop = {"x-api-key": PAGE.key}, {"x-api-key": SHOP.key}
    token = sign_user(SECRET, "u1")
    ask = {"url": "/v1/search", "json": {"query": "dress", "user": "u1"}}
    assert client.post(**ask, headers=page).status_code == 403
    assert client.post(**ask, headers=page | {"x-user-token": sign_user(SECRET, "u2")}).status_code == 403
    assert client.post(**ask, headers=page | {"x-user-token": token}).status_code == 200
    assert client.post(**ask, headers=shop).status_code == 200
    assert client.get("/v1/users/u2", headers=shop).json() == {"user": "u2", "events": []}


@pytest.mark.parametrize(
    "token",
    [
        "nothing",
        sign_user(SECRET[::-1], "u1"),
        sign_user(SECRET, "u1", seconds=-1),
        jwt.encode({"sub": "u1"}, SECRET, "HS256"),
        jwt.encode({"sub": "u1", "exp": 9e9}, None, "none"),
    ],
)
def test_what_is_no_token_is_refused(token: str) -> None:
    with refused(401):
        Access(Settings(token_secret=SECRET)).caller({"x-user-token": token}, "host")


def test_without_a_secret_nobody_is_a_user_but_in_a_demo() -> None:
    caller = Caller("host")
    with refused(403):
        Access(Settings()).user(caller, "u1", None)
    assert Access(Settings(demo=True)).user(caller, "u1", None) == "u1"
    assert Access(Settings()).user(caller, None, None) is None


def test_a_session_is_guarded_by_its_length_and_is_no_user() -> None:
    access = Access(Settings(demo=True))
    assert access.user(Caller("host"), None, "0123456789abcdef") == "session:0123456789abcdef"
    with refused(403):
        access.user(Caller("host"), None, "1")
    with refused(403):
        access.user(Caller("host"), "session:0123456789abcdef", None)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"address": "0.0.0.0"}, "reachable from other machines without a key"),
        ({"origins": ("*",)}, "must list the sites"),
        ({"token_secret": "short"}, "32 characters"),
        ({"port": 70000}, "0 to 65535"),
        ({"endpoint": "localhost"}, "not a URL"),
        ({"keys": (SHOP, ApiKey("shop", "x" * 16))}, "two keys"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, words) -> None:
    with pytest.raises(InputError, match=words):
        Settings(**given)


def test_settings_are_read_from_a_file_and_flags_win(tmp_path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('[serve]\nport = 9000\nworkers = 2\n[[serve.keys]]\nname = "shop"\nkey = "ssssssssssssssss"\n')
    read = Settings.read(file, port=9001, demo=None)
    assert (read.port, read.workers, read.demo, read.keys[0].name) == (9001, 2, False, "shop")
    file.write_text("prot = 1\n")
    with pytest.raises(InputError, match="field prot: unknown setting"):
        Settings.read(file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('demo = "false"', "field demo: must be bool, got 'false'"),
        ('port = "8000"', "field port: must be int"),
        ("deadline = true", "field deadline: must be float"),
        ("app = 1", "field app: must be str"),
        ('origins = "https://shop.example"', "field origins: must be a list"),
        ('[keys]\nname = "shop"', r"field keys: must be a list.*\[\[serve.keys\]\]"),
        ('[[keys]]\nname = "a"\nkey = "ssssssssssssssss"\nserver = "false"', "field keys.a.server: must be bool"),
        ("[[compare]]\nname = 1", "field compare.name: must be str"),
    ],
)
def test_a_value_of_another_type_is_refused(tmp_path, text, words) -> None:
    (tmp_path / "serve.toml").write_text(text)
    with pytest.raises(InputError, match=words):
        Settings.read(tmp_path / "serve.toml")


def test_what_the_file_says_wins_over_the_defaults_of_the_command(tmp_path, monkeypatch) -> None:
    given: list[Settings] = []
    monkeypatch.setattr(run, "serve", lambda settings, _: given.append(settings))
    file = tmp_path / "serve.toml"
    for text in ('[serve]\nendpoint = "http://vespa:8080"\napp = "shop"\n', ""):
        file.write_text(text)
        serve(settings=file)
    serve(settings=file, endpoint="http://other:8080", app=Path("mine"))
    assert [(one.endpoint, Path(one.app or "").name) for one in given] == [
        ("http://vespa:8080", "shop"),
        ("http://localhost:8080", "vespa_app"),
        ("http://other:8080", "mine"),
    ]


def test_other_sites_are_let_in_by_name(client_of) -> None:
    client = client_of(origins=("https://shop.example",))
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "x-user-token"}
    for site, allowed in (("https://shop.example", True), ("https://other.example", False)):
        answer = client.options("/v1/search", headers={"origin": site} | asked)
        assert (answer.headers.get("access-control-allow-origin") == site) is allowed
