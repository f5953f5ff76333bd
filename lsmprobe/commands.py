"""What each command does and prints; its flags are a dataclass of config.py.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lsmprobe.config import (
    AuditConfig,
    BaselineCommand,
    BaselineConfig,
    CacheInfoConfig,
    CheckCorpusConfig,
    DemoConfig,
    ExportCacheConfig,
    ExtractGridConfig,
    FindResultsConfig,
    GetCorpusConfig,
    ImportSplitConfig,
    ListCachesConfig,
    ListCorporaConfig,
    ListResultsConfig,
    MakeSplitConfig,
    MergeCacheConfig,
    PredictConfig,
    ProbeCommand,
    ProbeConfig,
    PruneCachesConfig,
    ReportConfig,
    ScoresConfig,
    SensitivityCommand,
    SensitivityConfig,
    SlurmScriptConfig,
    SplitConfig,
    Table1Config,
    TransferCommand,
    TransferConfig,
    VerifyCacheConfig,
    as_kind,
    label_map,
)
from lsmprobe.errors import LsmprobeError, counted, one_line
from lsmprobe.progress import terminal

LEAKS = {
    "speaker": "speakers",
    "sentence": "sentences",
    "sha256": "identical audio",
    "recording": "audio that is equal up to gain or trimmed silence",
}
Run = Callable[[Any], int | None]


def extract_command(config: ExtractGridConfig) -> int:
    """Run stage 1, print a summary of each model and corpus and what failed; 0 if nothing did."""
    from lsmprobe.extraction.grid import extract_all
    from lsmprobe.extraction.rehearsal import dry_run, selftest
    from lsmprobe.extraction.stage import extract

    if config.dry_run or config.selftest:
        for cell in config.cells:
            print((dry_run if config.dry_run else selftest)(cell))
        return 0
    if config.cluster:
        from lsmprobe.cluster.stages import extract_on

        summaries, failures = extract_on(
            config.cluster, config.cells, parts=config.parts, flags=config, progress=terminal
        )
        print(*summaries, sep="\n", flush=True)
        return _print_failures(failures)
    if len(config.cells) == 1:
        print(extract(config.cells[0], progress=terminal))
        return 0
    summaries, failures = extract_all(config.cells, progress=terminal)
    print(*summaries, sep="\n", flush=True)
    return _print_failures(failures)


def _trained_elsewhere(config: Any, kind: type) -> tuple[frozenset[Path] | None, dict[str, Any]]:
    """With --cluster, have the records made there: then none is to be made here; what failed."""
    if not config.cluster:
        return None, {}
    from lsmprobe.cluster.stages import train_on

    failures = train_on(config.cluster, as_kind(config, kind), flags=config, progress=terminal)
    return frozenset(), failures


def probe_command(config: ProbeCommand) -> int:
    """Run stage 2 and print its scores and what failed; 0 if nothing did.

    A sweep over the layers ends with its curves drawn, and the layers that validation chooses.
    """
    from lsmprobe.probing.stage import probe_all

    only, failed = _trained_elsewhere(config, ProbeConfig)
    results, failures = probe_all(config, progress=terminal, only=only)
    more = ""
    if config.layer == "all" and len(results):
        from lsmprobe.report.sweep import format_sweeps  # which takes a second to import

        more = format_sweeps(results, config.results_dir)
    return _print_scores(results, failed | failures, config.results_dir, more)


def _print_scores(
    results: Any, failures: dict[str, Exception], results_dir: Path, more: str = ""
) -> int:
    """The scores on standard output, what failed on standard error; the exit status."""
    from lsmprobe.report.score_lines import format_scores

    if len(results):
        print(format_scores(results))
        if more:
            print(more)
        print(f"records: {results_dir}", flush=True)
    return _print_failures(failures)


def _print_failures(failures: dict[str, Exception], of: str = "") -> int:
    for what, error in failures.items():
        print(one_line(f"lsmprobe: {of}{what}: {error}"), file=sys.stderr)
    return 1 if failures else 0


def sensitivity_command(config: SensitivityCommand) -> int:
    """Flip the open choices one at a time, print and write what moved; 0 if nothing failed."""
    from lsmprobe.experiments.sensitivity import flip_choices

    only, failed = _trained_elsewhere(config, SensitivityConfig)
    n_failed = _print_failures(failed)
    for found in flip_choices(config, progress=terminal, only=only):
        from lsmprobe.report.sensitivity import format_sensitivity, save_sensitivity

        print(format_sensitivity(found), end="\n\n")
        print(save_sensitivity(found, config.results_dir / "sensitivity"), flush=True)
        n_failed += _print_failures(found.failures, of=f"{found.model} on {found.corpus}, ")
    return 1 if n_failed else 0


def baseline_command(config: BaselineCommand) -> int:
    """Train the baseline, print its scores and what failed; 0 if nothing did."""
    from lsmprobe.experiments.baseline import baseline_all

    only, failed = _trained_elsewhere(config, BaselineConfig)
    results, failures = baseline_all(config, progress=terminal, only=only)
    return _print_scores(results, failed | failures, config.results_dir)


def transfer_command(config: TransferCommand) -> int:
    """Train across corpora, print and write the scores, and what failed; 0 if nothing did."""
    from lsmprobe.experiments.transfers import transfer_all

    only, failed = _trained_elsewhere(config, TransferConfig)
    table, failures = transfer_all(config, progress=terminal, only=only)
    failures = failed | failures
    if len(table):
        from lsmprobe.report.transfer import format_transfer, save_transfer

        print(format_transfer(table), end="\n\n")
        print(*save_transfer(table, config.results_dir / "transfer"), sep="\n", flush=True)
    return _print_failures(failures)


def predict_command(config: PredictConfig) -> None:
    """Print label and probabilities of audio files."""
    import json

    from lsmprobe.experiments.prediction import as_json, predict
    from lsmprobe.results.find import find_run

    run = find_run(config.run, config.results_dir)
    table = predict(run, config.files, model=config.model, device=config.device)
    if config.json:
        print(json.dumps(as_json(table), indent=1))
    else:
        print(table.to_string(index=False, float_format="{:.3f}".format))


def scores_command(config: ScoresConfig) -> None:
    """Break the scores of runs down, print them and write them."""
    from lsmprobe.report.recorded_caches import Caches
    from lsmprobe.report.scores_of_run import (
        experiments_named,
        format_items,
        items_of_runs,
        save_scores,
    )

    caches = Caches(config.cache_dir)
    for records in experiments_named(config.runs, config.results_dir):
        name = records[0]["experiment"]
        folder = (config.out or config.results_dir / "scores") / name
        items = items_of_runs(records, caches=caches, by=config.by, folder=folder)
        print(format_items(items), end="\n\n")
        print(save_scores(items, folder), flush=True)


def list_results_command(config: ListResultsConfig) -> None:
    """Print the experiments of a folder."""
    from lsmprobe.report.recorded_caches import Caches
    from lsmprobe.report.results_list import list_lines

    results = Caches(config.cache_dir).told_results(config.results_dir)
    if results.empty:
        raise LsmprobeError(
            f"{config.results_dir} holds no readable record; run lsmprobe probe first."
        )
    print(*map(one_line, list_lines(results)), sep="\n")


def find_results_command(config: FindResultsConfig) -> None:
    """Print the records that a name means."""
    from lsmprobe.results.find import find_runs

    print(*find_runs(config.name, config.results_dir), sep="\n")


def report_command(config: ReportConfig) -> None:
    """Print what the records answer and write it, or write the page."""
    from lsmprobe.report.make import make_report, write_page

    print(write_page(config) if config.html else make_report(config))


def demo_command(config: DemoConfig) -> None:
    """Run both stages on the embedded default."""
    from lsmprobe.demo import run_demo

    run_demo(config)


def list_corpora_command(config: ListCorporaConfig) -> None:
    """Print the table of corpora."""
    from lsmprobe.corpora.check import list_corpora

    for group, rows in list_corpora(config.filter).groupby(config.by):
        print(group)
        for row in rows.itertuples():
            clips = counted(row.clips, "clip") if row.clips else "? clips"
            speakers = counted(row.speakers, "speaker") if row.speakers else "? speakers"
            print(f"  {row.name:18} {row.language}, {clips}, {speakers}")
            for line in (row.emotions, f"{row.licence}; {row.obtain}"):
                print(f"  {'':18} {line}")


def check_corpus_command(config: CheckCorpusConfig) -> int:
    """Print what a corpus holds; 0 if nothing is missing, unusable or mistaken."""
    from lsmprobe.corpora.check import check_corpus

    if config.json and not config.json.parent.is_dir():
        raise LsmprobeError(f"--json {config.json}: there is no such folder to write it into.")
    report = check_corpus(config.name, **config.reading)
    print(*report.lines(), sep="\n")
    if config.json:
        config.json.write_text(report.to_json() + "\n", encoding="utf-8")
    return 0 if report.is_complete else 1


def get_corpus_command(config: GetCorpusConfig) -> None:
    """Download a corpus, or say how it is obtained."""
    from lsmprobe.corpora.download import download_links, download_record
    from lsmprobe.corpora.read import corpus_folder, known_corpus

    corpus = known_corpus(config.name)
    if corpus.can_be_fetched:
        folder = corpus_folder(config.name, config.data_dir)
        unpacked = (
            download_record(corpus.zenodo, corpus.archives, folder)
            if corpus.zenodo
            else download_links(corpus.links, folder)
        )
        print(*unpacked, sep="\n")
        print(f"licence: {corpus.licence}; cite: {corpus.source}")
    elif config.name == "toy":
        print("toy is made from a seed when lsmprobe extract --dataset toy runs")
    else:
        print(f"{corpus.title} cannot be fetched by a program: {corpus.obtain}")


def table1_command(_: Table1Config) -> None:
    """Print Table 1, the paper's numbers compared with those of the copies."""
    from lsmprobe.report.table1 import table1

    table = table1()
    shown = table[["dataset", "language"]].assign(
        clips=table.clips.map(lambda n: n or "-"), paper=table.paper_clips
    )
    print(shown.to_string(index=False), end="\n\n")
    for row in table.itertuples():
        print(f"{row.dataset}: {row.note}. Emotions: {row.emotions or '-'}.", end=" ")
        print(f"In the paper: {row.paper_emotions}.")


