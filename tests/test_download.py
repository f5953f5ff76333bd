import hashlib
import io
import json
import random
import stat
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lsmprobe.corpora import download
from lsmprobe.corpora.download import download_links, download_record, unpack
from lsmprobe.errors import CorpusError


def zipped(members, method=zipfile.ZIP_STORED, **changes):
    """An archive of name -> content; `changes` are attributes of its members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            member = zipfile.ZipInfo(name)
            member.compress_type = method
            for attribute, value in changes.items():
                setattr(member, attribute, value)
            archive.writestr(member, content)
    return buffer.getvalue()


def tarred(members, mode="w:gz", **changes):
    """As `zipped`, a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for attribute, value in changes.items():
                setattr(member, attribute, value)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


GOOD = zipped({"wav/03a01Fa.wav": b"RIFF" * 1000, "wav/Colère/x.wav": b"RIFF"})


class Zenodo(ThreadingHTTPServer):
    """A stand-in on localhost: one record, whose files and manners the test decides."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files = {"emodb_2.0.zip": GOOD, "readme.txt": b"hello"}
        self.checksums = {}
        self.promised = {}  # name -> a Content-Length that is not kept
        self.api = None  # what the record answers instead
        self.asked = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        name = self.path.rpartition("/")[2].partition("?")[0]
        if self.path == "/api/records/17":
            body = self.server.api or json.dumps({"files": self._listing()}).encode()
        elif self.path.startswith("/records/17/files/") and name in self.server.files:
            body = self.server.files[name]
        else:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(self.server.promised.get(name, len(body))))
        self.end_headers()
        return self.wfile.write(body)

    def _listing(self):
        md5 = {name: hashlib.md5(content) for name, content in self.server.files.items()}
        stated = {name: f"md5:{each.hexdigest()}" for name, each in md5.items()}
        stated |= self.server.checksums
        return [{"key": name, "checksum": stated[name]} for name in self.server.files]

    def log_message(self, *args):
        pass


@pytest.fixture
def zenodo(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Zenodo() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(zenodo, folder, archives=r"\.zip$"):
    return download_record("17", archives, folder, server=zenodo.url)


def refused(zenodo, folder, **kwargs):
    """The message of the refusal, one line; nothing is left that could be taken for a corpus."""
    with pytest.raises(CorpusError) as caught:
        get(zenodo, folder, **kwargs)
    assert "\n" not in str(caught.value)
    assert not [path for path in folder.glob("*") if path.is_dir()]
    return str(caught.value)


def test_an_archive_is_downloaded_unpacked_and_its_checksum_kept(zenodo, tmp_path):
    folder = tmp_path / "data" / "emodb"
    assert get(zenodo, folder) == [folder / "emodb_2.0"]
    assert (folder / "emodb_2.0/wav/03a01Fa.wav").read_bytes() == b"RIFF" * 1000
    assert (folder / "emodb_2.0/wav/Colère/x.wav").exists()
    kept = (folder / "downloads.sha256").read_text()
    assert kept == f"{hashlib.sha256(GOOD).hexdigest()}  emodb_2.0.zip\n"
    assert sorted(path.name for path in folder.iterdir()) == ["downloads.sha256", "emodb_2.0"]


def test_what_is_there_is_not_downloaded_again(zenodo, tmp_path):
    get(zenodo, tmp_path)
    zenodo.asked.clear()
    get(zenodo, tmp_path)
    assert zenodo.asked == ["/api/records/17"]


def test_only_the_archives_asked_for(zenodo, tmp_path):
    zenodo.files = {"CaFE_48k.zip": GOOD, "CaFE_192k_1.zip": GOOD}
    assert get(zenodo, tmp_path, r"^CaFE_48k\.zip$") == [tmp_path / "CaFE_48k"]
    assert "no file like '^nothing$'" in refused(zenodo, tmp_path / "other", archives="^nothing$")


def test_a_broken_transfer_leaves_nothing_and_the_next_try_succeeds(zenodo, tmp_path):
    zenodo.promised["emodb_2.0.zip"] = len(GOOD) + 1000
    assert "cannot download" in refused(zenodo, tmp_path)
    assert list(tmp_path.iterdir()) == []
    zenodo.promised.clear()
    assert get(zenodo, tmp_path) == [tmp_path / "emodb_2.0"]


def test_what_a_killed_run_left_behind_is_cleared_away(zenodo, tmp_path):
    (tmp_path / ".download").mkdir()
    (tmp_path / ".download" / "archive.zip").write_bytes(b"half")
    (tmp_path / ".emodb_2.0.part").mkdir()
    get(zenodo, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["downloads.sha256", "emodb_2.0"]


def test_another_checksum_than_the_record_states_is_refused(zenodo, tmp_path):
    zenodo.checksums["emodb_2.0.zip"] = "md5:" + "0" * 32
    assert "arrived damaged" in refused(zenodo, tmp_path)
    assert not (tmp_path / "downloads.sha256").exists()


@pytest.mark.parametrize("stated", [True, False])
def test_another_archive_than_at_first_is_refused(stated, zenodo, tmp_path):
    if not stated:
        zenodo.checksums["emodb_2.0.zip"] = None
    (folder,) = get(zenodo, tmp_path)
    (folder / "wav/03a01Fa.wav").unlink()
    folder.rename(tmp_path.parent / f"{tmp_path.name}-moved")
    zenodo.files["emodb_2.0.zip"] = zipped({"wav/03a01Fa.wav": b"another"})
    assert "is not what was downloaded first" in refused(zenodo, tmp_path)
    zenodo.files["emodb_2.0.zip"] = GOOD
    get(zenodo, tmp_path)
    assert (tmp_path / "downloads.sha256").read_text().count("\n") == 1


@pytest.mark.parametrize(
    ("api", "said"),
    [
        (b"<html>busy</html>", "cannot reach"),
        (b"[]", "lists no files"),
        (b'{"files": [1]}', "lists no files"),
        (b'{"status": 404}', "lists no files"),
    ],
)
def test_a_record_that_does_not_answer_as_it_should(api, said, zenodo, tmp_path):
    zenodo.api = api
    assert said in refused(zenodo, tmp_path)


def test_no_server_and_no_record(zenodo, tmp_path):
    with pytest.raises(CorpusError, match="404"):
        download_record("18", "zip", tmp_path, server=zenodo.url)
    with pytest.raises(CorpusError, match="cannot reach"):
        download_record("17", "zip", tmp_path, server="http://127.0.0.1:9")


def test_a_name_in_the_record_that_leads_elsewhere_is_refused(zenodo, tmp_path):
    zenodo.api = json.dumps({"files": [{"key": "../x.zip", "checksum": None}]}).encode()
    assert "names a file '../x.zip'" in refused(zenodo, tmp_path)


def test_a_folder_that_cannot_be_written(zenodo, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CorpusError, match="cannot write to"):
        get(zenodo, tmp_path / "file")


def test_a_failure_leaves_no_folder_that_was_not_there_before(zenodo, tmp_path):
    zenodo.promised["emodb_2.0.zip"] = len(GOOD) + 1000
    refused(zenodo, tmp_path / "data" / "emodb")
    assert list(tmp_path.iterdir()) == []
    zenodo.promised.clear()
    zenodo.files["second.zip"] = b"not an archive"
    with pytest.raises(CorpusError, match=r"second\.zip is damaged"):
        get(zenodo, tmp_path / "data" / "emodb")
    assert (tmp_path / "data" / "emodb" / "emodb_2.0").is_dir(), "the first is complete, and stays"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("at", [0.02, 0.5, 0.8])
def test_damage_is_damage_however_a_member_is_packed(method, at, tmp_path):
    content = random.Random(0).randbytes(5000)
    data = bytearray(zipped({"a.wav": content}, method))
    (tmp_path / "a.zip").write_bytes(data)
    unpack(tmp_path / "a.zip", tmp_path / "a")
    assert (tmp_path / "a" / "a.wav").read_bytes() == content
    place = 40 + int(at * 5000)
    data[place : place + 20] = bytes(20)
    (tmp_path / "b.zip").write_bytes(data)
    with pytest.raises(CorpusError, match=r"b\.zip is damaged"):
        unpack(tmp_path / "b.zip", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_archives_by_their_address_are_kept_as_a_record_s_are(zenodo, tmp_path):
    tar = tarred({"./03a01Fa.wav": b"RIFF" * 1000})
    zenodo.files = {"archive.tar.gz": tar}
    links = {"bea_Amused.tar.gz": f"{zenodo.url}/records/17/files/archive.tar.gz"}
    assert download_links(links, tmp_path) == [tmp_path / "bea_Amused"]
    assert (tmp_path / "bea_Amused" / "03a01Fa.wav").read_bytes() == b"RIFF" * 1000
    kept = (tmp_path / "downloads.sha256").read_text()
    assert kept == f"{hashlib.sha256(tar).hexdigest()}  bea_Amused.tar.gz\n"
    zenodo.asked.clear()
    assert download_links(links, tmp_path) == [tmp_path / "bea_Amused"] and not zenodo.asked
    (tmp_path / "bea_Amused" / "03a01Fa.wav").unlink()
    (tmp_path / "bea_Amused").rmdir()
    zenodo.files = {"archive.tar.gz": tarred({"03a01Fa.wav": b"another"})}
    with pytest.raises(CorpusError, match="not what was downloaded first"):
        download_links(links, tmp_path)


def test_a_file_that_is_no_archive_is_taken_as_it_comes(zenodo, tmp_path):
    zenodo.files = {"metadata.csv": b"id|emotion\n", "run.exe": b"MZ"}
    links = {name: f"{zenodo.url}/records/17/files/{name}" for name in zenodo.files}
    labels = {"metadata.csv": links["metadata.csv"]}
    assert download_links(labels, tmp_path) == [tmp_path / "metadata.csv"]
    assert (tmp_path / "metadata.csv").read_bytes() == b"id|emotion\n"
    zenodo.asked.clear()
    download_links(labels, tmp_path)
    assert not zenodo.asked
    with pytest.raises(CorpusError, match=r"a file 'run.exe'; expected NAME\.zip"):
        download_links(links, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"metadata.csv", "downloads.sha256"}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_damaged_tar_is_damaged_however_it_is_packed(mode, tmp_path):
    archive = tmp_path / f"a.tar{mode.replace(':', '.')[1:]}"
    content = random.Random(0).randbytes(50_000)
    data = tarred({"a.wav": content, "b.wav": content[::-1]}, mode)
    archive.write_bytes(data)
    unpack(archive, tmp_path / "a")
    assert (tmp_path / "a" / "b.wav").read_bytes() == content[::-1]
    archive.write_bytes(data[:60_000])
    with pytest.raises(CorpusError, match="is damaged"):
        unpack(archive, tmp_path / "cut")
    assert not (tmp_path / "cut").exists()


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        (tarred({"a.wav": b"1", "../b.wav": b"2"}), "'../b.wav', which leads out"),
        (tarred({"/etc/b.wav": b"2"}), "which leads out"),
        (tarred({"link": b""}, type=tarfile.SYMTYPE, linkname="/etc"), "a link or a device"),
        (tarred({"link": b""}, type=tarfile.LNKTYPE, linkname="a.wav"), "a link or a device"),
        (tarred({"pipe": b""}, type=tarfile.FIFOTYPE), "a link or a device"),
        (tarred({"a.wav": bytes(2**20)}), "expected at most"),
        (b"<html>not here</html>", "is damaged"),
    ],
)
def test_a_tar_that_cannot_be_trusted_is_not_unpacked(archive, said, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 2**19)
    (tmp_path / "a.tgz").write_bytes(archive)
    with pytest.raises(CorpusError, match=said):
        unpack(tmp_path / "a.tgz", tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tgz"]


LINK = {"create_system": 3, "external_attr": (stat.S_IFLNK | 0o777) << 16}


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        (zipped({"a.wav": b"1", "../b.wav": b"2"}), "'../b.wav', which leads out"),
        (zipped({"a.wav": b"1", "/etc/b.wav": b"2"}), "which leads out"),
        (zipped({"wav\\..\\..\\b.wav": b"2"}), "which leads out"),
        (zipped({"link": b"/etc"}, **LINK), "a link or a device"),
        (zipped({"a": b"", "a/b.wav": b"2"}), "cannot write"),
        (zipped({"a.wav": bytes(2**20)}), "expected at most"),
        (zipped({f"{n}.wav": b"" for n in range(11)}), "expected at most"),
        (GOOD[: len(GOOD) // 2], "is damaged"),
        (GOOD.replace(b"RIFF", b"RIFX"), "is damaged"),
        (b"<html>not here</html>", "is damaged"),
        (b"", "is damaged"),
    ],
)
def test_an_archive_that_cannot_be_trusted_is_not_unpacked(
    archive, said, zenodo, tmp_path, monkeypatch
):
    monkeypatch.setattr(download, "MAX_FILES", 10)
    monkeypatch.setattr(download, "MAX_BYTES", 2**19)
    zenodo.files["emodb_2.0.zip"] = archive
    folder = tmp_path / "data"
    assert said in refused(zenodo, folder)
    assert not (tmp_path / "b.wav").exists()


def test_a_member_with_a_password_is_refused(tmp_path):
    data = bytearray(zipped({"a.wav": b"1"}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(CorpusError, match="needs a password"):
        unpack(tmp_path / "a.zip", tmp_path / "a")


def test_a_member_that_yields_more_than_it_declares_is_refused(tmp_path):
    data = zipped({"a.wav": bytes(10_000)})
    size = (10_000).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(data.replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(CorpusError, match="is damaged"):
        unpack(tmp_path / "a.zip", tmp_path / "a")
    assert not (tmp_path / "a").exists()
