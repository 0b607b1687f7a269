"""A data set comes from a server on this machine, and the next time from the cache."""

import os
import tempfile
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anndata
import numpy as np

import sc_glm as sg
from sc_glm.datasets import dataset_files, fetched

counts = np.arange(400).reshape(4, 100) % 7
cells = {"cell_type": list("abab"), "pseudotime": np.arange(4.0), "sizeFactor": np.ones(4)}
small = anndata.AnnData(counts.astype(np.float32), obs=cells)

with tempfile.TemporaryDirectory() as folder:
    os.environ |= {"SC_GLM_CACHE": f"{folder}/cache", "NO_PROXY": "127.0.0.1"}
    os.environ.pop("SC_GLM_DATA", None)
    published = Path(folder) / "PANCREAS.h5ad"
    small.write_h5ad(published)
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        usual = fetched._PANCREAS[100]  # noqa: SLF001 - a small set in its place
        fetched._PANCREAS[100] = replace(  # noqa: SLF001
            usual,
            url=f"http://127.0.0.1:{server.server_port}/{published.name}",
            fingerprint=replace(
                usual.fingerprint,
                shape=small.shape,
                cells=dataset_files.names_hash(small.obs_names),
                genes=dataset_files.names_hash(small.var_names),
                counts=dataset_files.counts_hash(small.X),
            ),
        )
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            downloaded = sg.datasets.fetch_pancreas()
        finally:
            server.shutdown()
    published.unlink()
    kept = sg.datasets.fetch_pancreas()
for found in (downloaded, kept):
    np.testing.assert_array_equal(found.X.toarray(), counts)
