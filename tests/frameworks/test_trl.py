"""Fine-tuning with TRL and PEFT through the Transformers integration, on a model and a tokenizer made here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
trl = pytest.importorskip("trl", reason="this needs trl")
datasets = pytest.importorskip("datasets")
peft = pytest.importorskip("peft", reason="this needs peft")
import tokenizers  # noqa: E402

from mlops_integrations.transformers import MLOpsCallback  # noqa: E402

Read = Callable[[Path], Any]
Options = Mapping[str, str]

WORDS = ["[PAD]", "[UNK]", "[EOS]", "one", "two", "three", "and"]


def tokenizer() -> Any:
    """Knows seven words."""
    model = tokenizers.models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]")
    plain = tokenizers.Tokenizer(model)
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[EOS]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=plain, **marks)


def model() -> Any:
    """A GPT-2 of a few thousand parameters."""
    config = transformers.GPT2Config(
        vocab_size=len(WORDS), n_positions=32, n_embd=8, n_layer=1, n_head=2, bos_token_id=2, eos_token_id=2
    )
    return transformers.GPT2LMHeadModel(config)


def test_supervised_fine_tuning(recorded: Read, local: Options, tmp_path: Path) -> None:
    """An SFT run with an adapter is recorded: TRL's own metrics, the parameters of both, the sizes."""
    callback = MLOpsCallback(**local)
    config = trl.SFTConfig(
        str(tmp_path / "output"), max_steps=3, logging_steps=1, eval_strategy="steps", eval_steps=3, save_strategy="no",
        report_to="none", use_cpu=True, disable_tqdm=True, max_length=16, bf16=False,
    )  # fmt: skip
    texts = datasets.Dataset.from_dict({"text": ["one and two", "two and three", "three and one"] * 4})
    adapter = peft.LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM")
    fit = trl.SFTTrainer(
        model(), args=config, train_dataset=texts, eval_dataset=texts, processing_class=tokenizer(),
        peft_config=adapter, callbacks=[callback],
    )  # fmt: skip
    fit.train()
    run = recorded(callback.run.directory)
    for key in ("loss", "mean_token_accuracy", "num_tokens", "entropy"):
        assert [entry[key] for entry in fit.state.log_history if key in entry] == [
            value for _, value in run.curve(f"train/{key}")
        ]
    assert 3 == len(run.curve("train/loss"))
    assert [3] == [step for step, _ in run.curve("eval/loss")]
    trainable, total = fit.model.get_nb_trainable_parameters()
    expected = {
        "max_length": "16",
        "model/n_embd": "8",
        "peft/default/r": "2",
        "peft/default/target_modules": "['c_attn']",
        "model/num_parameters": str(total),
        "model/num_trainable_parameters": str(trainable),
    }
    assert expected == {key: run.params.get(key) for key in expected}
    assert 0 < trainable < total
    assert "FINISHED" == run.ending.status
    assert {} == run.losses
