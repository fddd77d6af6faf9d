"""The finished student on the Hugging Face Hub: pushed once, and never a reason for a run to fail."""

import json
import shlex
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from distill.config.schema import Config
from distill.training.run_folder import RunFolder
from distill.utils.errors import first_line
from distill.utils.files import file_checksum, is_leftover, read_object, write_atomically
from distill.utils.findings import WARNING, Finding, raise_on_error
from distill.utils.redaction import publishable

LOGIN = "log in by `hf auth login`, or set HF_TOKEN to a token that may write"
ANSWERS = {
    401: f"nobody is logged in here, or the token is not valid; {LOGIN}",
    403: f"the token may not write there; {LOGIN}",
    404: "there is no such place, or the token may not see it",
}
"""What the Hub refuses with, and what it means."""


def publish(config: Config, folder: RunFolder) -> None:
    """Push student, model card and record to ``hub.repo``, unless it has got these very files from this run.

    All of them are one commit. What goes wrong is a warning that says how to push later: the result is here.
    """
    repo = config.hub.repo
    if repo is None:
        return
    files = published_files(folder)
    pushed = {"repo": repo, "files": {name: file_checksum(path) for name, path in files.items()}}
    mark = folder.path / "checkpoints" / "pushed.json"
    if mark.exists() and read_object(mark, "remove it to have the student pushed again") == pushed:
        return
    try:
        api = HfApi()
        made = api.create_repo(repo, private=config.hub.private, exist_ok=True)
        operations = [CommitOperationAdd(name, path) for name, path in files.items()]
        api.create_commit(made.repo_id, operations, commit_message="Student, model card and record of a distillation")
    except Exception as error:  # of a network, and of a library between it and us
        raise_on_error([Finding(WARNING, f"hub.repo {repo}: not pushed: {hub_problem(error)}. {later(repo, folder)}")])
        return
    write_atomically(mark, json.dumps(pushed, indent=1) + "\n")
    print(f"pushed: {made}")


def published_files(folder: RunFolder) -> dict[str, Path]:
    """Return what is pushed, by its name in the repository."""
    inside = (path for path in sorted(folder.student.rglob("*")) if path.is_file() and not is_leftover(path))
    return {path.relative_to(folder.student).as_posix(): path for path in inside} | {folder.record.name: folder.record}


def hub_problem(error: Exception) -> str:
    """Say in one line why the Hub did not take the files; no token stands in it."""
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    line = publishable(first_line(error)).rstrip(" .:")
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return ANSWERS.get(status, f"the Hub answered {status}: {line}")
    return f"the Hub cannot be reached: {line}"


def later(repo: str, folder: RunFolder) -> str:
    """Say where the result is and how to push it."""
    name, student, record = shlex.quote(repo), shlex.quote(str(folder.student)), shlex.quote(str(folder.record))
    return (
        f"The result is whole in {folder.path}; to push it later start the same command again, or: "
        f"hf upload {name} {student} . && hf upload {name} {record} {folder.record.name}"
    )
