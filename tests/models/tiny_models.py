"""Vision-language models of random weights, a few hundred kB each, built in a folder in a second.

Stock architectures of transformers with a tokenizer, an image processor and a chat template, so
that they load as any published model of their family does. Their answers mean nothing; that they
answer, see every image and know an image's place is what tests ask.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 400
CORPUS = (
    "Rate the quality of the test image. Score: 50. Answer: first, second or comparable.",
    "Images, in order: image 1 is the reference; image 2 is the test image. Ranks: A=0, B=1, C=2",
)
SPECIAL = ("<pad>", "<bos>", "<eos>", "<user>", "<assistant>")


def build_llava(folder: Path, seed: int = 0) -> Path:
    """LLaVA: a CLIP tower of 56 pixels and a Llama, about 170,000 parameters."""
    tokenizer = _tokenizer("<image>")
    config = hf.LlavaConfig(
        vision_config=_clip(),
        text_config=_llama(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    processor = hf.LlavaProcessor(
        _clip_pictures(),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_template("<image>"),
    )
    return _saved(folder, hf.LlavaForConditionalGeneration, config, processor, seed)


def _clip() -> Any:
    return hf.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        image_size=56, patch_size=14,
    )  # fmt: skip


def _llama() -> Any:
    return hf.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def _clip_pictures() -> Any:
    return hf.CLIPImageProcessorPil(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
    )


def _tokenizer(*special: str) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[*SPECIAL, *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        extra_special_tokens={"image_token": special[0]},
        padding_side="left",
    )


def _template(image: str) -> str:
    return (
        "{%- for m in messages -%}{{- '<' + m.role + '>' -}}"
        "{%- if m.content is string -%}{{- m.content -}}{%- else -%}"
        "{%- for part in m.content -%}"
        "{%- if part.type == 'text' -%}{{- part.text -}}"
        f"{{%- else -%}}{{{{- '{image}' -}}}}{{%- endif -%}}"
        "{%- endfor -%}{%- endif -%}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<assistant>' -}}{%- endif -%}"
    )


def _saved(folder: Path, model_class: Any, config: Any, processor: Any, seed: int) -> Path:
    """Random weights, large enough that an image changes the answer."""
    torch.manual_seed(seed)
    model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.25)
            elif not parameter.any():  # gates and biases that start at 0 hide the images
                parameter.normal_(0, 0.1)
    model.generation_config = hf.GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
