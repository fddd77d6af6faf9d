from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import warm
from helpers.closeness import assert_close
from helpers.tiny_bert import tiny_bert

from distill.data.batching import TokenizedExamples
from distill.evaluation.predict import predict_logits

ROOT = Path(__file__).resolve().parents[3]


def random_examples(count, seed=0, max_length=30):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(2, max_length, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = generator.integers(5, 50, offsets[-1]).astype(np.int32)
    types = generator.integers(0, 2, offsets[-1]).astype(np.uint8)
    return TokenizedExamples(ids, types, offsets, np.zeros(count, np.int64), np.arange(count))


def reordered(examples, order):
    pieces = [slice(examples.offsets[i], examples.offsets[i + 1]) for i in order]
    return TokenizedExamples(
        np.concatenate([examples.token_ids[piece] for piece in pieces]),
        np.concatenate([examples.token_type_ids[piece] for piece in pieces]),
        np.concatenate([[0], np.cumsum(examples.lengths[order])]),
        examples.labels[order],
        examples.ids[order],
    )


def bert():
    return tiny_bert(hidden_size=32, intermediate_size=64, num_labels=3).train()


@pytest.fixture(scope="module")
def model():
    return bert()


def predict(model, examples, batch_size=8, **options):
    return predict_logits(model, examples, batch_size=batch_size, device="cpu", **options)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_logits_do_not_depend_on_the_batch(model, batch_size):
    examples = random_examples(37)
    logits = predict(model, examples, batch_size)
    assert logits.shape == (37, 3)
    assert logits.dtype == np.float32
    assert_close(logits, predict(model, examples))
    assert logits.std(axis=0).min() > 0.01  # examples do differ


def test_logits_come_in_the_order_of_the_examples(model):
    examples = random_examples(20)
    order = np.random.default_rng(1).permutation(20)
    assert_close(predict(model, reordered(examples, order)), predict(model, examples)[order])


def test_logits_are_those_of_the_bare_model(model):
    examples = random_examples(3)
    logits = predict(model, examples)
    model.eval()
    for index in range(3):
        piece = slice(examples.offsets[index], examples.offsets[index + 1])
        with torch.no_grad():
            alone = model(
                input_ids=torch.tensor(examples.token_ids[piece][None].astype(np.int64)),
                token_type_ids=torch.tensor(examples.token_type_ids[piece][None].astype(np.int64)),
            )
        assert_close(logits[index], alone.logits[0])


def test_every_module_gets_its_mode_back(model):
    model.train()
    model.bert.embeddings.eval()
    before = {name: module.training for name, module in model.named_modules()}
    first, again = predict(model, random_examples(5)), predict(model, random_examples(5))
    assert {name: module.training for name, module in model.named_modules()} == before
    assert np.array_equal(first, again)  # dropout was off

    with pytest.raises(IndexError):
        predict(model, out_of_vocabulary())
    assert {name: module.training for name, module in model.named_modules()} == before
    model.eval()


def out_of_vocabulary():
    examples = random_examples(2)
    return TokenizedExamples(
        examples.token_ids + 1000, examples.token_type_ids, examples.offsets, examples.labels, examples.ids
    )


def test_training_goes_on_after_predicting(model):
    model.train()
    predict(model, random_examples(5))
    model(input_ids=torch.tensor([[5, 6]]), labels=torch.tensor([1])).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.zero_grad()
    model.eval()


def test_a_tensor_the_model_keeps_from_predicting_can_be_trained_with(model):
    # As ZeRO-3 does with gathered weights; under inference_mode the multiplication below cannot be trained.
    kept = []
    hook = model.classifier.register_forward_hook(lambda module, inputs, output: kept.append(output))
    predict(model, random_examples(5))
    hook.remove()
    weight = torch.ones(3, requires_grad=True)
    (kept[0] * weight).sum().backward()
    assert weight.grad is not None


def test_autocast_returns_float32_near_the_exact_logits(model):
    examples = random_examples(9)
    logits = predict(model, examples, autocast_dtype=torch.bfloat16)
    assert logits.dtype == np.float32
    exact = predict(model, examples)
    assert 0 < np.abs(logits - exact).max() < 0.2 * np.abs(exact).max()


def test_no_examples_are_refused(model):
    with pytest.raises(ValueError, match="no examples"):
        predict(model, TokenizedExamples(*(np.empty(0, int) for _ in range(2)), np.zeros(1, int), *[np.empty(0)] * 2))


TWO_PROCESSES = """
import sys

import numpy as np
from accelerate import Accelerator

sys.path[:0] = PATHS
from test_predict import bert, predict, random_examples



def work(accelerator):
    calls = []
    for wrap in (False, True):
        model = bert()
        model.register_forward_hook(lambda module, inputs, output: calls.append(len(output.logits)))
        model = accelerator.prepare(model) if wrap else model
        for count in (1, 2, 3, 17, 32):
            logits = predict(model, random_examples(count), 4)
            np.save(f"{sys.argv[1]}/{accelerator.process_index}_{count}_{int(wrap)}.npy", logits)
    if accelerator.is_main_process:  # waits for nobody
        alone = predict(bert(), random_examples(17), 4, alone=True)
        np.save(f"{sys.argv[1]}/alone.npy", alone)
    assert sum(calls) < 2 * (1 + 2 + 3 + 17 + 32), "every process predicted everything"


accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == 2
work(accelerator)  # a wrapped model that lives on holds the process group, whose threads abort the interpreter's end
accelerator.free_memory()
accelerator.end_training()
"""


@pytest.mark.slow
def test_two_processes_share_the_work_and_agree(model, tmp_path):
    paths = [str(path) for path in (ROOT, ROOT / "tests", Path(__file__).parent)]
    (tmp_path / "script.py").write_text(TWO_PROCESSES.replace("PATHS", repr(paths)))
    ranks = warm.Ranks(2, [str(tmp_path / "script.py"), str(tmp_path)], warm.environment())
    _, errors = ranks.communicate(timeout=180)
    assert ranks.returncode == 0, errors[:6000]
    assert_close(np.load(tmp_path / "alone.npy"), predict(model, random_examples(17), 4))
    for count in (1, 2, 3, 17, 32):
        expected = predict(model, random_examples(count), 4)
        for process in (0, 1):
            for wrapped in (0, 1):
                assert_close(np.load(tmp_path / f"{process}_{count}_{wrapped}.npy"), expected)
