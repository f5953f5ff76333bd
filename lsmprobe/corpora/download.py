"""Open corpora from Zenodo and elsewhere: pooch downloads and compares checksums.

Archives (zip, tar) are unpacked safely.

A folder under its final name is complete: whatever is cut short begins again from a clean start.
"""

import logging
import lzma
import re
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import quote

import pooch
import requests

from lsmprobe.errors import CorpusError, counted

ZENODO = "https://zenodo.org"
TIMEOUT_S = 60
MAX_FILES = 100_000  # in an archive
MAX_BYTES = 20 * 2**30  # in an archive, unpacked
SUFFIX = r"\.(zip|tgz|tar(\.(gz|bz2|xz))?)$"  # of an archive that can be unpacked
PLAIN = r"\.(csv|yaml|flac)$"  # of a file that is taken as it comes: labels, or one long recording
CHECKSUMS = "downloads.sha256"  # `sha256sum -c` reads it
DAMAGE = (  # what reading an archive raises; of bzip2 it may be an OSError without a number, too
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    ValueError,
)
log = logging.getLogger(__name__)


def download_record(
    record: str, archives: str, folder: str | Path, *, server: str = ZENODO
) -> list[Path]:
    """Download a record's archives and unpack each into a folder of its own below `folder`.

    What is there already is left alone. An archive is compared with the checksum that the record
    states, and with the one that its first download left in `downloads.sha256`.

    Args:
        record: the number of the record.
        archives: a regular expression that finds the names of its archives.
        folder: made if it is not there.
        server: where the records are.

    Returns:
        The unpacked folders.

    Raises:
        CorpusError: no connection, a broken transfer, another checksum, an archive that is damaged
            or cannot be trusted, no permission, a full disk.
    """
    folder = Path(folder)
    files = {name: md5 for name, md5 in _files(record, server) if re.search(archives, name)}
    if not files:
        raise CorpusError(f"{server}/records/{record} has no file like {archives!r} any more.")
    with _disk_faults(folder):
        return [
            _download(
                f"{server}/records/{record}/files/{quote(name)}?download=1", name, md5, folder
            )
            for name, md5 in files.items()
        ]


def download_links(links: Mapping[str, str], folder: str | Path) -> list[Path]:
    """As `download_record`, by name and address of each file, where no checksum is stated.

    A file that is no archive (`PLAIN`) is put into the folder as it comes.
    """
    folder = Path(folder)
    with _disk_faults(folder):
        return [_download(address, name, None, folder) for name, address in links.items()]


@contextmanager
def _disk_faults(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CorpusError(f"cannot write to {str(folder)!r}: {error.strerror or error}.") from error


def _files(record: str, server: str) -> list[tuple[str, str | None]]:
    """Name of each of the record's files, and its checksum, "md5:...", where it is stated."""
    address = f"{server}/api/records/{record}"
    try:
        answer = requests.get(address, timeout=TIMEOUT_S)
        answer.raise_for_status()
        return [(file["key"], file.get("checksum")) for file in answer.json()["files"]]
    except requests.RequestException as error:
        raise CorpusError(f"cannot reach {address}: {_reason(error)}. Try again later.") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"{address} lists no files; download them by hand.") from error


def _download(address: str, name: str, md5: str | None, folder: Path) -> Path:
    if not (re.match(r"\w[^/\\]*$", name) and re.search(f"{SUFFIX}|{PLAIN}", name)):
        raise CorpusError(
            f"{address} names a file {name!r}; expected NAME.zip, NAME.tgz or NAME.tar.gz."
        )
    target = folder / re.sub(SUFFIX, "", name)
    if target.exists():
        log.info("%s is there already; remove it to download it again", target)
        return target
    parts = folder / ".download"  # hidden, so that no half of it is ever read as a corpus
    shutil.rmtree(parts, ignore_errors=True)
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        parts.mkdir(parents=True)
        archive = parts / name
        _fetch(address, md5, archive)
        line = f"{pooch.file_hash(archive)}  {name}\n"
        is_new = _is_new(line, name, folder / CHECKSUMS)
        if re.search(SUFFIX, name):
            unpack(archive, target)
        else:
            archive.rename(target)
        if is_new:
            with (folder / CHECKSUMS).open("a", encoding="utf-8") as file:
                file.write(line)
    finally:
        shutil.rmtree(parts, ignore_errors=True)
        for place in made:
            with suppress(OSError):  # it is not empty: something was unpacked
                place.rmdir()
    return target


