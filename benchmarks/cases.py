"""What is timed: layers of networks, layers first held out when the rule was made, cliffs that people reported, drawn layers."""

from benchmarks.case import Case
from benchmarks.drawn import drawn

# The 19 layers of known networks that the engines were made on.
STUDY = (
    Case("r64", (8, 64, 56, 56), (64, 64, 3, 3), padding=1, note="ResNet, first stage"),
    Case("r256", (8, 256, 14, 14), (256, 256, 3, 3), padding=1, note="ResNet, third stage"),
    Case("stem", (8, 3, 224, 224), (64, 3, 7, 7), 2, 3, note="ResNet stem"),
    Case("pw", (8, 256, 56, 56), (64, 256, 1, 1), note="pointwise"),
    Case("dw3", (8, 144, 56, 56), (144, 1, 3, 3), padding=1, groups=144, note="MobileNet depthwise"),
    Case("grp", (8, 128, 56, 56), (128, 4, 3, 3), padding=1, groups=32, note="ResNeXt grouped"),
    Case("c1d", (16, 64, 4096), (64, 64, 5), padding=2, note="signal"),
    Case("dw1d", (16, 512, 1024), (512, 1, 5), padding=2, groups=512, note="depthwise signal"),
    Case("c3d", (2, 16, 32, 32, 32), (32, 16, 3, 3, 3), padding=1, note="volume"),
    Case("dil", (8, 64, 28, 28), (64, 64, 3, 3), padding=2, dilation=2, note="dilated"),
    Case("n2n", (64, 3, 32, 32), (48, 3, 3, 3), padding=1, note="small images"),
    Case("dw7", (8, 96, 56, 56), (96, 1, 7, 7), padding=3, groups=96, note="ConvNeXt depthwise"),
    Case("dw31", (2, 64, 32, 32), (64, 1, 31, 31), padding=15, groups=64, note="RepLKNet depthwise"),
    Case("s2", (8, 128, 28, 28), (256, 128, 3, 3), 2, 1, note="ResNet downsampling"),
    Case("b1", (1, 64, 56, 56), (64, 64, 3, 3), padding=1, note="one sample"),
    Case("pws2", (8, 256, 28, 28), (512, 256, 1, 1), 2, note="ResNet shortcut"),
    Case("ct2", (8, 64, 28, 28), (64, 32, 4, 4), 2, 1, transposed=True, note="DCGAN generator"),
    Case("ct1", (8, 128, 2048), (128, 64, 16), 8, transposed=True, note="vocoder upsampling"),
    Case("ct3", (1, 16, 24, 24, 24), (16, 8, 3, 3, 3), 2, transposed=True, note="volume upsampling"),
)

# Layers that the rule was first made without: other networks, other sizes, channels and batches that are no powers of two.
HELD_OUT = (
    Case("vgg", (4, 128, 28, 28), (256, 128, 3, 3), padding=1, note="VGG-16 conv3_1"),
    Case("lenet", (128, 1, 28, 28), (6, 1, 5, 5), padding=2, note="LeNet-5 C1"),
    Case("unet", (2, 96, 60, 60), (48, 96, 3, 3), padding=1, note="U-Net decoder"),
    Case("patch", (8, 3, 224, 224), (192, 3, 16, 16), 16, note="ViT patches"),
    Case("dw5s2", (8, 72, 56, 56), (72, 1, 5, 5), 2, 2, groups=72, note="MobileNetV3"),
    Case("resnext", (4, 256, 28, 28), (256, 8, 3, 3), padding=1, groups=32, note="ResNeXt-101 32x8d"),
    Case("g4", (4, 96, 27, 27), (256, 24, 5, 5), padding=2, groups=4, note="four groups, after AlexNet"),
    Case("wavenet", (4, 48, 6000), (96, 48, 2), padding=64, dilation=128, note="WaveNet, dilation 128"),
    Case("m5", (16, 1, 16000), (64, 1, 80), 4, note="M5 waveform"),
    Case("r2p1d", (2, 64, 8, 28, 28), (144, 64, 1, 3, 3), padding=0, note="R(2+1)D, a kernel of 1x3x3"),
    Case("tcn", (5, 40, 999), (40, 1, 9), padding=8, dilation=2, groups=40, note="Conv-TasNet"),
    Case("ct2odd", (3, 48, 17, 23), (48, 24, 3, 3), 2, 1, transposed=True, note="odd sizes"),
)

