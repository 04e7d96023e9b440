"""Model families, one file each; torch is imported inside build()."""

# Channel statistics of ImageNet's training pictures, on 0..255 RGB values: the usual ones, times 255.
IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
