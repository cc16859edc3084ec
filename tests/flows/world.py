"""A world small enough for a test: prose that passes every rule, a model folder, a recipe, and `dapt` itself.

The prose is random words with a seed: documents differ, none repeats itself, none resembles another. One
document is too short and one stands twice, so that each verdict has an example.
"""

import json
import os
import random
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from flows.recipe import Recipe, load_recipe
from flows.resolve import Resolved, resolve
from tasks.settings import Settings

ROOT = Path(__file__).parents[2]
LENGTH = 64
_SYLLABLES = ("ba", "co", "di", "fe", "gu", "ka", "lo", "mi", "ne", "pu", "ra", "so", "ti", "ve", "wu", "za")
SHORT = "Too short to keep.\nIt has two lines."


def prose(number: int) -> str:
    """A document of ten lines; another one for each number."""
    chosen = random.Random(number)
    words = ["".join(chosen.choices(_SYLLABLES, k=chosen.randint(2, 4))) for _ in range(90)]
    lines = [" ".join(words[at : at + 9]).capitalize() + "." for at in range(0, len(words), 9)]
    return "\n".join(lines)


def documents(first: int, count: int) -> list[str]:
    """So many documents; the third is too short, the fifth says what the fourth says."""
    found = [prose(number) for number in range(first, first + count)]
    found[2], found[4] = f"{SHORT} {first}", found[3]
    return found


def write_jsonl(file: Path, texts: list[str]) -> None:
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def write_model(folder: Path, *, context: int = 256) -> Path:
    """A Llama's config without weights, and a byte-level BPE: what `base_model` may name."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(map(prose, range(20)), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 320,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": context,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@dataclass(frozen=True)
class World:
    """A folder with data, a model, a recipe and a store."""

    folder: Path

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.toml"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def settings(self) -> Settings:
        return Settings(store=str(self.store), workers=2, ranks=1)

    def load(self, *overrides: str) -> Recipe:
        return load_recipe(self.recipe, overrides)

    def resolve(self, *overrides: str) -> Resolved:
        return resolve(self.load(*overrides), self.settings)

    def env(self, **more: str) -> dict[str, str]:
        """The environment of a `dapt` that works here, with nothing of the caller's own settings."""
        own = ("DAPT_", "PREFECT_", "COLUMNS", "TERM")
        mine = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        here = {
            "DAPT_STORE": str(self.store),
            "DAPT_WORKERS": "2",
            "DAPT_RANKS": "1",
            "PYTHONPATH": str(ROOT),
        }
        return {**mine, **here, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **more}


RECIPE = f"""\
name = "tiny"
seed = 5

[budget]
milestones = ["5K", "11K"]

[download]
files = ["domain/*.jsonl"]
shard_bytes = SHARD_BYTES

[packing]
sequence_length = {LENGTH}

[held_out]
fraction = 0.2
max_documents = 8

[general]
files = ["general/*.jsonl"]

[training]
base_model = "./model"
learning_rate = 1e-3
global_batch_sequences = 4
precision = "fp32"
zero_stage = 1
checkpoint_every = 5

[evaluation]
benchmarks = []
"""


def make_world(folder: Path, *, shards: int = 4, per_shard: int = 20) -> World:
    """Write one: about 5,000 tokens in a shard."""
    for name in ("domain", "general"):
        (folder / name).mkdir(parents=True)
    for shard in range(shards):
        write_jsonl(folder / "domain" / f"{shard}.jsonl", documents(1000 + 100 * shard, per_shard))
    write_jsonl(folder / "general" / "0.jsonl", documents(9000, 20))
    write_model(folder / "model")
    text_bytes = (folder / "domain" / "0.jsonl").stat().st_size
    (folder / "recipe.toml").write_text(RECIPE.replace("SHARD_BYTES", str(text_bytes)))
    return World(folder)