def audit_command(config: AuditConfig) -> int:
    """Print what the parts of a split share; 0 if no speaker and no audio leaks."""
    from lsmprobe.corpora.overlap import stated_overlaps
    from lsmprobe.corpora.table import CORPORA
    from lsmprobe.splits.audit import audit_split, warnings_of
    from lsmprobe.splits.kinds import make_split

    damaged = CORPORA[config.dataset].damaged if config.dataset in CORPORA else frozenset()
    utterances = _utterances(config)
    table = audit_split(config.split, utterances, seed=config.split_seed, damaged=damaged)
    split = make_split(config.split, utterances, seed=config.split_seed)
    _print_shares(split, utterances)
    print(*[f"warning: {each}." for each in split.notes], sep="\n", end="\n" if split.notes else "")
    for warning in warnings_of(utterances):
        print(f"warning: {warning}")
    for fact in stated_overlaps(config.corpus_name(config.dataset)):
        print(f"across corpora: {fact}")
    for column, what in LEAKS.items():
        compared = table[table.column == column]
        shared = compared[compared.shared > 0]
        found = "yes" if len(shared) else "none" if len(compared) else "not known"
        print(f"{what} in more than one part: {found}")
        for row in shared.itertuples():
            shown = ", ".join(row.values[:3]) + (", ..." if row.shared > 3 else "")
            fold = f"fold {row.fold}, " if len(split.folds) > 1 else ""
            print(f"  {fold}{row.parts}: {row.shared} ({shown})")
    leaks = table[(table.column != "sentence") & (table.shared > 0)]
    print("this split leaks" if len(leaks) else "no speaker and no audio is in two parts")
    return 1 if len(leaks) else 0


