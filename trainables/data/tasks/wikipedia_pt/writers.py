"""Who writes the target summaries: a model on this machine, or one behind an HTTP endpoint."""

import json
import logging
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from trainables.errors import SweepAborted

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""HTTP statuses after which the same request may succeed."""
_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)

logger = logging.getLogger(__name__)


class Writer(Protocol):
    """Answers prompts, several at once."""

    def write(self, prompts: Sequence[str], max_new_tokens: int) -> list[str | None]:
        """An answer for each prompt; None for one that could not be had.

        Raises:
            SweepAborted: no prompt can be answered, e.g. for want of a login.
        """


@dataclass(frozen=True, kw_only=True)
class EndpointWriter:
    """A model behind an OpenAI-compatible chat-completions endpoint."""

    endpoint: str
    """Address up to and without /chat/completions, e.g. http://localhost:8000/v1."""
    model: str
    """The model's name there."""
    api_key: str | None = field(repr=False)
    """Sent as a bearer token; None sends none."""
    num_attempts: int = 4
    """Requests for one answer at most."""
    backoff_s: float = 1.0
    """Pause after a refusal; it doubles with each."""
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        if urlsplit(self.endpoint).scheme not in ("http", "https"):
            raise SweepAborted(
                f"the endpoint {self.endpoint!r} is no HTTP address",
                "let --endpoint be like http://localhost:8000/v1",
            )

    def write(self, prompts: Sequence[str], max_new_tokens: int) -> list[str | None]:
        """All prompts at once, each in a thread of its own."""
        with ThreadPoolExecutor(len(prompts)) as pool:
            return list(pool.map(lambda prompt: self._answer(prompt, max_new_tokens), prompts))

    def _answer(self, prompt: str, max_new_tokens: int) -> str | None:
        pause_s = self.backoff_s
        for attempt in range(1, self.num_attempts + 1):
            try:
                return self._ask(prompt, max_new_tokens)
            except urllib.error.HTTPError as refused:
                self._require_login(refused)
                told = f"HTTP {refused.code}"
                may_retry = refused.code in RETRIED
            except (OSError, ValueError, LookupError, TypeError) as refused:
                told = f"{type(refused).__name__}: {refused}"
                may_retry = True
            if not may_retry or attempt == self.num_attempts:
                logger.warning("no answer of %s: %s", self.endpoint, told)
                return None
            time.sleep(pause_s)
            pause_s *= 2
        return None

    def _ask(self, prompt: str, max_new_tokens: int) -> str:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": max_new_tokens,
        }
        request = urllib.request.Request(
            f"{self.endpoint.rstrip('/')}/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        if self.api_key:  # unredirected: it never goes to another host
            request.add_unredirected_header("Authorization", f"Bearer {self.api_key}")
        with urllib.request.urlopen(request, timeout=self.timeout_s) as reply:
            answer = json.load(reply)["choices"][0]["message"]["content"]
        return _THOUGHTS.sub("", answer).strip()

    def _require_login(self, refused: urllib.error.HTTPError) -> None:
        if refused.code in (401, 403):
            given = "the key was refused" if self.api_key else "no key was given"
            raise SweepAborted(
                f"{self.endpoint} answers HTTP {refused.code}: {given}",
                "set the key in the environment variable that --api-key-env names",
            ) from None
        if refused.code == 404:
            raise SweepAborted(
                f"{self.endpoint} answers HTTP 404 for the model {self.model}",
                "check --endpoint (it often ends with /v1) and --writer",
            ) from None


@dataclass(frozen=True, kw_only=True)
class ModelWriter:
    """A model of the Hub or a folder in NF4, on this machine's GPU if it has one."""

    model: Any
    tokenizer: Any
    max_prompt_tokens: int
    """Longer prompts are cut at their end."""

    @classmethod
    def load(cls, model: str, max_prompt_tokens: int) -> "ModelWriter":
        """The writer of a model.

        Raises:
            SweepAborted: the model cannot be loaded.
        """
        from trainables.models.base_model import load_base, load_tokenizer  # torch: seconds

        try:
            return cls(
                model=load_base(model, "bfloat16"),
                tokenizer=load_tokenizer(model),
                max_prompt_tokens=max_prompt_tokens,
            )
        except (OSError, ValueError) as refused:
            raise SweepAborted(
                f"the writer {model} cannot be loaded: {str(refused).splitlines()[0]}",
                "let --writer be a chat model's Hub id or folder, or add --endpoint",
            ) from refused

    def write(self, prompts: Sequence[str], max_new_tokens: int) -> list[str | None]:
        """Greedy answers, generated together."""
        import torch  # loaded with the model already

        from trainables.data.tokens import encode_prompts
        from trainables.solo.evaluate import generate

        room = self.model.config.max_position_embeddings - max_new_tokens
        limit = min(self.max_prompt_tokens, room)
        ids = encode_prompts(self.tokenizer, prompts, limit)
        with torch.no_grad():
            answers = generate(self.model, self.tokenizer, ids, len(ids), max_new_tokens)
        texts = [self.tokenizer.decode(answer, skip_special_tokens=True) for answer in answers]
        return [_THOUGHTS.sub("", text).strip() or None for text in texts]
