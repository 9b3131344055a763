"""Run the notebooks of docs/notebooks and save their outputs: `make notebooks`, or some of them by name.

python docs/execute_notebooks.py [memory_layer] [evict]
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent / "notebooks"
TIMEOUT = 1800  # seconds for one cell
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(path: Path) -> None:
    """Run all cells of a notebook in an empty folder and write the notebook with its outputs.

    Args:
        path: The .ipynb file. Metadata that changes from run to run (times, versions) is left out.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed; the file stays as it was.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=TIMEOUT,
            startup_timeout=300,
            extra_arguments=["--log-level=ERROR"],
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        ).execute()
    notebook.metadata = _METADATA
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number:02d}", {}
        for output in cell.get("outputs", ()):
            output.pop("metadata", None)
            if output.output_type in ("display_data", "execute_result"):
                output["metadata"] = {}  # the format demands it
                if "image/png" in output.data:
                    output.data.pop("text/plain", None)  # it describes the size of the picture
    nbformat.write(notebook, path)


def main() -> None:
    """Run the notebooks that the command line names, or all."""
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm's, for want of widgets
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    names = sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    for name in names:
        start = perf_counter()
        execute(FOLDER / f"{name}.ipynb")
        print(f"{name}: {perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
