"""VGG-19, its gradient and the 2016 descent in plain NumPy, written from the equations.

Nothing of fmi is used here. Arrays are float64, one picture (3, H, W) at a time.
"""

import numpy as np

BLOCKS = (2, 2, 4, 4, 4)


def patches(image):
    """(C, H, W) to (9 C, H W): each position's 3 x 3 neighbourhood, zeros outside."""
    channels, height, width = image.shape
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return np.stack(shifted, axis=1).reshape(channels * 9, height * width)


def convolve(image, weight, bias):
    out = weight.reshape(len(weight), -1) @ patches(image) + bias[:, None]
    return out.reshape(len(weight), *image.shape[1:])


def convolve_back(gradient, weight):
    """Gradient with respect to the input: correlation with the flipped, transposed kernel."""
    flipped = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    return convolve(gradient, flipped, np.zeros(len(flipped)))


def pool(image, rounding="up"):
    channels, height, width = image.shape
    if rounding == "up":
        image = np.pad(image, ((0, 0), (0, height % 2), (0, width % 2)))
        height, width = image.shape[1:]
    even = image[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(channels, height // 2, 2, width // 2, 2).mean(axis=(2, 4))


def pool_back(gradient, shape):
    out = np.zeros(shape)
    spread = np.repeat(np.repeat(gradient, 2, axis=1), 2, axis=2) / 4
    spread = spread[:, : shape[1], : shape[2]]  # zeros were appended
    out[:, : spread.shape[1], : spread.shape[2]] = spread  # the rest was left out
    return out


def layer_names(deepest):
    names = []
    for block, count in enumerate(BLOCKS, start=1):
        for index in range(1, count + 1):
            names += [f"conv{block}_{index}", f"relu{block}_{index}"]
        names.append(f"pool{block}")
    return names[: names.index(deepest) + 1]


class Network:
    def __init__(self, arrays, deepest, rounding="up"):
        self.rounding = rounding
        self.arrays = {key: value.astype(np.float64) for key, value in arrays.items()}
        self.names = layer_names(deepest)

    def codes(self, image):
        found, value = {}, image.astype(np.float64)
        for name in self.names:
            if name.startswith("conv"):
                a = self.arrays
                value = convolve(value, a[f"{name}_weight"], a[f"{name}_bias"])
            elif name.startswith("relu"):
                value = np.maximum(value, 0)
            else:
                value = pool(value, self.rounding)
            found[name] = value
        return found

    def gradient(self, image, code_gradients):
        """Gradient with respect to the picture, given those with respect to some codes."""
        found = self.codes(image)
        gradient = np.zeros_like(found[self.names[-1]])
        for place in range(len(self.names) - 1, -1, -1):
            name = self.names[place]
            gradient = gradient + code_gradients(found).get(name, 0)
            if name.startswith("conv"):
                gradient = convolve_back(gradient, self.arrays[f"{name}_weight"])
            elif name.startswith("relu"):
                gradient = gradient * (found[name] > 0)
            else:
                gradient = pool_back(gradient, found[self.names[place - 1]].shape)
        return gradient


def descend(network, image, code_gradients, steps, weight_decay, rate=0.1, clip=10):
    """The 2016 loop: SGD .1, momentum .9, gradient clipped to +-10."""
    image, velocity = image.astype(np.float64), 0
    for _ in range(steps):
        gradient = np.clip(network.gradient(image, code_gradients), -clip, clip)
        velocity = 0.9 * velocity - rate * (gradient + weight_decay * image)
        image = image + velocity
    return image