def make_split_command(config: MakeSplitConfig) -> None:
    """Save a split and print its sizes."""
    from lsmprobe.splits.file import save_split
    from lsmprobe.splits.kinds import make_split

    utterances = _utterances(config)
    split = make_split(config.split, utterances, seed=config.split_seed)
    save_split(config.out, split, utterances.key)
    _print_split(split, utterances, config.out)


def import_split_command(config: ImportSplitConfig) -> None:
    """Save a published split, and print its sizes and what it shares."""
    from dataclasses import replace

    from lsmprobe.splits.file import save_split
    from lsmprobe.splits.kinds import make_split
    from lsmprobe.splits.published import SOURCES, import_split

    row = SOURCES.get(config.source)
    named_by_place = config.dataset.startswith(("folder:", "audformat:"))
    if row is not None and row.reads_corpus and not config.data_dir and not named_by_place:
        config = replace(config, data_dir=config.folder)
    utterances = _utterances(config)
    split = import_split(config.source, config.folder, config.dataset, utterances, fold=config.fold)
    save_split(config.out, split, utterances.key)
    print(f"{split.source}:")
    _print_split(make_split(str(config.out), utterances), utterances, config.out)
    print(f"Run lsmprobe splits audit {config.out} {config.dataset} to compare the audio as well.")


