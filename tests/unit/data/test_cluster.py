"""Preparing on a dask cluster: the same entries, the same faults."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_folders import write_ctrate

from vlm3d_ct.data.cache import Cache
from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.data.prepare import prepare_cases
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.volumes.preprocess import Preprocess

PREPROCESS = Preprocess(size=(4, 8, 8), slice_size=(4, 16, 16))


# dask closes its sockets and event loops a little after its processes have gone
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_cluster_prepares_what_one_machine_prepares(tmp_path: Path):
    distributed = pytest.importorskip("distributed", reason="needs the extra `cluster`")
    stems = write_ctrate(tmp_path, 8)
    (tmp_path / "volumes" / f"{stems[3]}.nii.gz").write_bytes(b"no scan")
    cases = read_cases(tmp_path).cases
    caches = [Cache(tmp_path / name, PREPROCESS.fingerprint) for name in ("alone", "cluster")]
    alone = prepare_cases(cases, PREPROCESS, caches[0], workers=0)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        shared = prepare_cases(cases, PREPROCESS, caches[1], workers=0, dask=address)
        again = prepare_cases(cases, PREPROCESS, caches[1], workers=0, dask=address)
    assert (alone.prepared, alone.problems) == (shared.prepared, shared.problems)
    assert (again.prepared, again.already) == (0, 7)
    for case in cases:
        if case.case_id != stems[3]:
            files = [cache.path(case.case_id, "volume").read_bytes() for cache in caches]
            assert files[0] == files[1]


def test_an_address_where_nothing_answers_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_ctrate(tmp_path, 1)
    monkeypatch.setattr("vlm3d_ct.data.cluster.LONGEST_CONNECTION_S", 0.2)
    with pytest.raises(ConfigError, match=r"--dask tcp://127\.0\.0\.1:9: no scheduler answers"):
        prepare_cases(
            read_cases(tmp_path).cases,
            PREPROCESS,
            Cache(tmp_path / "cache", PREPROCESS.fingerprint),
            workers=0,
            dask="tcp://127.0.0.1:9",
        )
