"""Altered copies of examples: what stays, what changes and by how much, and that their labels are hidden."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from distill.config.schema import AUGMENTATIONS, AugmentationConfig
from distill.data import word_replacement
from distill.data.augmentation import augment, cut_span, join, mix_examples
from distill.data.batching import TokenizedExamples
from distill.data.splits import HIDDEN, Examples
from distill.data.tokenization import tokenize, train_tokenizer
from distill.data.word_replacement import load_masked_lm, nearest_words, replace_words, replaceable, whole_words
from distill.utils.errors import UserError

WORDS = ["red", "green", "blue", "one", "two", "three", "cat", "dog", "cow", "house"]
NUM_EXAMPLES = 200


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([" ".join(WORDS), "cats dogs , 3"], vocabulary_size=200)


@pytest.fixture
def make(tokenizer):
    """Return a function that draws texts, or pairs, and tokenises them."""

    def draw(pairs: bool = False, regression: bool = False) -> TokenizedExamples:
        generator = np.random.default_rng(0)
        texts = [
            tuple(" ".join(generator.choice(WORDS, generator.integers(2, 9))) for _ in range(1 + pairs))
            for _ in range(NUM_EXAMPLES)
        ]
        labels = np.arange(NUM_EXAMPLES) % 2
        labels = labels.astype(np.float32) if regression else labels
        return tokenize(Examples(np.arange(NUM_EXAMPLES), texts, labels), tokenizer, max_length=64)

    return draw


@pytest.fixture(scope="module")
def masked_lm(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("masked_lm")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    return load_masked_lm(str(folder), "augmentation.masked_lm", torch.device("cpu"))


def texts_of(examples: TokenizedExamples) -> list[list[int]]:
    return [list(part) for part in np.split(examples.token_ids, examples.offsets[1:-1])]


def embeddings(tokenizer) -> torch.Tensor:
    return torch.randn(len(tokenizer), 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", AUGMENTATIONS)
@pytest.mark.parametrize("pairs", [False, True])
def test_originals_come_first_and_copies_are_well_formed(kind, pairs, make, tokenizer, masked_lm):
    examples = make(pairs)
    settings = AugmentationConfig(copies=2, kinds=[kind])
    found = augment(examples, settings, tokenizer, embeddings(tokenizer), masked_lm, seed=0)
    texts, originals = texts_of(found), texts_of(examples)
    assert len(found) == 3 * NUM_EXAMPLES
    assert texts[:NUM_EXAMPLES] == originals
    assert np.array_equal(found.ids, np.tile(examples.ids, 3))
    assert found.lengths.max() <= examples.lengths.max()
    first, second = texts[NUM_EXAMPLES : 2 * NUM_EXAMPLES], texts[2 * NUM_EXAMPLES :]
    assert first != second
    assert sum(map(list.__ne__, first, originals)) > NUM_EXAMPLES // 2
    for text, types in zip(texts, np.split(found.token_type_ids, found.offsets[1:-1]), strict=True):
        assert text[0] == tokenizer.cls_token_id
        assert text[-1] == tokenizer.sep_token_id
        assert text.count(tokenizer.sep_token_id) == 1 + pairs
        assert np.all(np.diff(types.astype(int)) >= 0)
        assert types[-1] == pairs
        assert tokenizer.mask_token_id not in text


def test_kinds_take_turns_and_a_seed_decides(make, tokenizer):
    def copies(kinds: list[str], seed: int) -> list:
        settings = AugmentationConfig(copies=2, kinds=kinds)
        return texts_of(augment(make(), settings, tokenizer, embeddings(tokenizer), None, seed))[NUM_EXAMPLES:]

    assert copies(["cut", "mix"], 0) == copies(["cut", "mix"], 0) != copies(["cut", "mix"], 1)
    assert copies(["cut", "mix"], 0)[:NUM_EXAMPLES] == copies(["cut"], 0)[:NUM_EXAMPLES]
    assert copies(["cut", "mix"], 0)[NUM_EXAMPLES:] == copies(["mix"], 0)[NUM_EXAMPLES:]


def test_no_copies_are_the_examples(make, tokenizer):
    found = augment(make(), AugmentationConfig(), tokenizer, embeddings(tokenizer), None, seed=0)
    assert texts_of(found) == texts_of(make())
    assert np.array_equal(found.labels, make().labels)


@pytest.mark.parametrize("regression", [False, True])
def test_labels_of_copies_are_hidden(regression, make):
    examples = make(regression=regression)
    labels = join([examples, examples]).labels
    assert np.array_equal(labels[:NUM_EXAMPLES], examples.labels)
    assert labels.dtype == examples.labels.dtype
    hidden = labels[NUM_EXAMPLES:]
    assert np.isnan(hidden).all() if regression else (hidden == HIDDEN).all()


def test_neighbours_are_the_words_of_the_highest_cosine():
    directions = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 2], [0.1, 3], [1, 0.01]])
    words = np.array([True, True, True, True, False])  # the last one points most like the first
    found = nearest_words(directions, words, np.array([0, 2, 4]), count=1)
    assert found.tolist() == [[1], [1], [3], [3], [4]]  # nothing is asked of 1 and 3


def test_words_change_in_the_given_share_and_pieces_never(tokenizer, make):
    examples = make()
    where = replaceable(examples, tokenizer)
    words = whole_words(tokenizer)
    neighbours = nearest_words(embeddings(tokenizer), words, examples.token_ids, 3)
    altered = replace_words(examples, where, neighbours, 0.25, np.random.default_rng(0))
    changed = altered.token_ids != examples.token_ids
    assert not changed[~where].any()
    assert words[altered.token_ids[changed]].all()
    assert changed.sum() / where.sum() == pytest.approx(0.25, abs=0.04)
    pieces = tokenize(Examples(np.arange(1), [("cats catdog cat 3 ,",)], np.zeros(1)), tokenizer, 64)
    tokens = tokenizer.convert_ids_to_tokens(list(pieces.token_ids))
    for number, token in enumerate(tokens):
        alone = not tokens[min(number + 1, len(tokens) - 1)].startswith("##")
        assert replaceable(pieces, tokenizer)[number] == (token.isalpha() and alone)


def test_a_cut_is_one_span_of_the_given_share(make, tokenizer):
    examples = make()
    special = np.array(tokenizer.all_special_ids)
    for before, after in zip(
        texts_of(examples), texts_of(cut_span(examples, special, 0.5, np.random.default_rng(0))), strict=True
    ):
        number = len(before) - 2
        missing = len(before) - len(after)
        assert missing == min(max(1, round(0.5 * number)), number - 1)
        assert after in [before[:start] + before[start + missing :] for start in range(1, len(before) - missing)]


def test_a_mixed_text_begins_as_one_and_ends_as_another(make):
    examples = make()
    originals = texts_of(examples)
    ends = {tuple(text[start:]) for text in originals for start in range(1, len(text))}
    mixed = texts_of(mix_examples(examples, np.random.default_rng(0)))
    for before, after in zip(originals, mixed, strict=True):
        assert any(
            after[:cut] == before[:cut] and tuple(after[cut:]) in ends
            for cut in range(1, min(len(before), len(after)))
        )


def test_a_mixed_pair_has_the_first_text_of_one_and_the_second_of_another(make):
    examples = make(pairs=True)

    def halves(examples: TokenizedExamples) -> list[tuple[tuple, tuple]]:
        parts = zip(texts_of(examples), np.split(examples.token_type_ids, examples.offsets[1:-1]), strict=True)
        return [tuple(tuple(np.array(text)[types == side]) for side in (0, 1)) for text, types in parts]

    before, after = halves(examples), halves(mix_examples(examples, np.random.default_rng(0)))
    assert [first for first, _ in before] == [first for first, _ in after]
    assert sorted(second for _, second in before) == sorted(second for _, second in after)
    assert before != after


def test_a_checkpoint_without_a_head_is_refused(make_bert, tmp_path):
    make_bert().bert.save_pretrained(tmp_path)
    for checkpoint, reason in ((str(tmp_path), "has no masked-LM head"), (None, "from scratch")):
        with pytest.raises(UserError, match=f"{reason}.*leave masked_lm out of augmentation.kinds"):
            load_masked_lm(checkpoint, "teacher.checkpoint", torch.device("cpu"))


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_masked_words_become_what_the_model_expects_most(share, make, tokenizer, masked_lm, monkeypatch):
    monkeypatch.setattr(word_replacement, "BATCH_SIZE", 3)  # texts of several lengths in each of several batches
    examples = make()
    words = np.array([number >= 5 for number in range(len(tokenizer))])
    where = words[examples.token_ids] & (np.arange(len(examples.token_ids)) % 7 > 0)
    given = (masked_lm, tokenizer.mask_token_id, share, 1)
    found = word_replacement.predict_words(examples, where, words, *given, np.random.default_rng(3))
    chosen = where & (np.random.default_rng(3).random(len(where)) < share)
    assert chosen.any() == (share > 0)
    expected = []
    for tokens, masked in zip(texts_of(examples), np.split(chosen, examples.offsets[1:-1]), strict=True):
        ids = torch.tensor(np.where(masked, tokenizer.mask_token_id, tokens))[None]
        with torch.inference_mode():
            logits = masked_lm(input_ids=ids).logits[0].masked_fill(~torch.from_numpy(words), -torch.inf)
        expected.append(np.where(masked, logits.argmax(-1).numpy(), tokens).tolist())
    assert texts_of(found) == expected
