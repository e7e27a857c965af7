"""Sources and outputs at URLs: copied once, continued, and refused in one line."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from unfreeze.models.errors import UserError
from unfreeze.models.reading import remote
from unfreeze.models.reading.remote import file_system, is_url, mirror, size_at, upload
from unfreeze.models.settings import DataSpec
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.predict import Predict
from unfreeze.models.settings.tables import TrainTables


@pytest.fixture
def bucket() -> Iterator[MemoryFileSystem]:
    """Three objects below memory://bucket."""
    system = fsspec.filesystem("memory")
    for name in ("photos/cat/a.jpg", "photos/dog/b.jpg", "photos/.cache/x"):
        system.pipe(f"/bucket/{name}", name.encode())
    yield system
    system.store.clear()


@pytest.fixture
def fetched(monkeypatch) -> list[str]:
    """Names of the objects that are fetched, as they are."""
    names, get = list[str](), MemoryFileSystem.get_file

    def counting(self, rpath, lpath, **kwargs):
        names.append(rpath.removeprefix("/bucket/"))
        return get(self, rpath, lpath, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "get_file", counting)
    return names


def files_in(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_a_folder_is_copied_under_its_own_name_without_hidden_files(bucket, tmp_path):
    folder = mirror("memory://bucket/photos/", tmp_path)
    assert folder.name == "photos"
    assert files_in(folder) == {"cat/a.jpg": "photos/cat/a.jpg", "dog/b.jpg": "photos/dog/b.jpg"}


def test_a_second_copy_fetches_nothing_and_a_third_only_what_changed(bucket, tmp_path, fetched):
    folder = mirror("memory://bucket/photos", tmp_path)
    assert len(fetched) == 2
    fetched.clear()
    assert mirror("memory://bucket/photos", tmp_path) == folder
    assert fetched == []
    bucket.pipe("/bucket/photos/cat/a.jpg", b"another")
    bucket.pipe("/bucket/photos/bird/c.jpg", b"new")
    bucket.rm("/bucket/photos/dog/b.jpg")
    mirror("memory://bucket/photos", tmp_path)
    assert sorted(fetched) == ["photos/bird/c.jpg", "photos/cat/a.jpg"]
    assert files_in(folder) == {"cat/a.jpg": "another", "bird/c.jpg": "new"}
    assert not (folder / "dog").exists()


def test_a_copy_that_was_damaged_or_deleted_is_fetched_again(bucket, tmp_path, fetched):
    folder = mirror("memory://bucket/photos", tmp_path)
    fetched.clear()
    (folder / "cat/a.jpg").write_text("")
    mirror("memory://bucket/photos", tmp_path)
    assert fetched == ["photos/cat/a.jpg"]


def test_a_single_file_is_copied_under_its_own_name(bucket, tmp_path):
    assert mirror("memory://bucket/photos/cat/a.jpg", tmp_path).read_text() == "photos/cat/a.jpg"
    assert mirror("memory://bucket/photos/cat/a.jpg", tmp_path).name == "a.jpg"


def test_a_store_that_goes_away_is_one_line_and_what_was_fetched_is_kept(bucket, tmp_path, monkeypatch, fetched):
    for number in range(6):
        bucket.pipe(f"/bucket/many/{number}", b"content")
    monkeypatch.setattr(remote, "_MOST_FILES", 2)
    get = MemoryFileSystem.get_file

    def failing(self, rpath, lpath, **kwargs):
        if rpath.endswith("/3"):
            raise ConnectionError("connection refused\nby s3://user:secret@host")
        return get(self, rpath, lpath, **kwargs)

    with monkeypatch.context() as broken:
        broken.setattr(MemoryFileSystem, "get_file", failing)
        with pytest.raises(UserError, match="connection refused") as error:
            mirror("memory://bucket/many", tmp_path)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)
    assert "2 of 6 new files were fetched, the same command continues" in str(error.value)
    fetched.clear()
    folder = mirror("memory://bucket/many", tmp_path)
    assert fetched == ["many/3", "many/4", "many/5"]
    assert set(files_in(folder).values()) == {"content"}


def test_files_that_are_known_cost_no_request_each(bucket, tmp_path, monkeypatch):
    mirror("memory://bucket/photos", tmp_path)
    for name in ("info", "open", "get_file", "exists", "size"):
        monkeypatch.setattr(MemoryFileSystem, name, lambda *_, **__: pytest.fail("a request for one file"))
    listed = []
    find = MemoryFileSystem.find
    monkeypatch.setattr(MemoryFileSystem, "find", lambda *args, **kw: listed.append(args) or find(*args, **kw))
    mirror("memory://bucket/photos", tmp_path)
    assert len(listed) == 1


