"""Chat completions of any OpenAI-compatible endpoint: retries, back-off, and a key nobody sees.

vLLM, llama.cpp, Ollama and `transformers serve` speak this protocol, so a local model is an
endpoint on this machine.
"""

import random
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from trainables.errors import SweepAborted

try:
    import httpx
except ModuleNotFoundError:
    HAS_HTTPX = False
else:
    HAS_HTTPX = True

RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
MAX_DELAY_S = 60.0
MAX_SHOWN_CHARACTERS = 300
"""Of what an endpoint says about its refusal."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a model answered, and the tokens that were paid for, if the endpoint tells."""

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None


class ChatClient:
    """Asks one endpoint, from any number of threads.

    Args:
        endpoint: URL up to and without "/chat/completions".
        api_key: sent as a bearer token; never logged, stored or shown.
        first_delay_s: wait before the second attempt; it doubles each time, with jitter, unless
            the endpoint names a time (Retry-After). At most a minute.

    Raises:
        SweepAborted: httpx is not installed, or the endpoint is no http(s) URL, or has a login in
            it.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 120.0,
        max_attempts: int = 6,
        first_delay_s: float = 1.0,
    ) -> None:
        if not HAS_HTTPX:
            raise SweepAborted(
                "a judge is asked through httpx, which is not installed", "pip install '.[judge]'"
            )
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SweepAborted(
                f"the endpoint {endpoint!r} is no http(s) URL", "e.g. http://localhost:8000/v1"
            )
        if parts.username or parts.password:
            raise SweepAborted(
                "the endpoint has a login in its URL, where logs would show it",
                "give the key in an environment variable",
            )
        self._endpoint, self._api_key = endpoint.rstrip("/"), api_key
        self._max_attempts, self._first_delay_s = max_attempts, first_delay_s
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # A redirect would hand the key to another host.
        self._http = httpx.Client(headers=headers, timeout=timeout_s, follow_redirects=False)
        self._stopped = threading.Event()

    def complete(self, body: dict[str, Any]) -> Reply:
        """The first choice of a completion.

        Raises:
            SweepAborted: the endpoint refuses the request, cannot be reached in max_attempts, or
                does not speak the protocol.
        """
        reason, delay_s = "interrupted", 0.0
        for attempt in range(self._max_attempts):
            if self._stopped.wait(delay_s):
                break
            delay_s = min(self._first_delay_s * 2**attempt, MAX_DELAY_S) * random.uniform(0.5, 1.0)
            try:
                response = self._http.post(f"{self._endpoint}/chat/completions", json=body)
            except httpx.TransportError as error:
                reason = f"{type(error).__name__}: {error}"
                continue
            if response.status_code == 200:
                return self._read(response)
            reason = f"{response.status_code}: {self._shown(response.text)}"
            if response.status_code not in RETRIED_STATUS:
                raise SweepAborted(f"{self._endpoint} answered {reason}", _remedy(response))
            delay_s = min(_retry_after_s(response) or delay_s, MAX_DELAY_S)
        raise SweepAborted(
            f"{self._endpoint} gave no answer in {self._max_attempts} attempts: {reason}",
            "run the same command again later, with a lower --concurrency; verdicts are kept",
        )

    def stop(self) -> None:
        """Ends every wait; no request is repeated from here on."""
        self._stopped.set()

    def close(self) -> None:
        """Closes the connections, once no request is under way: a read would wait on for ever."""
        self._http.close()

    def _read(self, response: "httpx.Response") -> Reply:
        try:
            answer = response.json()
            text = answer["choices"][0]["message"].get("content")
            usage = answer.get("usage") or {}
            return Reply(
                text=text if isinstance(text, str) else "",
                prompt_tokens=usage.get("prompt_tokens"),
                completion_tokens=usage.get("completion_tokens"),
            )
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise SweepAborted(
                f"{self._endpoint} answers no chat completion: {self._shown(response.text)}",
                "give the URL that /chat/completions follows; it often ends in /v1",
            ) from error

    def _shown(self, text: str) -> str:
        hidden = text.replace(self._api_key, "***") if self._api_key else text
        return " ".join(hidden.split())[:MAX_SHOWN_CHARACTERS]


def _retry_after_s(response: "httpx.Response") -> float | None:
    """The wait that the endpoint names in seconds; a date is left to the back-off."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.replace(".", "", 1).isdecimal() else None


def _remedy(response: "httpx.Response") -> str:
    if response.status_code in (401, 403):
        return "put a valid key into the environment variable that --api-key-env names"
    if response.status_code == 404:
        return "check --model, and --endpoint, which often ends in /v1"
    return "change what the endpoint names; see --max-tokens-field and --temperature"
