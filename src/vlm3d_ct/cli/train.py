"""``vlm3d-ct train``, also reached as ``training/train.py``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch

from vlm3d_ct.cli.arguments import Commands, add_command, add_config_flags, read_config
from vlm3d_ct.config import Config
from vlm3d_ct.data.dataset import CaseDataset
from vlm3d_ct.evaluation.retrieval import measure_retrieval
from vlm3d_ct.inference import embed_cases
from vlm3d_ct.models import VisionLanguageModel
from vlm3d_ct.training.run import train
from vlm3d_ct.training.trainer import Stopping, Validate

EXAMPLE = (
    "torchrun --nproc_per_node=2 training/train.py --config configs/pretrain_ctrate.yaml \\\n"
    "      --output_dir exp_log/pretrain --num_epochs 50 --batch_size 8 --lr 1e-4 --fp16"
)


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = add_command(commands, "train", "Train one stage; started again it continues where it stopped.", EXAMPLE)
    add_config_flags(parser)
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="checkpoints and metrics of this stage")
    parser.add_argument(
        "--resume",
        metavar="CHECKPOINT",
        help="of the same stage: continue it; of another stage: start this one with its weights",
    )
    parser.add_argument(
        "--allow_changes",
        type=lambda keys: frozenset(keys.split(",")),
        default=frozenset(),
        metavar="KEY[,KEY]",
        help="settings (training.lr, say) that may differ from those of the run that is continued",
    )
    parser.add_argument("--num_epochs", type=int, help="training.num_epochs")
    parser.add_argument("--batch_size", type=int, help="training.batch_size, pairs per rank and micro-batch")
    parser.add_argument("--lr", type=float, help="training.lr")
    parser.add_argument("--seed", type=int, help="seed")
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument("--fp16", dest="precision", action="store_const", const="fp16", help="mixed fp16")
    precision.add_argument("--bf16", dest="precision", action="store_const", const="bf16", help="mixed bf16")
    # torch.distributed.launch passes it; the environment says the same
    parser.add_argument("--local-rank", "--local_rank", type=int, help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    config = read_config(
        parsed,
        ("training.num_epochs", parsed.num_epochs),
        ("training.batch_size", parsed.batch_size),
        ("training.lr", parsed.lr),
        ("training.precision", parsed.precision),
        ("seed", parsed.seed),
    )
    resume = None if parsed.resume is None else Path(parsed.resume)
    train(config, Path(parsed.output_dir), resume, make_validate, parsed.allow_changes)
    return 0


def make_validate(config: Config, dataset: CaseDataset, device: torch.device) -> Validate:
    """Retrieval and region alignment on the held-out patients; ``score`` is the mean of both directions' MRR."""

    def validate(model: VisionLanguageModel, stopping: Stopping) -> Mapping[str, float]:
        embeddings = embed_cases(model, config, dataset, device, provenance={}, stopping=stopping)
        result = measure_retrieval(embeddings)
        score = (result.image_to_text["MRR"] + result.text_to_image["MRR"]) / 2
        return {**result.as_log(), "score": score}

    return validate