def test_nothing_is_removed_if_nothing_is_there(bucket, tmp_path):
    folder = mirror("memory://bucket/photos", tmp_path)
    bucket.rm("/bucket/photos", recursive=True)
    with pytest.raises(UserError, match="memory://bucket/photos"):
        mirror("memory://bucket/photos", tmp_path)
    assert len(files_in(folder)) == 2


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, monkeypatch, bucket):
    found = {"/bucket/photos/../../x": {"size": 1, "type": "file", "created": 1}}
    monkeypatch.setattr(MemoryFileSystem, "find", lambda *_, **__: found)
    with pytest.raises(UserError, match="no local file can be named"):
        mirror("memory://bucket/photos", tmp_path / "copies")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_uploaded_whole_and_replaces_another(bucket, tmp_path):
    (tmp_path / "out.csv").write_text("a,b\n")
    assert size_at("memory://bucket/out.csv") is None
    upload(tmp_path / "out.csv", "memory://bucket/out.csv")
    assert size_at("memory://bucket/out.csv") == 4
    assert bucket.find("/bucket", maxdepth=1) == ["/bucket/out.csv"]


@pytest.mark.parametrize(
    ("url", "what"),
    [("s3://bucket/x", r"unfreeze\[s3\]"), ("gs://bucket/x", r"unfreeze\[gcs\]"), ("az://box/x", r"unfreeze\[azure\]")],
)
def test_a_missing_package_is_named(url, what, monkeypatch):
    def missing(*_: object) -> None:
        raise ImportError("Install it")

    monkeypatch.setattr(remote, "url_to_fs", missing)
    with pytest.raises(UserError, match=f"needs a package: pip install '{what}'"):
        file_system(url)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(UserError, match="Protocol not known: nosuch"):
        file_system("nosuch://bucket/x")


@pytest.mark.parametrize("source", ["photos/", "digits", "C:/photos", "/a/b", "a://"])
def test_paths_and_names_are_no_urls(source):
    assert not is_url(source)


@pytest.mark.parametrize(
    "url",
    [
        "https://ada:s3cret@host/photos.zip",
        "https://s3cret@host/photos.zip",
        "s3://AKIA:s3cret@bucket/photos",
        "https://bucket.s3.amazonaws.com/a.csv?X-Amz-Signature=s3cret",
        "https://store.blob.core.windows.net/a.csv?sv=1&sig=s3cret",
    ],
)
def test_a_url_with_credentials_is_refused_without_showing_them(url):
    for spec, setting in ((Predict, "source"), (Predict, "out"), (TrainTables, "data.source")):
        with pytest.raises(UserError, match="without credentials") as error:
            build_spec(spec, {}, {setting: url if setting != "out" else f"{url}.csv"})
        assert "s3cret" not in str(error.value)
    with pytest.raises(UserError, match="without credentials"):
        build_spec(TrainTables, {}, {"data.join": [f"{url} on a"]})


@pytest.mark.parametrize("url", ["hf://datasets/org/name@main/data", "abfss://box@account/x", "https://h/a.csv?raw=1"])
def test_a_url_without_credentials_is_accepted(url):
    assert DataSpec(source=url).source == url


class _Quiet(http.server.SimpleHTTPRequestHandler):
    requests: ClassVar[list[str]] = []

    def log_message(self, *_: object) -> None:
        self.requests.append(self.requestline)


@pytest.fixture
def web(tmp_path) -> Iterator[tuple[str, Path]]:
    """Address and folder of a web server that lists its files."""
    pytest.importorskip("aiohttp")
    folder = tmp_path / "web"
    (folder / "photos/my cats").mkdir(parents=True)
    (folder / "photos/my cats/a.jpg").write_text("cat")
    (folder / "photos/b.jpg").write_text("dog")
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


def test_a_web_servers_file_and_folder_are_copied_once(web, tmp_path):
    address, _ = web
    assert mirror(f"{address}/photos/b.jpg", tmp_path / "copies").read_text() == "dog"
    folder = mirror(f"{address}/photos/", tmp_path / "copies")
    assert files_in(folder) == {"my cats/a.jpg": "cat", "b.jpg": "dog"}
    _Quiet.requests.clear()
    mirror(f"{address}/photos/", tmp_path / "copies")
    assert not [line for line in _Quiet.requests if line.startswith("GET") and ".jpg" in line]


def test_a_missing_file_of_a_web_server_is_one_line(web, tmp_path):
    with pytest.raises(UserError, match=r"nothing.csv does not exist, or may not be read$"):
        mirror(f"{web[0]}/nothing.csv", tmp_path)
