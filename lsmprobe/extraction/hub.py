"""A repository of the Hugging Face hub -> a folder on this disk whose files are what it lists."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsmprobe.errors import ModelError, nearest
from lsmprobe.progress import Progress, silent

PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")  # either says it
DESCRIPTIONS = ("config.json", *PREPROCESSORS, "adapter_config.json")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that is there is read
HASHES = {64: "SHA-256", 40: "SHA-1 of git"}  # hexadecimal digits -> which hash it is
TIMEOUT_S = 10.0  # for an answer, where an earlier download may serve as well
BLOCK = 2**20  # bytes that are hashed at once


@dataclass(frozen=True)
class Snapshot:
    """A commit of a repository on this disk, as far as it is needed."""

    hub_id: str
    folder: Path  # its name is the commit
    sha256: Mapping[str, str]  # of the files with weights

    @property
    def commit(self) -> str:
        """The commit, 40 hexadecimal digits."""
        return self.folder.name


def snapshot(
    hub_id: str,
    revision: str,
    *,
    weights: bool = True,
    extra: Sequence[str] = (),
    sha256: str | None = None,
    pinned: bool = False,
    progress: Progress = silent,
) -> Snapshot:
    """What is needed of a repository: downloaded, or as an earlier run left it.

    Args:
        hub_id: `owner/name`.
        revision: a commit, branch or tag.
        weights: or its descriptions alone.
        extra: further files that must be there.
        sha256: of the file with the weights, where that is known beforehand.
        pinned: the revision is a commit that is known to have no adapter beside its weights, so
            that the hub need not be asked again.
        progress: one bar over the bytes.

    Raises:
        ModelError: the hub does not have it, or is out of reach and the cache does not have it,
            or a file is not what the hub lists.
    """
    folder = in_cache(hub_id, revision, weights, (*extra, *PREPROCESSORS[:1])) if pinned else None
    if folder is None:
        try:
            commit, sizes = listing(hub_id, revision)
        except UnreachableError as error:
            folder = in_cache(hub_id, revision, weights, extra)
            if folder is None:
                raise ModelError(
                    f"{hub_id} at revision {revision} is not in the local cache, or not all that "
                    "is needed of it, and the Hugging Face hub cannot be reached. Connect once, "
                    "or give a local folder."
                ) from error
        else:
            names = wanted(hub_id, sizes, weights, extra)
            sizes = {name: sizes[name] for name in names}
            folder = download(hub_id, revision, commit, sizes, progress)
    files = [folder / name for name in (*DESCRIPTIONS, *extra) if (folder / name).exists()]
    for file in files:
        check(hub_id, file)
    held = weights_here(folder) or [] if weights else []
    return Snapshot(
        hub_id, folder, {file.name: check(hub_id, file, sha256) for file in held if file.exists()}
    )


class UnreachableError(Exception):
    """The hub does not answer, or it is not to be asked."""


def listing(hub_id: str, revision: str) -> tuple[str, dict[str, int]]:
    """The commit that a revision is, and its files with their bytes.

    Raises:
        ModelError: there is no such model or revision, or it is not for everybody.
        UnreachableError: the hub does not answer.
    """
    from huggingface_hub import HfApi

    with hub_errors(hub_id, revision):
        info = HfApi().model_info(hub_id, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
    return str(info.sha), {file.rfilename: file.size or 0 for file in info.siblings or []}


@contextmanager
def hub_errors(hub_id: str, revision: str) -> Iterator[None]:
    """What the hub refuses is a ModelError; whatever else goes wrong, UnreachableError."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except RevisionNotFoundError as error:
        raise ModelError(
            f"the Hugging Face hub has no revision {revision!r} of {hub_id}; expected a branch, "
            "a tag or a whole commit of it."
        ) from error
    except GatedRepoError as error:
        raise ModelError(is_gated(hub_id)) from error
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise ModelError(
            f"the Hugging Face hub has no model {hub_id}, or shows it only after `hf auth login`."
        ) from error
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            raise ModelError(is_gated(hub_id)) from error
        raise UnreachableError(str(error)) from error
    except Exception as error:  # being offline has many classes
        raise UnreachableError(str(error)) from error


def is_gated(hub_id: str) -> str:
    """What to do about a model that is not for everybody."""
    return (
        f"the Hugging Face hub does not give {hub_id} to everybody: ask for access on "
        f"https://huggingface.co/{hub_id}, then run `hf auth login` with a token that may read it."
    )


def wanted(
    hub_id: str, listed: Mapping[str, Any], weights: bool, extra: Sequence[str]
) -> list[str]:
    """The files to be fetched, of those that are listed; `config.json` comes last."""
    for name in extra:
        if name not in listed:
            kind = name.partition(".")[0]
            alike = [each for each in listed if each.startswith(f"{kind}.")]
            raise ModelError(f"{hub_id} has no file {name}; {nearest(name, alike)}")
    names = [*extra, *(name for name in DESCRIPTIONS if name in listed)]
    for name in WEIGHTS if weights else ():
        if name in listed:
            names.append(name)
            break
        if f"{name}.index.json" in listed:
            stem, suffix = name.split(".")
            shard = re.compile(rf"{stem}-\d+-of-\d+\.{suffix}")
            names += [f"{name}.index.json", *filter(shard.fullmatch, listed)]
            break
    return sorted(names, key=lambda name: name == "config.json")


