"""``vlm3d-ct predict``: a trained model on scans without texts and labels."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from vlm3d_ct.cli.arguments import Commands, add_command
from vlm3d_ct.data.case import Case, MaskLabels
from vlm3d_ct.data.found_files import walk_nifti
from vlm3d_ct.data.masks import MaskFiles, find_masks
from vlm3d_ct.data.names import NIFTI_SUFFIX, volume_stem
from vlm3d_ct.errors import ConfigError, DataError, Problem
from vlm3d_ct.evaluation.prompt_scores import AGAINST, Against, ask, identity
from vlm3d_ct.evaluation.prompts import PromptTable, read_prompts, shipped_prompts
from vlm3d_ct.evaluation.results import write_csv
from vlm3d_ct.evaluation.tuned import TunedThresholds, load_thresholds
from vlm3d_ct.inference import Encoder, ScanEmbedding, embed_scans, load_encoder, save_scans
from vlm3d_ct.log import progress, say, warn

PREDICTIONS_FILE, EMBEDDINGS_FILE = "predictions.csv", "embeddings.npz"
FEW_SCANS = 4
"""Read sooner than processes are started for it."""
MASK_LABELS: tuple[MaskLabels, ...] = ("regions", "totalsegmentator", "totalsegmentator_v1")
MOST_PRINTED, MOST_CLASSES_PRINTED = 5, 5
EXAMPLE = """vlm3d-ct predict scan.nii.gz --checkpoint exp_log/finetune/checkpoint_best.pth --output_dir exp_log/scan
  vlm3d-ct predict scans/ --masks masks/ --against regions --thresholds exp_log/zero_shot/thresholds.json \\
      --checkpoint exp_log/finetune/checkpoint_best.pth --output_dir exp_log/scans"""


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Register the command."""
    summary = "Say of scans without texts and labels what prompts find in them, and embed them."
    parser = add_command(commands, "predict", summary, EXAMPLE)
    parser.add_argument("scans", nargs="+", metavar="SCAN", help=f"{NIFTI_SUFFIX} file in HU, or folder of such files")
    parser.add_argument("--checkpoint", required=True, metavar="FILE")
    parser.add_argument(
        "--output_dir", required=True, metavar="DIR", help=f"for {PREDICTIONS_FILE} and {EMBEDDINGS_FILE}"
    )
    parser.add_argument(
        "--masks",
        metavar="DIR",
        help="region masks named like the scans: a file of ids, or a folder of structures for each; the regions of "
        "other scans are predicted",
    )
    parser.add_argument(
        "--mask_labels",
        choices=MASK_LABELS,
        default="regions",
        help="what the ids in files of masks mean (default: those of the region table)",
    )
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="CSV with the columns class, wording, positive, negative, one row a wording (default: the 18 "
        "abnormalities of CT-RATE)",
    )
    parser.add_argument(
        "--against",
        choices=AGAINST,
        default="volume",
        help="what prompts are held against: the whole volume, or the regions that they speak of, the best of which "
        "counts, for models that were trained with objective.sentence_region_weight",
    )
    parser.add_argument(
        "--thresholds",
        metavar="FILE",
        help="thresholds.json of `evaluate zero-shot --validation_dir`: adds yes or no for each class",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=min(8, os.cpu_count() or 1),
        metavar="N",
        help="processes that read scans (default: cores, at most 8)",
    )
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Run the command. What can be read is predicted and written; faults of other scans are raised afterwards."""
    prompts = read_prompts(Path(parsed.prompts)) if parsed.prompts else shipped_prompts("ct_rate")
    thresholds = load_thresholds(Path(parsed.thresholds)) if parsed.thresholds else None
    encoder = load_encoder(parsed.checkpoint)
    if thresholds is not None:
        weights = encoder.provenance["checkpoint_weights_sha256"]
        thresholds.check(weights, identity(prompts, parsed.against), (), parsed.thresholds)
    cases, problems = find_scans([Path(name) for name in parsed.scans], parsed.masks, parsed.mask_labels)
    found: dict[str, ScanEmbedding] = {}
    workers = parsed.workers if len(cases) > FEW_SCANS else 0
    with progress("Embedding", total=len(cases)) as ticker:
        for case, result in embed_scans(encoder, cases, workers):
            if isinstance(result, DataError):
                problems += result.problems
            else:
                found[case.case_id] = result
            ticker.advance()
    ordered = {case.case_id: found[case.case_id] for case in cases if case.case_id in found}
    if ordered:
        _write(Path(parsed.output_dir), ordered, prompts, thresholds, encoder, parsed.against)
    if problems:
        say(f"{len(ordered)} of {len(cases)} scans were predicted")
        raise DataError(problems)
    return 0


def find_scans(paths: Sequence[Path], masks: str | None, mask_labels: MaskLabels) -> tuple[list[Case], list[Problem]]:
    """The scans that files and folders name, each with its mask where there is one, and what is wrong with the names.

    Raises:
        ConfigError: a path is not there, there is no scan, two scans have one name, or no mask belongs to a scan.
    """
    files, problems = [], []
    for path in paths:
        if path.is_dir():
            items = list(walk_nifti(path))
            problems += [item for item in items if isinstance(item, Problem)]
            files += [item for item in items if isinstance(item, Path)]
        elif path.exists():
            files.append(path)
        else:
            raise ConfigError(f"{path}: is neither a file nor a folder. Give {NIFTI_SUFFIX} files, or folders of them.")
    by_name: dict[str, Path] = {}
    for file in files:
        known = by_name.setdefault(volume_stem(file.name).casefold(), file)
        if known.resolve() != file.resolve():
            raise ConfigError(f"{file}: another scan has the same name. Predict the two into two --output_dir.")
    if not by_name:
        raise ConfigError(f"{', '.join(map(str, paths))}: no {NIFTI_SUFFIX} file is there. Give scans or their folder.")
    of_scans: Mapping[str, MaskFiles] = {}
    if masks is not None:
        if not Path(masks).is_dir():
            raise ConfigError(f"--masks {masks}: is not a folder. Give the folder with a mask named like each scan.")
        of_scans, faults = find_masks(Path(masks), by_name, mask_labels)
        problems += faults
        used = of_scans.keys() & by_name.keys()
        if not used:
            names = ", ".join([*of_scans, *(fault.file for fault in faults)][:3]) or "nothing"
            raise ConfigError(f"--masks {masks}: holds {names}, and no mask named like {next(iter(by_name))}.")
        say(f"{len(used)} of {len(by_name)} scans have a mask; the regions of the others are predicted")
        if others := sorted(of_scans.keys() - used):
            warn(f"{len(others)} masks are named like no scan, such as {', '.join(others[:3])}")
    none = MaskFiles((), "regions")
    cases = [
        Case(
            case_id=volume_stem(file.name),
            patient_id=volume_stem(file.name),
            kind="volume",
            image_paths=(file,),
            mask_paths=of_scans.get(name, none).paths,
            mask_labels=of_scans.get(name, none).labels,
            reports=(),
        )
        for name, file in by_name.items()
    ]
    return cases, problems


def _write(
    output_dir: Path,
    found: Mapping[str, ScanEmbedding],
    prompts: PromptTable,
    thresholds: TunedThresholds | None,
    encoder: Encoder,
    against: Against,
) -> None:
    volume, regions = (np.stack([getattr(each, part) for each in found.values()]) for part in ("volume", "regions"))
    scores = ask(encoder, prompts, against, volume, regions)
    probabilities, margins = scores.probabilities("ensemble"), scores.margins["ensemble"]
    header = ["scan", *prompts.classes, *(f"margin {name}" for name in prompts.classes)]
    rows: list[list[object]] = [
        [name, *map(float, probabilities[row]), *map(float, margins[row])] for row, name in enumerate(found)
    ]
    if thresholds is not None:
        cuts = np.array([thresholds.values["ensemble"].get(name, np.nan) for name in prompts.classes])
        header += [f"present {name}" for name in prompts.classes]
        for row, values in zip(rows, probabilities, strict=True):
            row += ["" if np.isnan(cut) else int(value >= cut) for value, cut in zip(values, cuts, strict=True)]
    write_csv(output_dir / PREDICTIONS_FILE, header, rows)
    settings = {"against": against, "prompts": scores.identity}
    save_scans(output_dir / EMBEDDINGS_FILE, found, encoder.provenance | settings)
    for line in _most_likely(found, prompts, probabilities):
        say(line)
    say(f"{len(found)} scans: {output_dir / PREDICTIONS_FILE}, {output_dir / EMBEDDINGS_FILE}")


def _most_likely(found: Mapping[str, ScanEmbedding], prompts: PromptTable, probabilities: np.ndarray) -> Iterator[str]:
    """The first few scans with the classes that are most likely in them."""
    for name, values in list(zip(found, probabilities, strict=True))[:MOST_PRINTED]:
        places = np.argsort(-values, kind="stable")[:MOST_CLASSES_PRINTED]
        yield f"{name}: " + ", ".join(f"{prompts.classes[place]} {values[place]:.2f}" for place in places)