# What people reported against JAX's convolutions, scaled to a small machine.
CLIFFS = (
    Case("#13800", (16, 128, 512), (128, 2, 9), padding=4, groups=64, note="grouped conv1d, backward"),
    Case("#23783", (8, 128, 2048), (128, 64, 16), 8, 4, transposed=True, note="transposed conv1d"),
    Case("#31662", (1, 16, 24, 24, 24), (16, 8, 4, 4, 4), 2, 1, transposed=True, note="transposed conv3d, gradient"),
    Case("#23713", (8, 128, 56, 56), (128, 1, 3, 3), padding=1, groups=128, note="depthwise 2-D, forward"),
    Case("#26266 d2", (4, 128, 32, 32), (128, 1, 3, 3), padding=2, dilation=2, groups=128, note="dilated depthwise"),
    Case("#26266 d8", (4, 128, 32, 32), (128, 1, 3, 3), padding=8, dilation=8, groups=128, note="dilated depthwise"),
    Case("#23085 k16", (16, 64, 512), (64, 1, 16), padding=8, groups=64, note="depthwise 1-D, kernel 16"),
    Case("#23085 k64", (16, 64, 512), (64, 1, 64), padding=32, groups=64, note="depthwise 1-D, kernel 64"),
    Case("#12868", (4, 64, 28, 28), (64, 2, 3, 3), padding=1, groups=32, kind="loop", note="convolution in a loop"),
    Case("#1606", (256, 8, 16, 16), (16, 8, 3, 3), padding=1, kind="per example", note="vmap(grad), batch 256"),
)

# Batches of many small images and short signals, which are taken in parts where U has more than 16 MB. The rule was made on the
# first, the fourth and the last two of them, and on others of their kind.
MANY_SAMPLES = (
    Case("cifar16", (128, 16, 32, 32), (16, 16, 3, 3), padding=1, note="ResNet-20, first stage"),
    Case("cifar64", (128, 64, 8, 8), (64, 64, 3, 3), padding=1, note="ResNet-20, third stage"),
    Case("late", (64, 512, 7, 7), (512, 512, 3, 3), padding=1, note="ResNet-18, last stage"),
    Case("mnist", (256, 1, 28, 28), (32, 1, 5, 5), note="digits"),
    Case("gan8", (64, 64, 8, 8), (64, 32, 4, 4), 2, 1, transposed=True, note="DCGAN generator, small"),
    Case("text", (64, 128, 100), (128, 128, 5), padding=2, note="sentences of 100 tokens"),
    Case("tcn64", (16, 64, 512), (64, 64, 3), padding=4, dilation=4, note="temporal convolutional network"),
    Case("pw28", (128, 128, 28, 28), (64, 128, 1, 1), note="one tap, 28x28"),
    Case("m5rows", (854, 1, 640), (32, 1, 80), 4, note="M5 on rows of an image, as in `jaxconv verify`"),
)

