"""Whether a run is finished; apart from the run folder, so that a sweep need not wait for torch to ask."""

from pathlib import Path


def is_finished(run_dir: Path) -> bool:
    """Tell whether a run has left everything it is run for: record, report and a student that can be loaded."""
    student = run_dir / "student"
    needed = (run_dir / "record.json", run_dir / "report.html", student / "config.json", student / "model.safetensors")
    return all(path.exists() for path in needed)
