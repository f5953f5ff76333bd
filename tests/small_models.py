"""Checkpoints of every family in miniature, as transformers saves them."""

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

from lsmprobe.extraction import models

BLOCKS = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.2,  # sharp attention: what leaks shows
}
CONVOLUTIONS = {
    **BLOCKS,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
LAYER = {"feat_extract_norm": "layer", "conv_bias": True}
STABLE = {**LAYER, "do_stable_layer_norm": True}
DATA2VEC = {"conv_pos_kernel_size": 19, "num_conv_pos_embeddings": 5}
WHISPER = {
    "d_model": 32,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "max_source_positions": 50,  # windows of 1 s
    "vocab_size": 8,
    "pad_token_id": 0,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 48,
    "init_std": 0.2,
}
FAMILIES = {
    "wav2vec2, group norm": {"model_type": "wav2vec2", **CONVOLUTIONS},
    "wav2vec2, layer norm": {"model_type": "wav2vec2", **CONVOLUTIONS, **LAYER},
    "wav2vec2, stable layer norm": {"model_type": "wav2vec2", **CONVOLUTIONS, **STABLE},
    "mms": {"model_type": "wav2vec2", **CONVOLUTIONS, **STABLE, "adapter_attn_dim": 8},
    "hubert, group norm": {"model_type": "hubert", **CONVOLUTIONS},
    "hubert, stable layer norm": {"model_type": "hubert", **CONVOLUTIONS, **STABLE},
    "hubert, batch norm": {"model_type": "hubert", **CONVOLUTIONS, "conv_pos_batch_norm": True},
    "wavlm, group norm": {"model_type": "wavlm", **CONVOLUTIONS},
    "wavlm, stable layer norm": {"model_type": "wavlm", **CONVOLUTIONS, **STABLE},
    "data2vec-audio": {"model_type": "data2vec-audio", **CONVOLUTIONS, **DATA2VEC},
    "unispeech-sat": {"model_type": "unispeech-sat", **CONVOLUTIONS, **STABLE},
    "conformer, relative": {"model_type": "wav2vec2-conformer", **CONVOLUTIONS},
    "conformer, rotary": {
        "model_type": "wav2vec2-conformer",
        **CONVOLUTIONS,
        "position_embeddings_type": "rotary",
    },
    "w2v-bert": {"model_type": "wav2vec2-bert", **BLOCKS},
    "whisper": {"model_type": "whisper", **WHISPER},
}
GROUP = "wav2vec2, group norm"
STABLE_NORM = "wav2vec2, stable layer norm"


def noise(*lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(0.02, 0.1, length).astype(np.float32) for length in lengths]


def write_weights(weights, file):
    """In the place of a file that tensors may still be mapped from: never over its bytes."""
    beside = file.with_name(f".{file.name}")
    save_file(weights, beside, metadata={"format": "pt"})
    beside.replace(file)


def make_checkpoint(folder, config):
    """A checkpoint as published: a transformers model with random weights and its preprocessor."""
    kind = transformers.CONFIG_MAPPING[config["model_type"]]
    torch.manual_seed(1)
    model = transformers.AutoModel.from_config(kind(**config)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()  # such as training leaves
    model.save_pretrained(folder)
    extractor = getattr(transformers, models.MODEL_TYPES[config["model_type"]].extractor)
    extractor(**({"chunk_length": 1} if config["model_type"] == "whisper" else {})).save_pretrained(
        folder
    )
    return folder