# Long kernels at a stride, windows side by side, and few channels in or out: layers that lines of the rule were made on.
STRIDED = (
    Case("k6s2", (4, 16, 64, 64), (32, 16, 6, 6), 2, 2, note="6x6 at stride 2"),
    Case("k9s3", (8, 16, 48, 48), (32, 16, 9, 9), 3, 3, note="9x9 at stride 3"),
    Case("k5s2", (4, 187, 43, 43), (79, 187, 5, 5), 2, 2, note="5x5 at stride 2, few samples"),
    Case("k7s2", (2, 61, 73, 73), (158, 61, 7, 7), 2, 3, note="7x7 at stride 2, few samples"),
    Case("k32s4", (8, 32, 8192), (64, 32, 32), 4, 14, note="signal, 32 taps at stride 4"),
    Case("vol", (2, 8, 32, 32, 32), (16, 8, 4, 4, 4), 2, 1, note="volume, 4x4x4 at stride 2"),
    Case("volup", (1, 32, 16, 16, 16), (32, 16, 4, 4, 4), 2, 1, transposed=True, note="volume upsampling"),
    Case("merge", (8, 96, 56, 56), (192, 96, 2, 2), 2, note="Swin, patch merging"),
    Case("up2", (8, 64, 28, 28), (64, 32, 2, 2), 2, transposed=True, note="U-Net, up-convolution"),
    Case("last", (8, 16, 64, 64), (16, 1, 4, 4), 2, 1, transposed=True, note="generator, one channel out"),
)

# Long kernels of signals, dense, in groups and at a stride: layers of networks, written down before they were timed for the first
# time. The rule for them was made on drawn ones.
LONG_KERNELS = (
    Case("jasper11", (4, 256, 800), (256, 256, 11), padding=5, note="Jasper, first block"),
    Case("jasper17", (2, 512, 300), (512, 512, 17), padding=8, note="Jasper, third block"),
    Case("ecg", (16, 64, 1280), (64, 64, 16), padding=8, note="ECG network of 16 taps"),
    Case("inception", (32, 32, 500), (32, 32, 39), padding=19, note="InceptionTime"),
    Case("basset1", (32, 4, 600), (300, 4, 19), padding=9, note="Basset, first layer, of DNA"),
    Case("basset2", (16, 300, 200), (200, 300, 11), padding=5, note="Basset, second layer"),
    Case("hifigan", (4, 128, 2048), (128, 128, 11), padding=25, dilation=5, note="HiFi-GAN, dilated"),
    Case("wav2vec", (2, 768, 250), (768, 48, 128), padding=64, groups=16, note="wav2vec 2.0, positions"),
    Case("sincnet", (8, 1, 3200), (80, 1, 251), note="SincNet, first layer"),
    Case("tasnet", (4, 1, 32000), (512, 1, 16), 8, note="Conv-TasNet, encoder"),
    Case("k48s2", (8, 32, 4096), (64, 32, 48), 2, 23, note="48 taps at stride 2"),
)

# Depthwise layers of small images. The weight gradient of short rows was made on the first three and others of their sizes; the
# last three were written down before they were timed for the first time. How many rows are added up at a time was chosen later.
SMALL_DEPTHWISE = (
    Case("mobile14", (8, 384, 14, 14), (384, 1, 3, 3), padding=1, groups=384, note="MobileNetV2, 14x14"),
    Case("cnx14", (8, 384, 14, 14), (384, 1, 7, 7), padding=3, groups=384, note="ConvNeXt, third stage"),
    Case("cnx7", (8, 768, 7, 7), (768, 1, 7, 7), padding=3, groups=768, note="ConvNeXt, last stage"),
    Case("mobile5x5", (8, 672, 14, 14), (672, 1, 5, 5), padding=2, groups=672, note="MobileNetV3, 5x5"),
    Case("shuffle", (16, 116, 28, 28), (116, 1, 3, 3), 2, 1, groups=116, note="ShuffleNetV2, downsampling"),
    Case("effnet28", (6, 144, 28, 28), (144, 1, 3, 3), padding=1, groups=144, note="EfficientNet, 28x28"),
)

