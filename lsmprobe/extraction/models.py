"""The table of speech models; a name -> its row, or a checkpoint of one's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class ModelType:
    """A family of transformers that is known to run here.

    Its config.json has no say in `attention`: it might name a program of the hub there.
    """

    extractor: str  # the class that prepares the input
    attention: Literal["sdpa", "eager"] = "sdpa"


MODEL_TYPES = {
    "wav2vec2": ModelType("Wav2Vec2FeatureExtractor"),
    "hubert": ModelType("Wav2Vec2FeatureExtractor"),
    "wavlm": ModelType("Wav2Vec2FeatureExtractor", attention="eager"),
    "data2vec-audio": ModelType("Wav2Vec2FeatureExtractor"),
    "unispeech-sat": ModelType("Wav2Vec2FeatureExtractor"),
    "wav2vec2-conformer": ModelType("Wav2Vec2FeatureExtractor"),
    "wav2vec2-bert": ModelType("SeamlessM4TFeatureExtractor"),
    "whisper": ModelType("WhisperFeatureExtractor"),
}


@dataclass(frozen=True)
class SpeechModel:
    """A row of the table: where the weights come from, or for `toy` what is built."""

    name: str
    hub_id: str | None
    source: str
    revision: str = "main"
    config: Mapping[str, Any] | None = None


SPEECH_MODELS: dict[str, SpeechModel] = {
    row.name: row
    for row in (
        SpeechModel(
            name="wav2vec2-base",
            hub_id="facebook/wav2vec2-base",
            source="Baevski et al. 2020, arXiv:2006.11477; Apache-2.0",
            revision="0b5b8e868dd84f03fd87d01f9c4ff0f080fecfe8",
        ),
        SpeechModel(
            name="wav2vec2-base-960h",
            hub_id="facebook/wav2vec2-base-960h",
            source="Baevski et al. 2020, arXiv:2006.11477; Apache-2.0",
            revision="22aad52d435eb6dbaf354bdad9b0da84ce7d6156",
        ),
        SpeechModel(
            name="wav2vec2-large",
            hub_id="facebook/wav2vec2-large",
            source="Baevski et al. 2020, arXiv:2006.11477; Apache-2.0",
        ),
        SpeechModel(
            name="wav2vec2-large-lv60",
            hub_id="facebook/wav2vec2-large-lv60",
            source="Baevski et al. 2020, arXiv:2006.11477; Apache-2.0",
            revision="0cde644b64dac88d8416bec1c92a4099b850ba0b",
        ),
        SpeechModel(
            name="xlsr-53",
            hub_id="facebook/wav2vec2-large-xlsr-53",
            source="Conneau et al. 2020, arXiv:2006.13979; Apache-2.0",
            revision="c3f9d884181a224a6ac87bf8885c84d1cff3384f",
        ),
        SpeechModel(
            name="xls-r",
            hub_id="facebook/wav2vec2-xls-r-300m",
            source="Babu et al. 2021, arXiv:2111.09296; Apache-2.0",
            revision="1a640f32ac3e39899438a2931f9924c02f080a54",
        ),
        SpeechModel(
            name="hubert-base",
            hub_id="facebook/hubert-base-ls960",
            source="Hsu et al. 2021, arXiv:2106.07447; Apache-2.0",
            revision="dba3bb02fda4248b6e082697eee756de8fe8aa8a",
        ),
        SpeechModel(
            name="hubert-large",
            hub_id="facebook/hubert-large-ll60k",
            source="Hsu et al. 2021, arXiv:2106.07447; Apache-2.0",
            revision="ff022d095678a2995f3c49bab18a96a9e553f782",
        ),
        SpeechModel(
            name="wavlm-base-plus",
            hub_id="microsoft/wavlm-base-plus",
            source="Chen et al. 2021, arXiv:2110.13900; CC BY-SA 3.0",
            revision="4c66d4806a428f2e922ccfa1a962776e232d487b",
        ),
        SpeechModel(
            name="wavlm-large",
            hub_id="microsoft/wavlm-large",
            source="Chen et al. 2021, arXiv:2110.13900; CC BY-SA 3.0",
            revision="c1423ed94bb01d80a3f5ce5bc39f6026a0f4828c",
        ),
        SpeechModel(
            name="whisper-tiny",
            hub_id="openai/whisper-tiny",
            source="Radford et al. 2022, arXiv:2212.04356; Apache-2.0",
            revision="169d4a4341b33bc18d8881c4b69c2e104e1cc0af",
        ),
        SpeechModel(
            name="whisper-tiny-en",
            hub_id="openai/whisper-tiny.en",
            source="Radford et al. 2022, arXiv:2212.04356; Apache-2.0",
            revision="87c7102498dcde7456f24cfd30239ca606ed9063",
        ),
        SpeechModel(
            name="whisper-base",
            hub_id="openai/whisper-base",
            source="Radford et al. 2022, arXiv:2212.04356; Apache-2.0",
            revision="e37978b90ca9030d5170a5c07aadb050351a65bb",
        ),
        SpeechModel(
            name="whisper-small",
            hub_id="openai/whisper-small",
            source="Radford et al. 2022, arXiv:2212.04356; Apache-2.0",
            revision="973afd24965f72e36ca33b3055d56a652f456b4d",
        ),
        SpeechModel(
            name="whisper-small-en",
            hub_id="openai/whisper-small.en",
            source="Radford et al. 2022, arXiv:2212.04356; Apache-2.0",
            revision="e8727524f962ee844a7319d92be39ac1bd25655a",
        ),
        SpeechModel(
            name="whisper-medium",
            hub_id="openai/whisper-medium",
            source="Radford et al. 2022, arXiv:2212.04356; Apache-2.0",
            revision="abdf7c39ab9d0397620ccaea8974cc764cd0953e",
        ),
        SpeechModel(
            name="whisper-large-v3",
            hub_id="openai/whisper-large-v3",
            source="Radford et al. 2022, arXiv:2212.04356; Apache-2.0",
            revision="06f233fe06e710322aca913c1bc4249a0d71fce1",
        ),
        # XLS-R in miniature, with random weights: real frames, nothing to download. Convolutions
        # with a bias and no normalisation of the input, so that the states keep the loudness.
        SpeechModel(
            name="toy",
            hub_id=None,
            source="random weights; the architecture of Babu et al. 2021, arXiv:2111.09296",
            config={
                "model_type": "wav2vec2",
                "feat_extract_norm": "layer",
                "conv_bias": True,
                "conv_dim": [32] * 7,
                "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
                "conv_stride": [5, 2, 2, 2, 2, 2, 2],
                "do_stable_layer_norm": True,
                "num_hidden_layers": 4,
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_attention_heads": 4,
                "num_conv_pos_embeddings": 32,
                "num_conv_pos_embedding_groups": 4,
                "initializer_range": 0.1,  # the usual 0.02 leaves neighbouring layers almost equal
            },
        ),
    )
}
