"""What all tests share: the phantom cohort, and patience on a busy machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from transformers import BertConfig, BertModel, BertTokenizerFast

from tiny import WORDS
from vlm3d_ct.phantom.cohort import write_cohort

settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def phantom_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 28 small volumes in ``ct_rate`` and 7 slices in ``omniabnorm``; nobody writes into these."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_cohort(folder, patients=28, slices=7, workers=1)
    return folder


@pytest.fixture(scope="session")
def phantom_data(phantom_cohort: Path) -> tuple[str, ...]:
    """Overrides that name the cohort and a cache that all tests fill together."""
    return (
        f"data.ctrate_dir={phantom_cohort / 'ct_rate'}",
        f"data.omniabnorm_dir={phantom_cohort / 'omniabnorm'}",
        f"data.cache_dir={phantom_cohort / 'cache'}",
        "data.validation_fraction=0.2",
    )


@pytest.fixture
def bert_folder(tmp_path: Path) -> Path:
    """A BERT as `save_pretrained` leaves it, its tokenizer beside it."""
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    BertTokenizerFast(vocab={word: number for number, word in enumerate(WORDS)}).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    return folder


LONGEST_FIRST = (
    "test_training",
    "test_evaluation_commands",
    "test_kill_and_resume",
    "test_faults",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes begin first, so that no worker is left with one when the others are done."""

    def place(item: pytest.Item) -> int:
        return next((i for i, name in enumerate(LONGEST_FIRST) if name in item.nodeid), len(LONGEST_FIRST))

    items.sort(key=place)
