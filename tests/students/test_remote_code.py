"""A saved student carries its source: it loads where this repository is not installed."""

import torch
from helpers.closeness import LAST_BITS, assert_close
from helpers.small_students import batch, logits_elsewhere, run_elsewhere, student
from transformers import BertTokenizer

from students import ATTENTIONS, StudentConfig, StudentForCausalLM

ELSEWHERE = """
import json, sys, torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer
folder, again = sys.argv[1:]
batch = {name: torch.tensor(rows) for name, rows in json.load(sys.stdin).items()}
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
encoder = AutoModel.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
tokens = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)("good film")["input_ids"]
model.save_pretrained(again)  # a loaded student can be saved and loaded once more
reloaded = AutoModelForSequenceClassification.from_pretrained(again, trust_remote_code=True)
assert "students" not in sys.modules
result = {
    "logits": model(**batch).logits.tolist(),
    "reloaded": reloaded(**batch).logits.tolist(),
    "pooled": encoder(**batch).pooler_output.tolist(),
    "tokens": tokens,
    "attention": config.attention,
}
print(json.dumps(result))
"""


def test_checkpoint_loads_in_a_fresh_process_without_this_repository(tmp_path):
    model = student(softmax_layers=[0])
    folder = tmp_path / "a student.v1"
    model.save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "film"]
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(words)})
    tokenizer.save_pretrained(folder)
    result = run_elsewhere(ELSEWHERE, batch(), tmp_path, str(folder), str(tmp_path / "again"))
    expected = model(**batch())
    # One thread there, perhaps several here: sums may differ in the last bit.
    assert_close(torch.tensor(result["logits"]), expected.logits, LAST_BITS)
    assert result["reloaded"] == result["logits"]
    assert_close(torch.tensor(result["pooled"]), model.bert(**batch()).pooler_output, LAST_BITS)
    assert result["tokens"] == [2, 5, 6, 3]
    assert result["attention"] == "performer"


def test_every_mechanism_loads_without_this_repository(tmp_path):
    """One process for all: a mechanism's source comes with its checkpoint, shared helpers included."""
    models = {}
    for name, attention in ATTENTIONS.items():
        models[name] = student(attention=name, attention_options=dict(attention.small_options))
        models[name].save_pretrained(tmp_path / "students" / name)
    models["softmax throughout"] = student(attention="performer", softmax_layers=[0, 1])
    models["softmax throughout"].save_pretrained(tmp_path / "students" / "softmax throughout")
    logits = logits_elsewhere(batch(), tmp_path)
    assert set(logits) == set(models)
    for name, model in models.items():
        # One thread there, perhaps several here: sums may differ in the last bit.
        expected = model(**batch()).logits
        assert_close(logits[name], expected, LAST_BITS)


def test_saving_writes_exactly_the_model_and_its_source(tmp_path):
    student().save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors",
        "modeling.py",
        "configuration.py",
        "embeddings.py",
        "encoder.py",
        "unpadded.py",
        "layer_sizes.py",
        "remote_code.py",
        "attention.py",
        "attention_base.py",
        "attention_mixture.py",
        "attention_options.py",
        "attention_ops_banded.py",
        "attention_ops_by_length.py",
        "attention_ops_causal.py",
        "attention_ops_chunks.py",
        "attention_ops_favor.py",
        "attention_ops_masking.py",
        "attention_ops_orthogonal_projection.py",
        "attention_ops_reference.py",
        "attention_ops_running.py",
        "attention_performer.py",
        "attention_ops_random_features.py",
    }
    student().save_pretrained(tmp_path / "other_rank", is_main_process=False)
    assert not list((tmp_path / "other_rank").glob("*.py"))


WRITES = """
import json, sys, torch
from transformers import AutoModelForCausalLM
folder = sys.argv[1]
batch = {name: torch.tensor(rows) for name, rows in json.load(sys.stdin).items()}
results = {}
for name in sys.argv[2:]:
    model = AutoModelForCausalLM.from_pretrained(f"{folder}/{name}", trust_remote_code=True)
    given = batch["input_ids"][:1]
    mask = torch.ones_like(given)
    written = model.generate(given, attention_mask=mask, max_new_tokens=4, do_sample=False, pad_token_id=0)
    results[name] = written.tolist()
assert "students" not in sys.modules
print(json.dumps(results))
"""


def test_language_models_write_without_this_repository(tmp_path):
    models = {}
    for name, attention in ATTENTIONS.items():
        if attention.why_not_causal is None:
            torch.manual_seed(0)
            options = {"attention_options": dict(attention.small_options), "num_hidden_layers": 1, "vocab_size": 30}
            sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
            models[name] = StudentForCausalLM(StudentConfig(attention=name, causal=True, **sizes, **options)).eval()
            models[name].save_pretrained(tmp_path / "models" / name)
    given = {"input_ids": [[5, 9, 7, 11, 3]]}
    tensors = {name: torch.tensor(rows) for name, rows in given.items()}
    found = run_elsewhere(WRITES, tensors, tmp_path, str(tmp_path / "models"), *models)
    for name, model in models.items():
        mask = torch.ones(1, 5, dtype=torch.long)
        written = model.generate(
            tensors["input_ids"], attention_mask=mask, max_new_tokens=4, do_sample=False, pad_token_id=0
        )
        assert found[name] == written.tolist()
