"""Uploads a folder to the Hugging Face Hub in one commit; every refusal names its remedy."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

from sweeps.publish.best_folder import ADAPTER_FILES, list_exported
from sweeps.publish.license import CARD_FILE
from sweeps.publish.usage_code import ADAPTER_LINE, MERGED_LINE, is_hub_id
from sweeps.records.redact import redact
from trainables.errors import SweepAborted
from trainables.files import parse_json

UNCHANGED = "the repository shows nothing new, and the run is as it was"
REPEAT_UPLOAD = "repeat the command; large files that have arrived are not sent again"
UNREACHABLE: tuple[type[BaseException], ...] = (HfHubHTTPError.__bases__[0], OSError)
"""The HTTPError of httpx or httpx2, whichever huggingface_hub is built on; and sockets' own."""


def upload(folder: Path, card: str, repo_id: str, *, is_private: bool, revision: str | None) -> str:
    """Uploads best/, or another folder to export, as one commit and returns its address; until
    then the Hub shows nothing of it.

    Large files go first, each by itself. After a failure the Hub keeps those that have arrived, so
    the next upload of the same bytes sends the others only.

    Args:
        card: what is sent as the folder's README.md, with the Hub's name in place of the folder.
    """
    token = require_token()
    files = list_exported(folder)
    _warn_of_local_base(folder)
    if not sys.stderr.isatty():
        disable_progress_bars()
    api = HfApi(token=token)
    with _explain_hub_errors(api, repo_id):
        api.whoami()
        api.create_repo(repo_id, private=is_private or None, exist_ok=True)
        if is_private and not api.repo_info(repo_id).private:
            raise SweepAborted(
                f"{repo_id} exists and is public; nothing was uploaded",
                f"make it private in its settings at {api.endpoint}/{repo_id}, "
                "choose another name, or leave out --private",
            )
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        operations = [
            CommitOperationAdd(path.name, path) for path in files if path.name != CARD_FILE
        ]
        sent_card = _name_on_hub(card, repo_id, revision).encode()
        operations.append(CommitOperationAdd(CARD_FILE, sent_card))
        commit = api.create_commit(
            repo_id,
            operations,
            revision=revision,
            commit_message="Upload an adapter of a sweep",
        )
    return str(commit.commit_url)


def require_token() -> str:
    """The login's token.

    Raises:
        SweepAborted: there is none.
    """
    token = get_token()
    if token is None:
        fix = "hf auth login, or set HF_TOKEN to a token with write permission"
        raise SweepAborted("no Hugging Face token: you are not logged in", fix)
    return token


def _name_on_hub(card: str, repo_id: str, revision: str | None) -> str:
    for line in (ADAPTER_LINE, MERGED_LINE):
        name = line.partition(" ")[0]
        here = f'{name} = "{repo_id}"'
        if revision is not None:
            here = (
                f"from huggingface_hub import snapshot_download\n\n"
                f"{name} = snapshot_download({repo_id!r}, revision={revision!r})"
            )
        card = card.replace(line, here)
    return card


def _warn_of_local_base(best: Path) -> None:
    if not (best / ADAPTER_FILES[0]).is_file():
        return  # merged weights need no base
    config = parse_json((best / ADAPTER_FILES[0]).read_text(encoding="utf-8"))
    base = str(config.get("base_model_name_or_path"))
    if not is_hub_id(base):
        print(
            f"warning: the base {base} is a folder of this machine; others cannot load the "
            "adapter until they put their base's place in adapter_config.json",
            file=sys.stderr,
        )


@contextmanager
def _explain_hub_errors(api: HfApi, repo_id: str) -> Iterator[None]:
    """Turns what huggingface_hub raises into an error with its remedy."""
    try:
        yield
    except HfHubHTTPError as refused:
        raise _explain_refusal(refused, api, repo_id) from None
    except UNREACHABLE as failed:
        raise make_redacted_error(
            f"cannot reach {api.endpoint}: {failed}; {UNCHANGED}",
            "check the network, HF_ENDPOINT, HTTPS_PROXY and HF_HUB_OFFLINE; or use --to DIR",
        ) from None
    except RuntimeError as failed:  # huggingface_hub wraps what a file's upload raised
        if isinstance(failed.__cause__, HfHubHTTPError):
            raise _explain_refusal(failed.__cause__, api, repo_id) from None
        error = f"{failed} {failed.__cause__ or ''}; {UNCHANGED}"
        raise make_redacted_error(error, REPEAT_UPLOAD) from None
    except ValueError as refused:
        raise make_redacted_error(
            f"the Hub refused the files: {refused}; {UNCHANGED}",
            f"correct the YAML between the --- lines of the run's best/{CARD_FILE}, or --license",
        ) from None


def _explain_refusal(refused: HfHubHTTPError, api: HfApi, repo_id: str) -> SweepAborted:
    owner, status = repo_id.split("/")[0], refused.response.status_code
    tokens = f"{api.endpoint}/settings/tokens"
    message = f" ({refused.server_message})" if refused.server_message else ""
    is_full = status in (402, 507) or (status == 403 and "storage" in message.lower())
    match status:
        case _ if is_full:
            error = f"{owner} has no storage left on the Hub ({status})"
            fix = f"free some, or see {api.endpoint}/settings/billing; or use --to DIR"
        case 401:
            error = "the Hub refused the token (401)"
            fix = f"make a new one at {tokens}, then hf auth login or set HF_TOKEN (HF_TOKEN "
            fix += "comes before the login)"
        case 403:
            error = f"the token may not write to {repo_id} (403)"
            fix = f"make a token with write permission for {owner} at {tokens}, then hf auth login "
            fix += "or set HF_TOKEN"
        case 404:
            error = f"the Hub has no user or organisation {owner} (404)"
            fix = "hf auth whoami shows the names that you may use"
        case 409 | 412:
            error = f"{repo_id} was changed at the same time ({status})"
            fix = f"wait until the other upload to it has ended, then {REPEAT_UPLOAD}"
        case 413:
            error = "the Hub finds the files too large (413)"
            fix = "leave out --merge, or use --to DIR and hf upload-large-folder"
        case 429:
            error = "the Hub has had too many requests of yours (429)"
            fix = f"wait some minutes, then {REPEAT_UPLOAD}"
        case _:
            error, fix = f"the Hub answered {status}", f"try again later: {REPEAT_UPLOAD}"
    return make_redacted_error(f"{error}{message}; {UNCHANGED}", fix)


def make_redacted_error(error: str, fix: str) -> SweepAborted:
    """Without secrets: what servers and libraries say has them now and then."""
    return SweepAborted(redact(error), redact(fix))
