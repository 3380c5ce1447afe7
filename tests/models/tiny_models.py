"""Vision-language models of random weights, a few hundred kB each, built in a folder in a second.

Stock architectures of transformers with a tokenizer, an image processor and a chat template, so
that they load as any published model of their family does. Their answers mean nothing; that they
answer, see every image and know an image's place is what tests ask.
"""

from __future__ import annotations

from collections.abc import Callable
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
CHATML = ("<|im_start|>", "\\n", "<|im_end|>\\n")  # transformers serve looks for it in a Qwen
SPECIAL = ("<pad>", "<bos>", "<eos>", "<user>", "<assistant>")


def build_llava(folder: Path, seed: int = 0) -> Path:
    """LLaVA: a CLIP tower of 56 pixels and a Llama, about 170,000 parameters."""
    tokenizer = _tokenizer(image_token="<image>")
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


def build_llava_next(folder: Path, seed: int = 0) -> Path:
    """LLaVA-NeXT: the same, with tiles of a larger picture."""
    tokenizer = _tokenizer(image_token="<image>")
    config = hf.LlavaNextConfig(
        vision_config=_clip(),
        text_config=_llama(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        image_grid_pinpoints=[[56, 112], [112, 56]],
    )
    pictures = hf.LlavaNextImageProcessorPil(
        size={"shortest_edge": 56},
        crop_size={"height": 56, "width": 56},
        image_grid_pinpoints=[[56, 112], [112, 56]],
    )
    processor = hf.LlavaNextProcessor(
        pictures,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_template("<image>"),
    )
    return _saved(folder, hf.LlavaNextForConditionalGeneration, config, processor, seed)


def build_qwen2_5_vl(folder: Path, seed: int = 0) -> Path:
    """Qwen2.5-VL: pictures at their own size, positions in three dimensions."""
    marks = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = _tokenizer(*marks[:2], image_token=marks[2], video_token=marks[3])
    start, end, image, video = (tokenizer.convert_tokens_to_ids(mark) for mark in marks)
    config = hf.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": 2048, "pad_token_id": 0, "bos_token_id": 1,
            "eos_token_id": 2, "rope_parameters": {
                "rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4,
            },
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2,
            "patch_size": 14, "out_hidden_size": 64, "fullatt_block_indexes": [1],
            "window_size": 56,
        },
        vision_start_token_id=start, vision_end_token_id=end,
        image_token_id=image, video_token_id=video,
    )  # fmt: skip
    processor = hf.Qwen2_5_VLProcessor(
        hf.Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=112 * 112),
        tokenizer,
        hf.Qwen2VLVideoProcessor(),
        chat_template=_template("".join((marks[0], marks[2], marks[1])), CHATML),
    )
    return _saved(folder, hf.Qwen2_5_VLForConditionalGeneration, config, processor, seed)


def build_internvl(folder: Path, seed: int = 0) -> Path:
    """InternVL: four tokens for a picture of 56 pixels, and a Qwen2."""
    marks = ("<IMG_CONTEXT>", "<img>", "</img>", "<video>")
    names = ("context_image_token", "start_image_token", "end_image_token", "video_token")
    tokenizer = _tokenizer(**dict(zip(names, marks, strict=True)))
    config = hf.InternVLConfig(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": [56, 56], "patch_size": [14, 14],
        },
        text_config=hf.Qwen2Config(
            vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
            pad_token_id=0, bos_token_id=1, eos_token_id=2,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids(marks[0]),
        image_seq_length=4,
    )  # fmt: skip
    processor = hf.InternVLProcessor(
        hf.GotOcr2ImageProcessorPil(size={"height": 56, "width": 56}, crop_to_patches=False),
        tokenizer,
        hf.InternVLVideoProcessor(size={"height": 56, "width": 56}),
        image_seq_length=4,
        chat_template=_template(marks[0]),
    )
    return _saved(folder, hf.InternVLForConditionalGeneration, config, processor, seed)


def build_idefics3(folder: Path, seed: int = 0) -> Path:
    """Idefics3, which SmolVLM follows: tiles named by row and column, pixels shuffled together."""
    tiles = [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)]
    marks = ("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *tiles)
    tokenizer = _tokenizer(*marks[1:], image_token=marks[0])
    config = hf.Idefics3Config(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 56, "patch_size": 14,
        },
        text_config=_llama(),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )  # fmt: skip
    processor = hf.Idefics3Processor(
        hf.Idefics3ImageProcessorPil(
            size={"longest_edge": 112}, max_image_size={"longest_edge": 56}
        ),
        tokenizer,
        image_seq_len=4,
        chat_template=_template("<image>"),
    )
    return _saved(folder, hf.Idefics3ForConditionalGeneration, config, processor, seed)


def build_gemma3(folder: Path, seed: int = 0) -> Path:
    """Gemma 3: a SigLIP tower pooled to four tokens, sliding windows in the text."""
    marks = ("<image_soft_token>", "<start_of_image>", "<end_of_image>")
    names = ("image_token", "boi_token", "eoi_token")
    tokenizer = _tokenizer(**dict(zip(names, marks, strict=True)))
    soft, boi, eoi = (tokenizer.convert_tokens_to_ids(mark) for mark in marks)
    config = hf.Gemma3Config(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 56, "patch_size": 14,
        },
        text_config={
            "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 16, "max_position_embeddings": 2048, "sliding_window": 512,
            "tie_word_embeddings": False,  # tied, random ones repeat the last token
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        },
        tie_word_embeddings=False, mm_tokens_per_image=4,
        image_token_index=soft, boi_token_index=boi, eoi_token_index=eoi,
    )  # fmt: skip
    processor = hf.Gemma3Processor(
        hf.Gemma3ImageProcessorPil(size={"height": 56, "width": 56}),
        tokenizer,
        image_seq_length=4,
        chat_template=_template("<start_of_image>"),
    )
    return _saved(folder, hf.Gemma3ForConditionalGeneration, config, processor, seed)


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


def _tokenizer(*special: str, **named: str) -> Any:
    """A byte-level BPE; ``named`` special tokens are attributes that processors look for."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[*SPECIAL, *special, *named.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        extra_special_tokens=named,
        padding_side="left",
    )


def _template(image: str, turn: tuple[str, str, str] = ("<", ">", "")) -> str:
    """What opens a turn, before and after its role, and closes it; images where they stand."""
    before, after, end = turn
    return (
        f"{{%- for m in messages -%}}{{{{- '{before}' + m.role + '{after}' -}}}}"
        "{%- if m.content is string -%}{{- m.content -}}{%- else -%}"
        "{%- for part in m.content -%}"
        "{%- if part.type == 'text' -%}{{- part.text -}}"
        f"{{%- else -%}}{{{{- '{image}' -}}}}{{%- endif -%}}"
        f"{{%- endfor -%}}{{%- endif -%}}{{{{- '{end}' -}}}}{{%- endfor -%}}"
        f"{{%- if add_generation_prompt -%}}{{{{- '{before}assistant{after}' -}}}}{{%- endif -%}}"
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


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "llava": build_llava,
    "qwen2_5_vl": build_qwen2_5_vl,
    "llava_next": build_llava_next,
    "internvl": build_internvl,
    "idefics3": build_idefics3,
    "gemma3": build_gemma3,
}
