"""BERTScore, against a computation of every pair by itself in float64."""

import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizer, set_seed

from trainables.errors import SweepAborted
from trainables.metrics.bertscore import NAMES, BertScore, match
from trainables.metrics.evaluate_metrics import make_bertscore

SENTENCE = "ann bob will bring tickets a cake for cem tomorrow at five he she says no ."
WORDS = SENTENCE.split()
PREDICTIONS = ["Ann will bring a cake.", "Bob says no", "", "he he he he", "cem"]
REFERENCES = ["Bob brings tickets for Ann tomorrow at five.", "she says no", "a", "he", "Ann"]


@pytest.fixture(scope="module")
def bert_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a BERT with random weights: 3 layers, hidden 32, and a tokenizer of its words."""
    folder = str(tmp_path_factory.mktemp("bert"))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: index for index, token in enumerate([*special, *WORDS, "##s"])}
    words = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer(lowercase=True)
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    BertTokenizer(tokenizer_object=words, model_max_length=64).save_pretrained(folder)
    set_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def metric(bert_dir: str) -> BertScore:
    return BertScore(bert_dir, 2, batch_size=2)


def test_bert_scores_equal_those_of_each_pair_alone(bert_dir: str) -> None:
    _assert_equal_to_pairs(bert_dir, layer=2, batch_size=2)


def test_qwen_scores_equal_those_of_each_pair_alone(model_dir: str) -> None:
    _assert_equal_to_pairs(model_dir, layer=1, batch_size=3)


def _assert_equal_to_pairs(encoder: str, layer: int, batch_size: int) -> None:
    ours = BertScore(encoder, layer, batch_size=batch_size).score_rows(PREDICTIONS, REFERENCES)
    model = AutoModel.from_pretrained(encoder, dtype=torch.float64).eval()
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    for row, prediction, reference in zip(ours, PREDICTIONS, REFERENCES, strict=True):
        expected = _of_pair(model, tokenizer, layer, prediction, reference)
        assert row == pytest.approx(dict(zip(NAMES, expected, strict=True)), abs=1e-3)


def _of_pair(model, tokenizer, layer: int, prediction: str, reference: str) -> list[float]:  # type: ignore[no-untyped-def]
    sides = []
    for text in (prediction, reference):
        ids = tokenizer(text)["input_ids"]
        if not text:
            return [0.0, 0.0, 0.0]
        with torch.no_grad():
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]
        added = {tokenizer.cls_token_id, tokenizer.sep_token_id}
        sides.append((states, [index for index, token in enumerate(ids) if token not in added]))
    (candidate, words), (other, other_words) = sides
    cosine = torch.cosine_similarity(candidate[:, None], other[None], dim=-1)
    precision = cosine.max(dim=1).values[words].mean().item()
    recall = cosine.max(dim=0).values[other_words].mean().item()
    return [100 * v for v in (precision, recall, 2 * precision * recall / (precision + recall))]


def test_a_text_equals_itself_whatever_its_neighbours(metric: BertScore) -> None:
    alone = metric.score_rows(PREDICTIONS[:1], REFERENCES[:1])[0]
    assert metric.score_rows(PREDICTIONS, REFERENCES)[0] == pytest.approx(alone, abs=1e-3)
    assert metric.score_means(REFERENCES, REFERENCES) == pytest.approx(
        dict.fromkeys(NAMES, 100.0), abs=1e-3
    )


def test_metric_is_the_mean_of_the_rows(metric: BertScore, bert_dir: str) -> None:
    rows = metric.score_rows(PREDICTIONS, REFERENCES)
    scores = make_bertscore(bert_dir, 2).compute(predictions=PREDICTIONS, references=REFERENCES)
    for name in NAMES:
        assert scores[name] == pytest.approx(sum(row[name] for row in rows) / len(rows))


def test_padding_is_no_match_even_of_opposites() -> None:
    one = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    other = torch.tensor([[[-1.0, 0.0], [0.0, 0.0]]])
    mask, weights = torch.tensor([[True, False]]), torch.tensor([[1.0, 0.0]])
    assert match((one, mask, weights), (other, mask, weights)).tolist() == [[-1.0, -1.0, -1.0]]


def test_layers_give_unlike_scores_and_fingerprints(bert_dir: str) -> None:
    metrics = [BertScore(bert_dir, layer) for layer in (1, 3)]
    one, other = (metric.score_rows(PREDICTIONS, REFERENCES)[0] for metric in metrics)
    assert one != pytest.approx(other, abs=1e-3)
    assert metrics[0].compute_fingerprint() != metrics[1].compute_fingerprint()


def test_fingerprint_is_of_the_weights_not_of_the_folder(
    metric: BertScore, bert_dir: str, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(bert_dir, moved)
    before = metric.compute_fingerprint()
    assert BertScore(str(moved), 2, batch_size=7).compute_fingerprint() == before
    model = AutoModel.from_pretrained(str(moved))
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[7] += 1
    model.save_pretrained(moved)
    assert BertScore(str(moved), 2, batch_size=7).compute_fingerprint() != before


@pytest.mark.parametrize(
    ("encoder", "layer", "message"),
    [
        (None, 4, "has 3"),
        ("no-such-folder/at-all", 2, "no-such-folder/at-all cannot be loaded"),
    ],
)
def test_encoder_or_layer_that_cannot_be_used_is_refused(
    encoder: str | None,
    layer: int,
    message: str,
    bert_dir: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SweepAborted, match=message):
        BertScore(encoder or bert_dir, layer)


def test_weights_in_pickle_are_refused(bert_dir: str, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(bert_dir, folder)
    torch.save(AutoModel.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(SweepAborted, match="safetensors"):
        BertScore(str(folder), 2)
