"""Every command: what it says, its exit code, and that a refusal is one clear message and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import PROGRAM, ROOT, TRAIN, as_flags, run

from tiny import OVERRIDES, tiny_config, write_checkpoint
from vlm3d_ct.cli.main import run as main
from vlm3d_ct.data.cohort import find_cohort, prepare_cohort
from vlm3d_ct.data.dataset import open_cache

COMMANDS = [
    [],
    ["phantom"],
    ["verify"],
    ["prepare"],
    ["train"],
    ["evaluate"],
    ["evaluate", "retrieval"],
    ["evaluate", "zero-shot"],
    ["evaluate", "regions"],
    ["evaluate", "probe"],
    ["evaluate", "compare"],
    ["inspect"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        main([*command, "--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: {' '.join(['vlm3d-ct', *command])} ")
    if command:
        assert "example:\n  " in said
    else:
        words = " ".join(said.split())
        assert "exit codes: 0 done; 2 usage or configuration; 3 data or checkpoint invalid; 4 stopped" in words


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["train"], ["train", "--config", "c.yaml", "--output_dir", "o", "--epochs", "3"], ["inspect"]],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: " in capsys.readouterr().err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty data folder, a configuration for it, and a file that is none."""
    (tmp_path / "empty").mkdir()
    overrides = (*OVERRIDES, f"data.ctrate_dir={tmp_path / 'empty'}", f"data.cache_dir={tmp_path / 'cache'}")
    sections: dict[str, dict[str, str]] = {}
    for override in overrides:
        name, value = override.split("=", 1)
        section, key = name.split(".")
        sections.setdefault(section, {})[key] = value
    lines = [f"{s}:\n" + "".join(f"  {k}: {v}\n" for k, v in keys.items()) for s, keys in sections.items()]
    (tmp_path / "config.yaml").write_text("".join(lines))
    (tmp_path / "bad.yaml").write_text("training: {learning_rate: 1}\nmodel: {depth: 0}\n")
    (tmp_path / "no.pth").write_bytes(b"no checkpoint")
    return tmp_path


REFUSALS = [
    ("train --config absent.yaml --output_dir out", 2, "configuration: absent.yaml: cannot be read"),
    ("train --config bad.yaml --output_dir out", 2, "training.learning_rate: unknown setting; known here"),
    ("train --config config.yaml --output_dir out --set a=b=c", 2, "a: unknown setting"),
    ("train --config config.yaml --output_dir out --resume absent.pth", 3, "absent.pth: cannot be read: No such file"),
    ("train --config config.yaml --output_dir out --resume no.pth", 3, "no.pth: carries no checksum at its end"),
    ("train --config config.yaml --output_dir out", 3, "The folder is empty"),
    ("train --config config.yaml --output_dir out --set data.ctrate_dir=absent", 3, "The data folder does not exist"),
    ("prepare --config config.yaml", 3, "The folder is empty"),
    ("prepare --config bad.yaml", 2, "model.depth = 0"),
    ("evaluate retrieval --checkpoint no.pth --data_dir absent --output_dir out", 2, "--data_dir absent: is not a"),
    ("evaluate retrieval --checkpoint absent.pth --data_dir empty --output_dir out", 3, "absent.pth: cannot be read"),
    ("evaluate retrieval --checkpoint good.pth --data_dir empty --output_dir out", 3, "The folder is empty"),
    ("inspect absent.pth", 2, "absent.pth: is not a file"),
    ("inspect no.pth", 3, "no.pth: carries no checksum"),
    ("inspect notes.txt", 2, "a file ending in '.txt' is not known"),
    ("phantom . --patients 3", 2, "is not empty"),
    ("phantom new --patients 0", 2, "patients = 0"),
]


@pytest.mark.parametrize(("line", "code", "said"), REFUSALS, ids=[line for line, _, _ in REFUSALS])
def test_a_refusal_is_one_message_and_leaves_nothing_behind(
    line: str,
    code: int,
    said: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(folder)
    (folder / "notes.txt").write_text("mine")
    write_checkpoint(folder / "good.pth", tiny_config(f"data.cache_dir={folder / 'cache'}"))
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    assert main(line.split()) == code
    err = capsys.readouterr().err
    assert said in err
    assert err.startswith({2: "configuration: ", 3: "data: "}[code])
    assert "Traceback" not in err
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before


def test_exit_codes_leave_the_process(folder: Path):
    for entry, code in (((PROGRAM, "inspect", str(folder / "no.pth")), 3), ((*TRAIN, "--config", "absent.yaml"), 2)):
        refused = run(*entry)
        assert refused.returncode == code
        assert "Traceback" not in refused.stderr


def test_the_reader_of_our_output_may_leave_early():
    piped = run("bash", "-c", f"{PROGRAM} inspect configs/pretrain_ctrate.yaml | head -1")
    assert piped.returncode == 0
    assert piped.stderr == ""


def test_inspect_says_what_a_file_is(
    phantom_cohort: Path, phantom_data: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = tiny_config(*phantom_data)

    def inspect(path: Path | str) -> str:
        assert main(["inspect", str(path)]) == 0
        return capsys.readouterr().out

    write_checkpoint(tmp_path / "c.pth", config)
    said = inspect(tmp_path / "c.pth")
    assert "c.pth: checkpoint, checksum good, 0.09 M numbers" in said
    for part in ("stage: pretrain", "step: 5", "trained on 0 patients", "step 5: 0.5", "embed_dim: 32"):
        assert part in said
    said = inspect(ROOT / "configs" / "pretrain_ctrate.yaml")
    assert "configuration, complete with its defaults:" in said
    assert "weight_decay: 0.05" in said
    prepare_cohort(find_cohort(config), config, workers=0)
    capsys.readouterr()
    said = inspect(open_cache(config).path("train_1_a_1", "volume"))
    for part in ("prepared case", "shape: (8, 32, 32)", "dtype: int16", "kind: volume", "fingerprint: "):
        assert part in said
    said = inspect(phantom_cohort / "ct_rate" / "volumes" / "train_1_a_1.nii.gz")
    assert "volume, 32 x 96 x 96 voxels (z, y, x), as read in canonical axes (LPS)" in said
    assert "spacing_mm: " in said
    assert "HU: -10" in said


def test_prepare_makes_its_share_and_continues(
    phantom_data: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    flags = ["prepare", "--config", str(ROOT / "configs/finetune_combined.yaml"), "--workers", "1"]
    flags += as_flags((*OVERRIDES, *phantom_data, f"data.cache_dir={tmp_path}"))
    assert main([*flags, "--shard", "1/2"]) == 0
    assert "18 cases prepared, 0 were ready, 0 left out" in capsys.readouterr().out
    assert main(flags) == 0
    assert "17 cases prepared, 18 were ready, 0 left out" in capsys.readouterr().out
    for shard in ("3/2", "0/2", "half"):
        assert main([*flags, "--shard", shard]) == 2
        assert f"--shard {shard}: give I/N" in capsys.readouterr().err
