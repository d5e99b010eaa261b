"""A model's tokenizer and chat template from their files, without the seconds of importing torch.

The driver counts rows' tokens with it; what trains and scores loads transformers' own.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

from trainables.errors import SweepAborted, make_unreadable_error
from trainables.models.hub_files import download_hub_file
from trainables.models.model_files import FIX, read_json
from trainables.shell import write_command

_QWEN_CLASSES = ("Qwen2Tokenizer", "Qwen2TokenizerFast")
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""PRETOKENIZE_REGEX of transformers/models/qwen2/tokenization_qwen2.py."""
_TOKEN_KEYS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
_END_OF_TEXT = "<|endoftext|>"
_FIX = "choose a Qwen model with the tokenizer of its makers, e.g. --model Qwen/Qwen3-0.6B"

CHUNK_TEXTS = 1000
"""Texts that are tokenised at once."""


class TokenizerFile:
    """tokenizer.json and what tokenizer_config.json and chat_template.jinja say with it."""

    def __init__(self, model: str) -> None:
        """Read the files of a folder or Hub model.

        Raises:
            SweepAborted: one lacks, or cannot be read.
        """
        self._model = model
        try:
            self._tokenizer = _read_tokenizer(model)
        except SweepAborted:
            raise
        except OSError as refused:
            raise make_unreadable_error(refused) from None
        except Exception as damaged:  # tokenizers raises nothing narrower
            error = f"the tokenizer of {model} cannot be read: {damaged}"
            raise SweepAborted(error, _FIX) from None
        self._config = read_json(_find_file(model, "tokenizer_config.json"))

    @property
    def name_or_path(self) -> str:
        """The model's."""
        return self._model

    @property
    def vocab_size(self) -> int:
        """Tokens that texts may become: one more than the largest.

        Named tokens that tokenizer.json lacks count too: transformers adds them behind the others.
        """
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        added = (self._config.get("added_tokens_decoder") or {}).values()
        extra = self._config.get("additional_special_tokens") or ()
        named = {*self._special_tokens.values(), *map(_read_content, [*added, *extra])}
        return max(vocabulary.values()) + 1 + len(named - vocabulary.keys())

    @property
    def pad_token_id(self) -> int | None:
        """Token that fills rows up, chosen as load_tokenizer does."""
        own = self._get_token_id("pad_token")
        end = self.eos_token_id if own is None else own
        return self.convert_tokens_to_ids("<|im_end|>") if end is None else end

    @property
    def unk_token_id(self) -> int | None:
        """Token of what the vocabulary lacks; None if it lacks nothing."""
        return self._get_token_id("unk_token")

    @property
    def eos_token_id(self) -> int | None:
        """Token that ends a text."""
        return self._get_token_id("eos_token")

    def __call__(self, texts: list[str], *, add_special_tokens: bool) -> dict[str, list[list[int]]]:
        """{"input_ids": the tokens of each text}."""
        encode = self._tokenizer.encode_batch_fast
        ids = [
            encoding.ids
            for first in range(0, len(texts), CHUNK_TEXTS)  # what else an encoding holds is large
            for encoding in encode(
                texts[first : first + CHUNK_TEXTS], add_special_tokens=add_special_tokens
            )
        ]
        return {"input_ids": ids}

    def convert_tokens_to_ids(self, tokens: str) -> int | None:
        """The token of that name."""
        return self._tokenizer.token_to_id(tokens)

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> str:
        """The conversation as the model's template writes it.

        Raises:
            jinja2.TemplateError: the template refuses it, or cannot be read.
        """
        return str(self._template.render(messages=conversation, **self._special_tokens, **options))

    @cached_property
    def _template(self) -> Any:
        # As transformers.utils.chat_template_utils sets it up.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        environment.globals["raise_exception"] = _raise_template_error
        return environment.from_string(self.template_text)

    @cached_property
    def template_text(self) -> str:
        """The chat template's source.

        Raises:
            SweepAborted: there is none.
        """
        try:
            return _find_file(self._model, "chat_template.jinja").read_text(encoding="utf-8")
        except OSError:  # older models keep it in tokenizer_config.json
            template = self._config.get("chat_template")
        if isinstance(template, list):
            template = {named["name"]: named["template"] for named in template}.get("default")
        if not template:
            raise SweepAborted(f"the tokenizer of {self._model} has no chat template", _FIX)
        return str(template)

    @property
    def _special_tokens(self) -> dict[str, str]:
        names = ("bos_token", "eos_token", "unk_token", "pad_token")
        return {name: _read_content(self._config[name]) for name in names if self._config.get(name)}

    def _get_token_id(self, name: str) -> int | None:
        # transformers' class for Qwen has a default where the file names no token.
        is_qwen = self._config.get("tokenizer_class") in (None, *_QWEN_CLASSES)
        token = self._config.get(name, _END_OF_TEXT if is_qwen else None)
        return None if token is None else self.convert_tokens_to_ids(_read_content(token))


def _read_tokenizer(model: str) -> Tokenizer:
    try:
        text = _find_file(model, "tokenizer.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return _read_vocabulary(Path(model))
    return Tokenizer.from_str(text)


def _read_vocabulary(folder: Path) -> Tokenizer:
    """The tokenizer of a folder without tokenizer.json, as transformers makes it for Qwen.

    Raises:
        SweepAborted: it lacks vocab.json or merges.txt too, or is of another class.
    """
    paths = [folder / name for name in ("vocab.json", "merges.txt")]
    if not all(path.is_file() for path in paths):
        raise SweepAborted(f"the model folder {folder} has no tokenizer.json", FIX)
    config = read_json(folder / "tokenizer_config.json")
    if config.get("tokenizer_class") not in (None, *_QWEN_CLASSES):
        raise SweepAborted(
            f"the model folder {folder} has no tokenizer.json, and its vocab.json is of a "
            f"{config['tokenizer_class']}",
            'have transformers write it once: python -c "import sys; from transformers import '
            'AutoTokenizer as A; A.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1])" '
            f"{write_command(folder)}",
        )
    tokenizer = Tokenizer(BPE.from_file(*map(str, paths)))
    tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(_QWEN_WORDS), behavior="isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
    added = config.get("added_tokens_decoder") or {}
    for _, token in sorted(added.items(), key=lambda item: int(item[0])):
        tokenizer.add_tokens([AddedToken(**{k: v for k, v in token.items() if k in _TOKEN_KEYS})])
    named = [config.get(name, _END_OF_TEXT) for name in ("eos_token", "unk_token", "pad_token")]
    extra = config.get("additional_special_tokens") or ()
    texts = [_read_content(token) for token in (*named, *extra) if token is not None]
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in texts])
    return tokenizer


def check_thinking(tokenizer: TokenizerFile) -> None:
    """Whether the model's chat template knows of thoughts before answers.

    Raises:
        SweepAborted: it does not.
    """
    if "enable_thinking" not in tokenizer.template_text:
        raise SweepAborted(
            f"{tokenizer.name_or_path} does not think before it answers: its chat template has no "
            "enable_thinking",
            "leave out --thinking, or choose a Qwen3 model that thinks, e.g. Qwen/Qwen3-0.6B",
        )


def _raise_template_error(message: str) -> None:
    raise TemplateError(message)


def _read_content(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def _find_file(model: str, name: str) -> Path:
    """The file of a folder or a Hub model.

    Raises:
        OSError: it has none of that name.
    """
    return Path(model) / name if Path(model).is_dir() else download_hub_file(model, name)
