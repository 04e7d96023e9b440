"""An explanation made by hand, for the tests of what is derived from one."""

from phonefit.pipeline.explain.result import DecomposeEffect, Effect, Explanation, LayerExplanation, PruneEffect, Timing

FIRST = LayerExplanation(
    name="features.stage1.0.body.expand.conv",
    kind="conv 1x1",
    output=(96, 48, 48),
    calls=1,
    float_bytes=6144,
    int8_bytes=2304,
    multiply_adds=3_538_944,
    nanoseconds=900.0,
    int8=Effect(error=0.0003),
    prune=(
        PruneEffect(error=0.1, loss=0.02, share=0.25, channels=24),
        PruneEffect(error=12.0, loss=0.3, share=0.5, channels=48),
    ),
    pruned_with=("features.stage1.0.body.depthwise.conv",),
    decompose=DecomposeEffect(
        error=0.36, loss=0.1, method="svd", ranks=(8,), layer_error=0.3, multiply_adds=2_064_384, parameters=896
    ),
)
SECOND = LayerExplanation(
    name="features.stage1.0.body.depthwise.conv",
    kind="depthwise 3x3 /2",
    output=(96, 24, 24),
    calls=1,
    float_bytes=3456,
    int8_bytes=1632,
    multiply_adds=497_664,
    nanoseconds=100.0,
    int8=Effect(error=0.02),
    prune=(
        PruneEffect(error=0.1, loss=0.02, share=0.25, channels=24),
        PruneEffect(error=0.4, loss=0.3, share=0.5, channels=48),
    ),
    decompose_left="they are grouped or depthwise",
)
HEAD = LayerExplanation(
    name="head.output",
    kind="linear",
    output=(2,),
    calls=1,
    float_bytes=10_248,
    int8_bytes=2576,
    multiply_adds=2560,
    int8_left="it is called more than once",
    prune_left="its channels are the network's outputs",
    decompose_left="factors would not save enough",
)
TIMING = Timing(
    device="cortex-a76, counted",
    runtime="tflite",
    precision="int8",
    threads=1,
    source="modelled",
    asked=4,
    doubtful=1,
)
EXPLANATION = Explanation(
    checkpoint="0" * 64,
    network="efficientnet_lite0",
    pictures=32,
    settings={"int8": "per channel, ranges by mse", "prune": "criterion activation", "decompose": "method auto"},
    layers=(FIRST, SECOND, HEAD),
    timing=TIMING,
    notes=("no time: head.output works on more than vectors",),
)