def _print_split(split: Any, utterances: Any, path: Path) -> None:
    """The sizes of its parts, their emotions, what is to be said of it, and where it is."""
    from lsmprobe.splits.audit import warnings_of
    from lsmprobe.splits.file import parts_of

    for number, fold in enumerate(split.folds):
        sizes = ", ".join(
            f"{part} {counted(len(rows), 'clip')} by "
            f"{counted(utterances.speaker.iloc[rows].nunique(), 'speaker')}"
            for part, rows in parts_of(fold).items()
        )
        print(f"fold {number}: {sizes}" if len(split.folds) > 1 else sizes)
    _print_shares(split, utterances)
    print(*dict.fromkeys([*split.notes, *warnings_of(utterances)]), f"written: {path}", sep="\n")


def _print_shares(split: Any, utterances: Any) -> None:
    """The emotions of each part in percent, a line each; of several folds those of the tests."""
    from lsmprobe.splits.audit import emotion_shares

    table = emotion_shares(split, utterances)
    if many := len(split.folds) > 1:
        table = table[~table.part.isin(["train", "validation"])]
    for (fold, part), rows in table.groupby(["fold", "part"], sort=False):
        shares = ", ".join(f"{row.emotion} {row.percent:.0f}%" for row in rows.itertuples())
        print(f"{f'fold {fold}, ' if many else ''}{part}: {shares}")


def _utterances(config: SplitConfig | ImportSplitConfig) -> Any:
    """Of a corpus; where its files are not here, or the name is a cache's alone, of the cache."""
    from lsmprobe.cache.parts import cache_paths, names_of
    from lsmprobe.cache.reader import FeatureCache
    from lsmprobe.corpora.read import has_files, read_corpus
    from lsmprobe.probing.task import chosen

    caches = [path for path in cache_paths(config.cache_dir) if names_of(path)[1] == config.dataset]
    if not caches or config.data_dir or has_files(config.dataset):
        return read_corpus(config.dataset, **config.reading)
    print(one_line(f"{config.dataset}: the utterances of {caches[0]}"), file=sys.stderr)
    return chosen(FeatureCache(caches[0]).utterances, label_map(config.map), config.emotions)


def list_caches_command(config: ListCachesConfig) -> None:
    """Print the caches of a folder."""
    from lsmprobe.cache.catalogue import array_expression, list_caches, unfinished_caches

    if config.missing:
        for found in unfinished_caches(config.cache_dir):
            for file, why in found.files.items():
                print(one_line(f"{file}: {why}"))
            if found.parts:
                print(f"--array={array_expression(found.parts)} of --part I/{found.of}")
        return
    table = list_caches(config.cache_dir)
    if table.empty:
        raise LsmprobeError(f"{config.cache_dir} holds no cache; run lsmprobe extract first.")
    shown = table.round(3).map(lambda value: one_line(str(value))).mask(table.isna(), "-")
    print(shown.to_string(index=False))


def cache_info_command(config: CacheInfoConfig) -> None:
    """Print what a cache says about itself."""
    from lsmprobe.cache.catalogue import cache_info

    for name, value in cache_info(config.path).items():
        print(one_line(f"{name:22} {'-' if value is None else value}"))


