"""A WordPiece tokenizer trained on the data at hand, for models that start from scratch."""

from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer, PreTrainedTokenizerBase

# In this order they get the ids 0 to 4; [PAD] = 0 is BertConfig's default pad_token_id.
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> BertTokenizer:
    """Train a lower-casing WordPiece vocabulary on ``texts`` and wrap it as BERT's fast tokenizer.

    The vocabulary has at most ``vocabulary_size`` entries, special tokens included: fewer where the
    texts have nothing more to merge, more only where their single characters alone exceed it. It
    depends on the multiset of texts only. Pairs are encoded as [CLS] a [SEP] b [SEP] with token types
    0 and 1; ``save_pretrained`` and ``AutoTokenizer.from_pretrained`` give the same tokenizer back.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    distinct_words: set[str] = set()
    lines = list(texts)
    for line in lines:
        normal = tokenizer.normalizer.normalize_str(line)
        distinct_words.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
    # The trainer numbers the ##-characters in the order of a randomly seeded hash map and breaks ties
    # between merges by those numbers (huggingface/tokenizers#1794); named beforehand, they are fixed.
    inner_characters = sorted({f"##{character}" for word in distinct_words for character in word[1:]})
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size, special_tokens=[*SPECIAL_TOKENS, *inner_characters], show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    return BertTokenizer(vocab=tokenizer.get_vocab(with_added_tokens=True))


def is_empty(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether a tokenizer knows only special tokens; transformers builds such a one where files are missing."""
    return len(tokenizer) <= len(set(tokenizer.all_special_ids))
