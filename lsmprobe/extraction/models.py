"""The table of speech models; a name -> its row, or a checkpoint of one's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelType:
    """A family of transformers that is known to run here."""

    extractor: str  # the class that prepares the input


MODEL_TYPES = {
    "wav2vec2": ModelType("Wav2Vec2FeatureExtractor"),
    "hubert": ModelType("Wav2Vec2FeatureExtractor"),
    "wavlm": ModelType("Wav2Vec2FeatureExtractor"),
    "data2vec-audio": ModelType("Wav2Vec2FeatureExtractor"),
    "unispeech-sat": ModelType("Wav2Vec2FeatureExtractor"),
    "wav2vec2-conformer": ModelType("Wav2Vec2FeatureExtractor"),
    "wav2vec2-bert": ModelType("SeamlessM4TFeatureExtractor"),
    "whisper": ModelType("WhisperFeatureExtractor"),
}


@dataclass(frozen=True)
class SpeechModel:
    """A row of the table: where the weights come from, or for `toy` what is built.

    `sha256` is that of the file with the weights, where public projects that pin the same commit
    state it.
    """

    name: str
    hub_id: str | None
    source: str
    revision: str = "main"
    sha256: str | None = None
    config: Mapping[str, Any] | None = None


SPEECH_MODELS: dict[str, SpeechModel] = {
    row.name: row
    for row in (
        SpeechModel(
            name="wav2vec2-base",
            hub_id="facebook/wav2vec2-base",
            source="Baevski et al. 2020, arXiv:2006.11477; Apache-2.0",
            revision="0b5b8e868dd84f03fd87d01f9c4ff0f080fecfe8",
            sha256="3249fe98bfc62fcbc26067f724716a6ec49d12c4728a2af1df659013905dff21",
        ),
        SpeechModel(
            name="wav2vec2-base-960h",
            hub_id="facebook/wav2vec2-base-960h",
            source="Baevski et al. 2020, arXiv:2006.11477; Apache-2.0",
            revision="22aad52d435eb6dbaf354bdad9b0da84ce7d6156",
            sha256="8aa76ab2243c81747a1f832954586bc566090c83a0ac167df6f31f0fa917d74a",
        ),
        SpeechModel(
            name="wav2vec2-large",
            hub_id="facebook/wav2vec2-large",
            source="Baevski et al. 2020, arXiv:2006.11477; Apache-2.0",
            revision="312b2410566b698c7a649068d413b2067848bd75",
        ),
        SpeechModel(
            name="wav2vec2-large-lv60",
            hub_id="facebook/wav2vec2-large-lv60",
            source="Baevski et al. 2020, arXiv:2006.11477; Apache-2.0",
            revision="0cde644b64dac88d8416bec1c92a4099b850ba0b",
            sha256="1d095321ee151b9cbeeb2f325d104bf1813b795c9bbbee58efcde34f701d0386",
        ),
        SpeechModel(
            name="xlsr-53",
            hub_id="facebook/wav2vec2-large-xlsr-53",
            source="Conneau et al. 2020, arXiv:2006.13979; Apache-2.0",
            revision="c3f9d884181a224a6ac87bf8885c84d1cff3384f",
            sha256="314340227371a608f71adcd5f0de5933824fe77e55822aa4b24dba9c1c364dcb",
        ),
        SpeechModel(
            name="xls-r",
            hub_id="facebook/wav2vec2-xls-r-300m",
            source="Babu et al. 2021, arXiv:2111.09296; Apache-2.0",
            revision="1a640f32ac3e39899438a2931f9924c02f080a54",
            sha256="d5e490574712ad0a6736923b9ed11d4cd51c78609c36205f704fc4e87b11d2e0",
        ),
        SpeechModel(
            name="hubert-base",
            hub_id="facebook/hubert-base-ls960",
            source="Hsu et al. 2021, arXiv:2106.07447; Apache-2.0",
            revision="dba3bb02fda4248b6e082697eee756de8fe8aa8a",
            sha256="062249fffb353eab67547a2fbc129f7c31a2f459faf641b19e8fb007cc5c48ad",
        ),
        SpeechModel(
            name="hubert-large",
            hub_id="facebook/hubert-large-ll60k",
            source="Hsu et al. 2021, arXiv:2106.07447; Apache-2.0",
            revision="ff022d095678a2995f3c49bab18a96a9e553f782",
            sha256="45a299050945479a68cffe2ab7a63fd08931718ba18f05a42dbb86a5164178e0",
        ),
        SpeechModel(
            name="wavlm-base-plus",
            hub_id="microsoft/wavlm-base-plus",
            source="Chen et al. 2021, arXiv:2110.13900; CC BY-SA 3.0",
            revision="4c66d4806a428f2e922ccfa1a962776e232d487b",
            sha256="3bb273a6ace99408b50cfc81afdbb7ef2de02da2eab0234e18db608ce692fe51",
        ),
        SpeechModel(
            name="wavlm-large",
            hub_id="microsoft/wavlm-large",
            source="Chen et al. 2021, arXiv:2110.13900; CC BY-SA 3.0",
            revision="c1423ed94bb01d80a3f5ce5bc39f6026a0f4828c",
            sha256="fdee460e529396ddb2f8c8e8ce0ad74cfb747b726bc6f612e666c7c1e1963c9d",
        ),
        SpeechModel(
            name="whisper-tiny",
            hub_id="openai/whisper-tiny",
            source="Radford et al. 2022, arXiv:2212.04356; Apache-2.0",
            revision="169d4a4341b33bc18d8881c4b69c2e104e1cc0af",
            sha256="7ebd0e69e78190ffe1438491fa05cc1f5c1aa3a4c4db3bc1723adbb551ea2395",
        ),
        SpeechModel(
            name="whisper-tiny-en",
            hub_id="openai/whisper-tiny.en",
            source="Radford et al. 2022, arXiv:2212.04356; Apache-2.0",
            revision="87c7102498dcde7456f24cfd30239ca606ed9063",
            sha256="db59695928ded6043adaef491a53ef4e12da9611184d77c53baa691a60b958ad",
        ),
        SpeechModel(
            name="whisper-base",
            hub_id="openai/whisper-base",
            source="Radford et al. 2022, arXiv:2212.04356; Apache-2.0",
            revision="e37978b90ca9030d5170a5c07aadb050351a65bb",
            sha256="07cadb9f25677c8d50df603e66a98fbd842cce45047139baeb16e6219a1e807b",
        ),
        SpeechModel(
            name="whisper-small",
            hub_id="openai/whisper-small",
            source="Radford et al. 2022, arXiv:2212.04356; Apache-2.0",
            revision="973afd24965f72e36ca33b3055d56a652f456b4d",
            sha256="1d7734884874f1a1513ed9aa760a4f8e97aaa02fd6d93a3a85d27b2ae9ca596b",
        ),
        SpeechModel(
            name="whisper-small-en",
            hub_id="openai/whisper-small.en",
            source="Radford et al. 2022, arXiv:2212.04356; Apache-2.0",
            revision="e8727524f962ee844a7319d92be39ac1bd25655a",
            sha256="6014ac49b506df900f66f4aca6b0801eed7245594ace97bcaf73e0ae5b863066",
        ),
        SpeechModel(
            name="whisper-medium",
            hub_id="openai/whisper-medium",
            source="Radford et al. 2022, arXiv:2212.04356; Apache-2.0",
            revision="abdf7c39ab9d0397620ccaea8974cc764cd0953e",
            sha256="62f73550fa6db24b0c6f6c5962bd0dae80fa644e93cde9cd9c3792971b47fd28",
        ),
        SpeechModel(
            name="whisper-large-v3",
            hub_id="openai/whisper-large-v3",
            source="Radford et al. 2022, arXiv:2212.04356; Apache-2.0",
            revision="06f233fe06e710322aca913c1bc4249a0d71fce1",
            sha256="a8e94b85976e5864ba3e9525c7e6c83b2a1eca42d4b797a0c7c24d778e40fd95",
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