def _fetch(address: str, md5: str | None, archive: Path) -> None:
    pooch.get_logger().setLevel(logging.WARNING)
    loader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT_S)
    try:
        pooch.retrieve(address, md5, archive.name, archive.parent, downloader=loader)
    except requests.RequestException as error:
        raise CorpusError(f"cannot download {address}: {_reason(error)}. Try again.") from error
    except ValueError as error:
        raise CorpusError(f"{address} arrived damaged: {_reason(error)}. Try again.") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _is_new(line: str, name: str, checksums: Path) -> bool:
    """Whether this is the archive's first download; a later one must be the same."""
    known = checksums.read_text("utf-8").splitlines(keepends=True) if checksums.exists() else []
    first = next((each for each in known if each.endswith(f"  {name}\n")), None)
    if first not in (None, line):
        raise CorpusError(
            f"{name!r} is not what was downloaded first: its sha256 is {line[:12]}..., expected "
            f"{first[:12]}... If the new one is meant, remove {str(checksums)!r}."
        )
    return first is None


class _Member(NamedTuple):
    """What an archive says of one of its files."""

    name: str
    n_bytes: int
    fault: str  # what forbids to unpack it, if anything


def unpack(archive: Path, target: Path) -> None:
    """Unpack a zip or tar archive into a new folder, which appears when all of it is there.

    Raises:
        CorpusError: it is damaged, or has names that lead elsewhere, links, a password, or more
            files or bytes than a corpus has.
        OSError: the disk.
    """
    beside = target.with_name(f".{target.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with _zipped(archive) if archive.suffix == ".zip" else _tarred(archive) as opened:
            members, extract_to = opened
            _refuse_untrusted(archive.name, members)
            # A member yields at most the size it declares, then its checksum, if any, is compared.
            extract_to(beside)
        beside.rename(target)
    except (*DAMAGE, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # it is the disk's
        raise CorpusError(
            f"{archive.name} is damaged: {_reason(error)}. Download it again."
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


Opened = tuple[list[_Member], Callable[[Path], None]]  # its members, what unpacks them all


@contextmanager
def _zipped(archive: Path) -> Iterator[Opened]:
    with zipfile.ZipFile(archive) as opened:
        members = [
            _Member(
                each.filename,
                each.file_size,
                _fault(
                    each.filename,
                    is_plain=stat.S_IFMT(each.external_attr >> 16)
                    in (0, stat.S_IFREG, stat.S_IFDIR),
                    is_locked=bool(each.flag_bits & 1),
                ),
            )
            for each in opened.infolist()
        ]
        yield members, opened.extractall


@contextmanager
def _tarred(archive: Path) -> Iterator[Opened]:
    with tarfile.open(archive) as opened:
        if hasattr(tarfile, "data_filter"):  # from the security releases of each Python on
            opened.extraction_filter = tarfile.data_filter
        members = [
            _Member(each.name, each.size, _fault(each.name, is_plain=each.isreg() or each.isdir()))
            for each in opened.getmembers()
        ]
        yield members, opened.extractall


def _refuse_untrusted(name: str, members: list[_Member]) -> None:
    n_bytes = sum(member.n_bytes for member in members)
    if len(members) > MAX_FILES or n_bytes > MAX_BYTES:
        raise CorpusError(
            f"{name} holds {counted(len(members), 'file')} and {n_bytes / 2**30:.1f} GiB; "
            f"expected at most {MAX_FILES} and {MAX_BYTES / 2**30:.1f}. Not unpacked."
        )
    for member in members:
        if member.fault:
            raise CorpusError(
                f"{name} holds {member.name!r}, {member.fault}. Nothing was unpacked."
            )


def _fault(name: str, *, is_plain: bool, is_locked: bool = False) -> str:
    """What forbids to unpack a member, if anything."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        return "which leads out of the folder"
    if not is_plain:
        return "a link or a device"
    return "which needs a password" if is_locked else ""
