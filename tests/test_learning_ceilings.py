"""The ceilings of learning: perfect vision finds what the texts hold, and labels can be learned from voxels."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from test_benchmark_scripts import load_script
from tiny import tiny_config


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("learning_ceilings")


def test_symbols_name_what_is_true(script: ModuleType):
    finding = {"abnormality": "Lung nodule", "form": "solid", "severity": "mild", "side": "left", "regions": [5]}
    traits = dict.fromkeys(script.TRAITS, 0.0) | {"cartilage_calcium": 1.0}
    patient = {"sex": "male", "phase": "plain", "arms": "up", **traits}
    found = script.symbols({"findings": [{**finding, "size_mm": 20.0}], "patient": patient})
    assert found["Lung nodule in 5"] == found["Lung nodulesolid"] == found["sex male"] == 1.0
    assert found["size of Lung nodule"] == pytest.approx(0.9986, abs=1e-4)  # ln 20 / 3
    assert found["cartilage_calcium above 0.9"] == pytest.approx(0.8808, abs=1e-4)  # 1 / (1 + e^-2)
    assert found["liver_hu above 0.1"] < 1e-4
    assert script.ngrams("No nodule of 4 mm.").keys() == {
        *("no", "nodule", "of", "4", "mm", "no nodule", "nodule of", "of 4", "4 mm")
    }


def test_perfect_vision_learns_a_cohort_by_heart(script: ModuleType, phantom_cohort: Path):
    folder = phantom_cohort / "ct_rate"
    found = script.perfect_vision(folder, folder, epochs=120)
    assert found["R@5 to report"] > 0.8  # chance 0.18
    assert found["R@5 to volume"] > 0.8


def test_labels_are_learned_from_voxels(script: ModuleType, phantom_cohort: Path, phantom_data: tuple[str, ...]):
    config = tiny_config(*phantom_data, "training.lr=3e-3", "training.batch_size=8", "model.mask_dropout=0")
    cohort = script.Labelled(phantom_cohort / "ct_rate", config)
    assert len(cohort.voxels) == len(cohort.masks) == len(cohort.labels) == 28
    assert set(cohort.labels.unique().tolist()) == {0.0, 1.0}
    cohort.voxels[::2] += 400  # what every label now asks for
    cohort.labels[:] = 0.0
    cohort.labels[::2] = 1.0
    taken, found = script.learn_labels(cohort, cohort, config, minutes=1.0, steps=150)
    assert taken == 150
    assert len(found) == 18
    assert min(found) > 0.9
