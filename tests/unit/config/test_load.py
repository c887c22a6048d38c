"""Configurations: strict, complete, and honest about everything that is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vlm3d_ct.config import Config, config_from_mapping, config_to_mapping, load_config
from vlm3d_ct.errors import ConfigError

PATHS = st.text("abc xyz:#'\"/~-01\n%&*", max_size=12)


def read(settings: object, *overrides: str) -> Config:
    return config_from_mapping(settings, source="mine.yaml", overrides=overrides)


def message(settings: object, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(settings, *overrides)
    return str(caught.value)


def test_the_defaults_are_the_plans_recipe():
    config = read({})
    assert config.preprocess.size == (64, 512, 512)
    model, training = config.model, config.training
    assert (model.embed_dim, model.depth, model.num_heads, model.num_regions) == (768, 12, 12, 20)
    assert (model.patch_size, model.mlp_ratio, model.dropout, model.attn_dropout) == ((4, 16, 16), 4.0, 0.1, 0.1)
    assert (training.lr, training.min_lr, training.weight_decay, training.betas) == (1e-4, 1e-6, 0.05, (0.9, 0.999))
    assert (training.num_epochs, training.warmup_epochs, training.batch_size, training.accumulation_steps) == (
        50,
        5,
        8,
        2,
    )
    assert (training.precision, training.gradient_clip, training.gradient_checkpointing) == ("fp16", 1.0, True)
    assert (training.val_interval, training.keep_best, training.keep_last) == (5, 3, 2)
    objective = config.objective
    assert (objective.global_weight, objective.region_weight, objective.temperature) == (1.0, 0.5, 0.07)
    augment = config.augment
    assert (augment.flip_probability, augment.rotation_probability, augment.rotation_degrees) == (0.5, 0.3, 10.0)
    assert (augment.intensity_probability, augment.intensity_shift) == (0.3, 0.1)
    assert (augment.noise_probability, augment.noise_sigma) == (0.2, 0.01)
    assert config.model.windows_hu == ((40.0, 400.0),)
    assert (config.data.num_workers, config.data.prefetch_factor, config.data.pin_memory) == (4, 2, True)
    assert config.text.max_len == 512


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"training": {"strategy": "fsdp"}},
            "mine.yaml: training.strategy = fsdp: cannot be combined with training.precision = fp16",
        ),
        (
            {"training": {"strategy": "fsdp", "precision": "bf16", "optimizer": "muon"}},
            "mine.yaml: training.strategy = fsdp: cannot be combined with training.optimizer = muon",
        ),
        (
            {"text": {"frozen": True, "gradient_checkpointing": True}},
            "mine.yaml: text.gradient_checkpointing = true: a frozen BERT (text.frozen) keeps nothing to recompute",
        ),
        ({"text": {"cache_dir": "kept"}}, "mine.yaml: text.cache_dir = kept: what a BERT that learns makes of a text"),
        (
            {"text": {"frozen": True, "cache_dir": "kept"}, "training": {"strategy": "fsdp", "precision": "bf16"}},
            "mine.yaml: text.cache_dir = kept: cannot be combined with training.strategy = fsdp",
        ),
        (
            {"training": {"compile": True, "gradient_checkpointing": "cheap"}},
            "mine.yaml: training.compile = true: cannot be combined with training.gradient_checkpointing = cheap",
        ),
        (
            {"training": {"compile": True, "strategy": "fsdp", "precision": "bf16"}},
            "mine.yaml: training.compile = true: cannot be combined with training.strategy = fsdp",
        ),
        ({"trainin": {}}, "mine.yaml: trainin: unknown setting; did you mean 'training'?"),
        ({"training": {"learning_rate": 1}}, "mine.yaml: training.learning_rate: unknown setting;"),
        ({"model": {"num_head": 4}}, "mine.yaml: model.num_head: unknown setting; did you mean 'num_heads'?"),
        ({"data": {"ct_rate_dir": "x"}}, "mine.yaml: data.ct_rate_dir: unknown setting; did you mean 'ctrate_dir'?"),
        ({"zzz": 1}, "mine.yaml: zzz: unknown setting; known here: stage, seed, data,"),
    ],
)
def test_an_unknown_key_is_an_error_with_a_suggestion(settings: dict[str, object], said: str):
    assert said in message(settings)


def test_every_problem_is_reported_at_once_with_its_path():
    lines = message(
        {
            "stage": "Not A Name",
            "seed": -1,
            "model": {"depth": 0, "dropout": 1.5, "windows": ["brain"]},
            "training": {"precision": "fp8", "batch": 3},
            "text": {"max_len": 1000},
        }
    ).splitlines()
    assert all(line.startswith("mine.yaml: ") for line in lines)
    for path in (
        "stage =",
        "seed = -1:",
        "model.depth = 0:",
        "model.dropout = 1.5:",
        "model.windows.0",
        "training.precision = 'fp8':",
        "training.batch: unknown setting",
        "text.max_len = 1000:",
    ):
        assert any(line.startswith(f"mine.yaml: {path}") for line in lines), (path, lines)


@pytest.mark.parametrize("written", ["1e-4", "0.0001", "1.0e-04", "1e-04"])
def test_exponents_are_numbers_however_they_are_written(written: str, tmp_path: Path):
    assert read({}, f"training.lr={written}").training.lr == 1e-4
    file = tmp_path / "c.yaml"
    file.write_text(f"training:\n  lr: {written}\n")
    assert load_config(file).training.lr == 1e-4


def test_overrides_win_over_the_file_and_later_ones_over_earlier_ones(tmp_path: Path):
    file = tmp_path / "c.yaml"
    file.write_text("training: {num_epochs: 7, batch_size: 3}\n")
    config = load_config(file, ["training.num_epochs=8", "training.num_epochs=9", "model.windows=[lung, [0, 100]]"])
    assert (config.training.num_epochs, config.training.batch_size) == (9, 3)
    assert config.model.windows_hu == ((-600.0, 1500.0), (0.0, 100.0))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.lr", "--set training.lr: write it as section.key=value"),
        ("=3", "--set =3: write it as section.key=value"),
        ("training..lr=3", "write it as section.key=value"),
        ("stage.name=x", "'stage' is a value, not a section"),
        ("model.windows=[", "the value is not valid YAML"),
        ("training.learn=3", "training.learn: unknown setting"),
    ],
)
def test_a_wrong_override_is_named(override: str, said: str):
    assert said in message({"stage": "pretrain"}, override)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"model": {"sub_patch_size": [2, 5, 4]}},
            "model.sub_patch_size = [2, 5, 4]: 5 does not divide the patch's 16",
        ),
        ({"text": {"attention": "sentence"}}, "text.attention = sentence: cannot be combined with text.pooling = cls"),
        (
            {"objective": {"sentence_weight": 1}},
            "objective.sentence_weight = 1.0: cannot be combined with text.attention = text",
        ),
        (
            {"objective": {"sentence_region_weight": 2}},
            "objective.sentence_region_weight = 2.0: cannot be combined with text.attention = text",
        ),
        (
            {"model": {"attention": "dense_z_bias"}},
            "model.attention = dense_z_bias: keeps a number for every pair of 16,384 patches",
        ),
        ({"training": {"checkpointed_blocks": 13}}, "training.checkpointed_blocks = 13: there are only 12 blocks."),
        ({"model": {"patch_dropout": 1.0}}, "model.patch_dropout = 1.0"),
        ({"model": {"num_heads": 7}}, "model.num_heads = 7: must divide model.embed_dim = 768."),
        ({"preprocess": {"size": [64, 500, 512]}}, "preprocess.size: 500 voxels along y are not a multiple of"),
        ({"preprocess": {"slice_size": [2, 512, 512]}}, "preprocess.slice_size: 2 voxels along z"),
        ({"model": {"depth": 3}}, "model.depth = 3: must be at least 4; the regions come in after the third block"),
        ({"training": {"min_lr": 1}}, "training.min_lr = 1.0: must not exceed training.lr"),
        ({"text": {"source": "small", "small_heads": 3}}, "text.small_heads = 3: must divide text.small_width = 128"),
    ],
)
def test_contradictions_between_settings_are_found(settings: dict[str, object], said: str):
    assert said in message(settings)


def test_several_contradictions_are_reported_together():
    lines = message({"model": {"num_heads": 7}, "training": {"min_lr": 1}}).splitlines()
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"- a\n- b\n", "must be a mapping of sections, is a list"),
        (b"a: [", "is not valid YAML"),
        (b"\xff\xfe\x00a", "is not valid YAML"),
        (b"a: !!python/object/apply:os.system ['true']", "is not valid YAML"),
        (b"#" * (1 << 20) + b"#", "larger than 1 MiB"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(content: bytes, said: str, tmp_path: Path):
    file = tmp_path / "c.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        load_config(file)


def test_a_missing_file_is_named_and_an_empty_one_gives_the_defaults(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read \(No such file or directory\)"):
        load_config(tmp_path / "absent.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert load_config(tmp_path / "empty.yaml") == Config()


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(0, 2**40),
            "data": st.fixed_dictionaries({}, optional={"ctrate_dir": PATHS, "num_workers": st.integers(0, 9)}),
            "training": st.fixed_dictionaries(
                {}, optional={"lr": st.floats(1e-5, 1), "betas": st.tuples(st.floats(0, 1), st.floats(0, 1))}
            ),
            "model": st.fixed_dictionaries(
                {}, optional={"windows": st.lists(st.sampled_from(["lung", "bone", (1.0, 2.0)]), min_size=1)}
            ),
        },
    )
)
def test_the_mapping_of_a_configuration_gives_it_back(settings: dict[str, object]):
    config = read(settings)
    assert read(config_to_mapping(config)) == config
    assert read(yaml.safe_load(yaml.safe_dump(config_to_mapping(config)))) == config


def test_the_mapping_is_complete():
    mapping = config_to_mapping(Config())
    assert set(mapping) == {"stage", "seed", "data", "preprocess", "augment", "model", "text", "objective", "training"}
    assert mapping["training"]["eps"] == 1e-8