def in_cache(hub_id: str, revision: str, weights: bool, names: Sequence[str]) -> Path | None:
    """The folder of an earlier download, if it has a config, `names` and all weights."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(hub_id, "config.json", revision=revision)
    except HFValidationError:
        return None
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    if any(not (folder / name).exists() for name in names):
        return None
    held = weights_here(folder) if weights else []
    return None if held is None or any(not file.exists() for file in held) else folder


def weights_here(folder: Path) -> list[Path] | None:
    """The file with the weights, or an index and the files that it names; None without either.

    Raises:
        ModelError: an index that is none, or that names no file of the folder.
    """
    for name in WEIGHTS:
        if (folder / name).exists():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.exists():
            try:
                shards = sorted({*json.loads(index.read_text("utf-8"))["weight_map"].values()})
                if all(Path(shard).name == shard for shard in shards):
                    return [index, *(folder / shard for shard in shards)]
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise ModelError(f"{index} is not an index of weights; fetch it again.") from error
            raise ModelError(f"{index} names files elsewhere; expected names of this folder.")
    return None


def download(
    hub_id: str, revision: str, commit: str, sizes: Mapping[str, int], progress: Progress
) -> Path:
    """Fetch files that are not in the cache; what has come of a file is kept if it breaks off.

    Raises:
        ModelError: the hub refuses, or the connection breaks.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    def is_here(name: str, revision: str) -> bool:
        found = try_to_load_from_cache(hub_id, name, revision=revision)
        return isinstance(found, str) and Path(found).parent.name == commit

    total = sum(size for name, size in sizes.items() if not is_here(name, commit))
    folders = set()
    shown = progress if total else silent
    with shown(total=total, unit="B", unit_scale=True, desc=hub_id) as bar:
        bars: Any = type("Bars", (Forwarding,), {"bar": bar})
        for name in sizes:
            # Asked for by branch or tag, the last file leaves a note of which commit that is.
            named = name == "config.json" and not is_here(name, revision)
            try:
                with hub_errors(hub_id, revision):
                    file = hf_hub_download(
                        hub_id, name, revision=revision if named else commit, tqdm_class=bars
                    )
            except UnreachableError as error:
                raise ModelError(
                    f"{name} of {hub_id} cannot be downloaded: {' '.join(str(error).split())[:200]}"
                    " What has come is kept; run the same command to continue."
                ) from error
            folders.add(Path(file).parent)
    if {folder.name for folder in folders} != {commit}:
        raise ModelError(
            f"{hub_id} has no config.json at commit {commit}, or changed meanwhile; run the same "
            "command again."
        )
    return folders.pop()


class Forwarding:
    """What huggingface_hub takes for a bar of its own: it moves `bar`, and is not shown."""

    bar: Any
    total = 0

    def __init__(self, *_: Any, initial: int = 0, **__: Any) -> None:
        self.bar.update(initial)

    def update(self, n: Any = 1) -> None:
        """So many bytes more, or fewer where a file is begun again."""
        self.bar.update(n)

    def update_transfer(self, n: Any = 1) -> None:
        """The same bytes, counted on their way."""

    def __enter__(self) -> "Forwarding":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def check(hub_id: str, file: Path, known: str | None = None) -> str:
    """The SHA-256 of a file, which has the hash under which the hub lists it.

    The hub's cache calls a file's content by that hash.

    Raises:
        ModelError: it has another one, or not the one that is `known` beforehand.
    """
    content = file.resolve()
    sha256, git = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    git.update(f"blob {content.stat().st_size}\0".encode())
    is_small = len(content.name) == 40
    with content.open("rb") as opened:
        while block := opened.read(BLOCK):
            sha256.update(block)
            if is_small:
                git.update(block)
    found = git.hexdigest() if is_small else sha256.hexdigest()
    again = f"hf download {hub_id} {file.name} --revision {file.parent.name} --force-download"
    is_hash = re.fullmatch(r"[0-9a-f]+", content.name) and len(content.name) in HASHES
    if is_hash and found != content.name:
        raise ModelError(
            f"{file.name} of {hub_id} is damaged on this disk: its {HASHES[len(found)]} is "
            f"{found[:16]}..., and the hub lists {content.name[:16]}.... Run: {again}"
        )
    if known and file.name in WEIGHTS and sha256.hexdigest() != known:
        raise ModelError(
            f"{file.name} of {hub_id} is not the file that is known under this name: its SHA-256 "
            f"is {sha256.hexdigest()[:16]}..., expected {known[:16]}.... Run: {again}"
        )
    return sha256.hexdigest()
