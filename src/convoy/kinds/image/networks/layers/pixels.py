"""uint8 pixels -> normalised floats; the first layer of every image model, so that scaling is part of the ONNX file."""

from torch import Tensor, nn


class Pixels(nn.Module):
    """Brings each channel to mean 0 and spread 1, as measured on the training images."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm2d(channels, affine=False)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, height, width, channels) uint8 -> (batch, channels, height, width) float."""
        pixels = images.permute(0, 3, 1, 2) / 255
        normalised: Tensor = self.normalise(pixels)
        return normalised
