"""A run by a short name: part of its record's path, its run's or its experiment's number."""

from pathlib import Path

from lsmprobe.errors import ResultsError
from lsmprobe.results.records import load_record, load_results

SHOWN = 5  # of several that a name may mean


def find_run(name: str | Path, results_dir: Path) -> Path:
    """The record of one run.

    Args:
        name: its path; or words that all stand in its path below the folder, such as
            `emodb/linear-layer12-seed0` or the last twelve digits or the first of them.
        results_dir: where the records are.

    Raises:
        ResultsError: no record has that name, or several have.
    """
    found = find_runs(name, results_dir)
    if len(found) > 1:
        shown = ", ".join(_short(path, results_dir) for path in found[:SHOWN])
        more = ", ..." if len(found) > SHOWN else ""
        raise ResultsError(
            f"--run {name} may mean {len(found)} runs of {results_dir}: {shown}{more}. "
            "Name one of them; lsmprobe results ls lists what is there."
        )
    return found[0]


def find_runs(name: str | Path, results_dir: Path) -> list[Path]:
    """The records that a name means: one run, or all runs of an experiment.

    Args:
        name: as for `find_run`; also the number of an experiment, or its beginning.
        results_dir: where the records are.

    Raises:
        ResultsError: there is none.
    """
    asked = Path(name)
    if asked.is_file():
        return [asked]
    if not results_dir.is_dir():
        raise ResultsError(f"{name} is not a record, and {results_dir} is not a folder of results.")
    words = str(name).removesuffix(".json").split()
    splits = results_dir / "splits"
    paths = [path for path in sorted(results_dir.rglob("*.json")) if path.parent != splits]
    inside = {path: path.relative_to(results_dir).with_suffix("").as_posix() for path in paths}
    found = [path for path in paths if words and all(word in inside[path] for word in words)]
    found = [path for path in found if _is_record(path)]
    if not found and len(words) == 1:
        results = load_results(results_dir)
        found = [Path(p) for p in results.path[results.experiment.str.startswith(words[0])]]
    if not found:
        raise ResultsError(
            f"no run in {results_dir} has {str(name)!r} in its name; lsmprobe results ls lists "
            "what is there."
        )
    return found


def _is_record(path: Path) -> bool:
    try:
        load_record(path)
    except ResultsError:
        return False
    return True


def _short(path: Path, results_dir: Path) -> str:
    return path.relative_to(results_dir).with_suffix("").as_posix()