# Every sample by itself.
MAPPED = (
    Case("vmap r64", (8, 64, 56, 56), (64, 64, 3, 3), padding=1, kind="mapped", note="r64 by vmap"),
    Case("vmap stem", (8, 3, 224, 224), (64, 3, 7, 7), 2, 3, kind="mapped", note="stem by vmap"),
    Case("vmap dw3", (8, 144, 56, 56), (144, 1, 3, 3), padding=1, groups=144, kind="mapped", note="dw3 by vmap"),
    Case("vmap s2", (8, 128, 28, 28), (256, 128, 3, 3), 2, 1, kind="mapped", note="s2 by vmap"),
    Case("vmap c1d", (16, 64, 4096), (64, 64, 5), padding=2, kind="mapped", note="c1d by vmap"),
    Case("each r64", (32, 64, 28, 28), (64, 64, 3, 3), padding=1, kind="per example", note="vmap(grad)"),
    Case("each mnist", (256, 1, 28, 28), (32, 1, 5, 5), kind="per example", note="vmap(grad)"),
    Case("each text", (64, 128, 100), (128, 128, 5), padding=2, kind="per example", note="vmap(grad)"),
    Case("each dw", (64, 64, 14, 14), (64, 1, 3, 3), padding=1, groups=64, kind="per example", note="vmap(grad)"),
)

# Layers of other networks that were written down before they were timed for the first time. What they showed then led to a line
# of the rule, for small strided layers, which was made on a sweep of drawn ones.
UNSEEN = (
    Case("yolo", (2, 128, 40, 40), (256, 128, 3, 3), 2, 1, note="YOLO, downsampling"),
    Case("srcnn", (4, 1, 96, 96), (64, 1, 9, 9), padding=4, note="SRCNN, first layer"),
    Case("vae", (2, 128, 64, 64), (128, 128, 3, 3), padding=1, note="latent diffusion, decoder"),
    Case("encodec", (4, 32, 12000), (64, 32, 8), 4, 2, note="EnCodec, downsampling"),
    Case("whisper", (4, 80, 3000), (384, 80, 3), padding=1, note="Whisper, first layer"),
    Case("c3d1a", (2, 3, 16, 56, 56), (64, 3, 3, 3, 3), padding=1, note="C3D, conv1a"),
    Case("pix2pix", (4, 128, 32, 32), (128, 64, 4, 4), 2, 1, transposed=True, note="pix2pix, decoder"),
    Case("dcgan5", (32, 64, 32, 32), (64, 3, 4, 4), 2, 1, transposed=True, note="DCGAN, last layer"),
    Case("r1x1", (4, 1024, 14, 14), (256, 1024, 1, 1), note="ResNet-50, bottleneck"),
    Case("cnx", (4, 192, 28, 28), (192, 1, 7, 7), padding=3, groups=192, note="ConvNeXt, second stage"),
    Case("effnet", (4, 240, 28, 28), (240, 1, 5, 5), padding=2, groups=240, note="EfficientNet"),
    Case("gated", (8, 192, 700), (384, 192, 3), padding=2, dilation=2, note="gated convolution of a sequence"),
)

# Lines of the rule were made on others that were drawn, with other seeds.
DRAWN = drawn(seed=22, count=40)

SETS = {
    "study": STUDY,
    "held-out": HELD_OUT,
    "unseen": UNSEEN,
    "cliffs": CLIFFS,
    "many-samples": MANY_SAMPLES,
    "strided": STRIDED,
    "long-kernels": LONG_KERNELS,
    "small-depthwise": SMALL_DEPTHWISE,
    "mapped": MAPPED,
    "drawn": DRAWN,
}


def growth() -> dict[str, list[tuple[int, Case]]]:
    """A layer that grows along one axis at a time."""
    base = {"batch": 8, "channels": 32, "image": 32, "kernel": 3}
    axes = {
        "batch": (1, 4, 16, 64),
        "channels": (8, 32, 128, 256),
        "image": (16, 32, 64, 128),
        "kernel": (1, 3, 7, 15),
    }

    def case(**more: int) -> Case:
        batch, channels, image, kernel = ({**base, **more}[name] for name in base)
        shape = (batch, channels, image, image)
        return Case("growth", shape, (channels, channels, kernel, kernel), padding=kernel // 2)

    return {axis: [(value, case(**{axis: value})) for value in values] for axis, values in axes.items()}
