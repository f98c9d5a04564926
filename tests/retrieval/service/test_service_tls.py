"""TLS, client certificates and keys against the running service, with an authority made here."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from local_vespa.testing import free_port
from mrse_model.errors import InputError
from retrieval.service.client import Client, ServiceError
from retrieval.service.run import start, tls_options
from retrieval.service.settings import ApiKey, Settings
from tests.helpers.faulty_backend import FaultyBackend

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on this machine")
SHOP = ApiKey("shop", "s" * 16, server=True)


def sign(folder: Path, name: str, authority: str | None) -> None:
    """NAME.pem and NAME.key of an authority, or of a party that one signed."""
    (folder / "openssl.conf").write_text("[req]\ndistinguished_name = dn\n[dn]\n")
    command = ["openssl", "req", "-x509", "-config", "openssl.conf", "-newkey", "ec", "-pkeyopt"]
    command += ["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    command += ["-out", f"{name}.pem", "-keyout", f"{name}.key"]
    if authority is None:
        command += ["-addext", "basicConstraints=critical,CA:TRUE"]
    else:
        command += ["-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-addext", "subjectAltName=IP:127.0.0.1"]
        command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(command, check=True, cwd=folder, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    for name, authority in (("ca", None), ("other", None), ("server", "ca"), ("shop", "ca"), ("stranger", "other")):
        sign(folder, name, authority)
    return folder


@pytest.fixture(scope="module")
def settings(certificates: Path, package: Path) -> Iterator[Settings]:
    """Of a service that wants a certificate and a key."""
    backend = FaultyBackend()
    at = {name: str(certificates / file) for name, file in (("tls_cert", "server.pem"), ("tls_key", "server.key"))}
    yield Settings(
        endpoint=backend.url, app=str(package), port=free_port(), keys=(SHOP,), deadline=10,
        tls_client_ca=str(certificates / "ca.pem"), **at,
    )  # fmt: skip
    backend.close()


@pytest.fixture(scope="module")
def url(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process = start(settings, tmp_path_factory.mktemp("log") / "log")
    yield f"https://127.0.0.1:{settings.port}"
    process.terminate()
    process.wait(30)


def client(certificates: Path, authority: str, party: str | None) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(certificates / f"{authority}.pem"))
    if party is not None:
        context.load_cert_chain(certificates / f"{party}.pem", certificates / f"{party}.key")
    return httpx.Client(verify=context, trust_env=False, timeout=20)


def test_a_client_with_certificate_and_key_searches(url, certificates) -> None:
    with Client(url, key=SHOP.key, http=client(certificates, "ca", "shop")) as shop:
        assert [hit.item for hit in shop.search("dress", profile="bm25").hits] == ["i1"]
    with Client(url, http=client(certificates, "ca", "shop")) as keyless, pytest.raises(ServiceError) as caught:
        keyless.search("dress", profile="bm25")
    assert caught.value.status == 401


@pytest.mark.parametrize("party", [None, "stranger"])
def test_a_client_without_a_certificate_of_the_authority_is_refused(url, certificates, party) -> None:
    with client(certificates, "ca", party) as http, pytest.raises(httpx.TransportError):
        http.get(f"{url}/health")


def test_a_server_of_another_authority_and_plain_http_are_refused(url, certificates) -> None:
    with client(certificates, "other", "shop") as http, pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY"):
        http.get(f"{url}/health")
    with pytest.raises(httpx.TransportError):
        httpx.get(url.replace("https", "http") + "/health", trust_env=False)


def test_files_that_do_not_belong_together_are_refused_before_the_start(certificates) -> None:
    server, none = str(certificates / "server.pem"), str(certificates / "none.pem")
    for given in ({"tls_key": str(certificates / "shop.key")}, {"tls_client_ca": none}, {"tls_key": none}):
        with pytest.raises(InputError, match=r"tls_cert.*\.(pem|key)"):
            tls_options(Settings(tls_cert=server, **given))
    with pytest.raises(InputError, match="nothing would be encrypted"):
        Settings(address="0.0.0.0", tls_client_ca=str(certificates / "ca.pem"))