def verify_cache_command(config: VerifyCacheConfig) -> int:
    """Compare checksums and print what is damaged; 0 if nothing is."""
    from lsmprobe.cache.catalogue import named_caches
    from lsmprobe.cache.verify import verify_cache

    n_bad = 0
    for path in named_caches(config.paths, config.cache_dir):
        try:
            found = verify_cache(path, repair=config.repair, progress=terminal)
        except LsmprobeError as error:
            print(one_line(str(error)))
            n_bad += 1
            continue
        print(found)
        n_bad += bool(found.damaged)
        if found.damaged and config.repair:
            print("  marked for extraction: run lsmprobe extract again")
    return 1 if n_bad else 0


def merge_cache_command(config: MergeCacheConfig) -> None:
    """Merge the parts of a cache."""
    from lsmprobe.cache.merge import merge_cache

    merge_cache(config.path, remove_parts=config.remove_parts, progress=terminal)
    removed = " and its parts removed" if config.remove_parts else ""
    print(one_line(f"{config.path}: merged{removed}"))


def prune_caches_command(config: PruneCachesConfig) -> None:
    """Print what may be removed, and with --yes remove it."""
    from lsmprobe.cache.parts import remove_file
    from lsmprobe.cache.prune import prunable, prunable_in

    if config.paths and Path("all") not in config.paths:
        found = {f: why for path in config.paths for f, why in prunable(path, named=True).items()}
    else:
        found = prunable_in(config.cache_dir)
    for file, why in found.items():
        print(one_line(f"{file}: {why} ({file.stat().st_size / 1e9:.3f} GB)"))
        if config.yes:
            remove_file(file)
    if not found:
        print("nothing to remove")
    else:
        would = "removed" if config.yes else "would be removed; add --yes"
        print(f"{counted(len(found), 'file')} {would}")


def export_cache_command(config: ExportCacheConfig) -> None:
    """Write features for other programs."""
    from lsmprobe.cache.export import export_cache

    print(one_line(export_cache(config.path, config.out, layer=config.layer, frames=config.frames)))


def slurm_script_command(config: SlurmScriptConfig) -> None:
    """Print a job file."""
    from lsmprobe.cluster.slurm_script import slurm_script

    print(slurm_script(config), end="")


COMMANDS: dict[str, tuple[type, Run]] = {
    "extract": (ExtractGridConfig, extract_command),
    "probe": (ProbeCommand, probe_command),
    "baseline": (BaselineCommand, baseline_command),
    "sensitivity": (SensitivityCommand, sensitivity_command),
    "transfer": (TransferCommand, transfer_command),
    "scores": (ScoresConfig, scores_command),
    "predict": (PredictConfig, predict_command),
    "report": (ReportConfig, report_command),
    "demo": (DemoConfig, demo_command),
}


GROUPS: dict[str, tuple[str, dict[str, tuple[type, Run]]]] = {
    "corpora": (
        "The corpora: list them, check a copy, download one, compare with the paper's Table 1.",
        {
            "list": (ListCorporaConfig, list_corpora_command),
            "check": (CheckCorpusConfig, check_corpus_command),
            "get": (GetCorpusConfig, get_corpus_command),
            "table1": (Table1Config, table1_command),
        },
    ),
    "slurm-script": (
        "The job file of a Slurm array, to be handed to sbatch.",
        {"extract": (SlurmScriptConfig, slurm_script_command)},
    ),
    "splits": (
        "Splits: make one, take over a published one, or ask what train and test share.",
        {
            "audit": (AuditConfig, audit_command),
            "make": (MakeSplitConfig, make_split_command),
            "import": (ImportSplitConfig, import_split_command),
        },
    ),
    "results": (
        "Results: list the experiments of a folder, or find the records that a name means.",
        {
            "ls": (ListResultsConfig, list_results_command),
            "find": (FindResultsConfig, find_results_command),
        },
    ),
    "cache": (
        "Caches: list them, check, repair and merge them, tidy up, or export features.",
        {
            "ls": (ListCachesConfig, list_caches_command),
            "info": (CacheInfoConfig, cache_info_command),
            "verify": (VerifyCacheConfig, verify_cache_command),
            "merge": (MergeCacheConfig, merge_cache_command),
            "prune": (PruneCachesConfig, prune_caches_command),
            "export": (ExportCacheConfig, export_cache_command),
        },
    ),
}
