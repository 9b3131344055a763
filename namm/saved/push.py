"""A NAMM -> a repository on the Hugging Face hub, from which `load` takes it by name."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

from ...errors import MemxError
from ...files import write_atomically
from ...hub import mute_hub
from ..policies.network import Namm
from .card import Card, card_text
from .files import read_files, save
from .places import CARD, FILES, HUB_NAME, find_namm

_LOGIN = "run: hf auth login, or give token=…"


def push_to_hub(
    namm: Namm | str | PathLike[str],
    repo: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Upload a NAMM",
) -> str:
    """Upload a NAMM to the Hugging Face hub; the repository is made if it does not exist.

    Args:
        namm: A NAMM, or a place that `load` takes, such as the folder of one. A folder's card goes with it; a NAMM
            without a card gets one that says what its files say.
        repo: Name of the repository, as `user/repo`.
        private: Whether a new repository is private. None: the default of its owner.
        token: Token that may write to it. None: that of `hf auth login`.
        commit_message: Message of the commit.

    Returns:
        The address of the repository.

    Raises:
        MemxError: The name is no `user/repo`, the NAMM cannot be loaded, there is no token or it may not write there,
            or the hub cannot be reached.
    """
    from huggingface_hub import HfApi, get_token

    if not HUB_NAME.fullmatch(repo):
        raise MemxError(f"{repo!r} is not the name of a hub repository", hint="use user/repo")
    with TemporaryDirectory() as made:
        folder = Path(made) / "namm"
        _gather(namm, folder, repo)
        if token is None and get_token() is None:
            raise MemxError("there is no token for the Hugging Face hub", hint=_LOGIN)
        api = HfApi(token=token)
        try:
            with mute_hub():
                address = api.create_repo(repo, private=private, exist_ok=True)
                api.upload_folder(
                    repo_id=repo, folder_path=folder, commit_message=commit_message, allow_patterns=list(FILES)
                )
        except Exception as error:  # huggingface_hub raises those of its HTTP library too
            raise _push_error(error, repo) from None
    return str(address)


def _gather(namm: Namm | str | PathLike[str], folder: Path, repo: str) -> None:
    """Write all files of a NAMM to a new folder, its card included."""
    if isinstance(namm, Namm):
        save(namm, folder, card=card_text(namm, Card(), place=repo))
        return
    source = find_namm(namm)
    loaded, described = read_files(source)
    folder.mkdir()
    for name in FILES:
        if (source / name).is_file():
            copyfile(source / name, folder / name)
    if not (folder / CARD).exists():
        text = card_text(loaded, Card(), host=described.host, tasks=described.tasks, place=repo)
        write_atomically(folder / CARD, text)


def _push_error(error: Exception, repo: str) -> MemxError:
    """The user's error behind what huggingface_hub raised."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403, 404) or isinstance(error, errors.RepositoryNotFoundError | errors.LocalTokenNotFoundError):
        return MemxError(
            f"the Hugging Face hub refuses to write to {repo}",
            hint=f"check the name; use a token with write permission for it: {_LOGIN}",
        )
    if status is not None:
        reason = " ".join(str(error).split())[:200]
        return MemxError(f"cannot upload to {repo}: {reason}", hint="try again later")
    return MemxError(
        f"cannot upload to {repo}: the Hugging Face hub cannot be reached",
        hint=f"on a machine with internet, run: hf upload {repo} FOLDER",
    )
